"""The WSGI application: pages only."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault(
    "DJANGO_SETTINGS_MODULE", "tests.frameworks.django_ecosystem.project.settings"
)
application = get_wsgi_application()
