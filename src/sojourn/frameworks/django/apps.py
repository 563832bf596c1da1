"""The application for INSTALLED_APPS, which adds the system checks."""
# mypy: disable-error-code="import-untyped"

from django.core.checks import Tags, register

from sojourn.frameworks.django.typed_bases import AppConfig


class SojournConfig(AppConfig):
    """Registers the checks of ``manage.py check``."""

    name: str = "sojourn.frameworks.django"
    label: str = "sojourn"
    verbose_name: str = "Sessions"

    def ready(self) -> None:
        """Register the checks."""
        from sojourn.frameworks.django import system_checks

        register(system_checks.check_settings, Tags.security)
        register(system_checks.check_deployment, Tags.security, deploy=True)
