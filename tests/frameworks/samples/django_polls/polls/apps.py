"""The configuration of the application."""

from django.apps import AppConfig


class PollsConfig(AppConfig):
    """Polls."""

    default_auto_field = "django.db.models.BigAutoField"
    name = "polls"
