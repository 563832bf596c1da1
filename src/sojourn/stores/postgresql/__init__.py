"""Store for PostgreSQL."""
