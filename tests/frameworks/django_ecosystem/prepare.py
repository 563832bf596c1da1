"""Create the tables and the users of the project: ``python -m``, before its server starts."""

import os

import django
from django.core.management import call_command

PASSWORD = "correct horse battery staple"


def main() -> None:
    """Create the superuser ada and the user bob."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.frameworks.django_ecosystem.project.settings"
    django.setup()
    from django.contrib.auth import get_user_model

    call_command("migrate", verbosity=0)
    users = get_user_model().objects
    users.create_superuser("ada", "ada@shop.example", PASSWORD)
    users.create_user("bob", "bob@shop.example", PASSWORD)


if __name__ == "__main__":
    main()
