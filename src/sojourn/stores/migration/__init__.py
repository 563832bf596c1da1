"""Replaces one store by another while the application runs (``docs/migration.md``)."""

from sojourn.stores.migration.capabilities import migrating
from sojourn.stores.migration.migration_run import MigrationProgress, amigrate, migrate
from sojourn.stores.migration.store import MigratingStore

__all__ = ["MigratingStore", "MigrationProgress", "amigrate", "migrate", "migrating"]
