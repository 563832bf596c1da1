"""A Django admin and a FastAPI service that share one store and one login."""
