"""The application for INSTALLED_APPS, which adds the system checks."""
# mypy: disable-error-code="import-untyped"

from django.apps import AppConfig
from django.core.checks import Tags, register


class SojournConfig(AppConfig):  # type: ignore[misc] # Django has no types
    """Registers the checks of ``manage.py check``."""

    name = "sojourn.frameworks.django"
    label = "sojourn"
    verbose_name = "Sessions"

    def ready(self) -> None:
        """Register the checks."""
        from sojourn.frameworks.django import checks

        register(checks.check_settings, Tags.security)
        register(checks.check_deployment, Tags.security, deploy=True)
