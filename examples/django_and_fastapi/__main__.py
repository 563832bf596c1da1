"""Serves both: ``python -m examples.django_and_fastapi`` in the root of the repository.

Arguments: the port of the Django site (default 8000) and that of the FastAPI service (8001).
Environment: STORE (a store URL), SOJOURN_SECRET, DATABASE (the file of the Django site).
"""

import signal
import subprocess
import sys
from pathlib import Path

SITE_PORT, SERVICE_PORT = (*sys.argv[1:], *("8000", "8001")[len(sys.argv) - 1 :])


def create_admin() -> None:
    """Create the tables of the Django site and its user admin, unless they exist."""
    from examples.django_and_fastapi import django_site  # noqa: F401, I001 - configures Django
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    users = get_user_model().objects
    if not users.filter(username="admin").exists():
        users.create_superuser("admin", password="admin")  # noqa: S106 - an example


def main() -> None:
    """Prepare the database, then serve until interrupted."""
    Path(".sojourn").mkdir(exist_ok=True)
    create_admin()
    applications = {
        "django_site:application": SITE_PORT,
        "fastapi_service:app": SERVICE_PORT,
    }
    command = [sys.executable, "-m", "uvicorn", "--log-level", "warning", "--port"]
    servers = [
        subprocess.Popen([*command, port, f"examples.django_and_fastapi.{application}"])  # noqa: S603 - uvicorn
        for application, port in applications.items()
    ]
    print(
        f"Django admin:    http://localhost:{SITE_PORT}/admin/ (user admin, password admin)",
        f"FastAPI service: http://localhost:{SERVICE_PORT}/",
        sep="\n",
        flush=True,
    )

    def stop(*_: object) -> None:
        for server in servers:
            server.terminate()

    signal.signal(signal.SIGTERM, stop)
    try:
        for server in servers:
            server.wait()
    except KeyboardInterrupt:
        stop()


if __name__ == "__main__":
    main()
