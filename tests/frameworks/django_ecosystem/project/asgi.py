"""The ASGI application: pages and consumers."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault(
    "DJANGO_SETTINGS_MODULE", "tests.frameworks.django_ecosystem.project.settings"
)
pages = get_asgi_application()

import channels.auth  # noqa: E402 - needs Django's apps
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402 - needs Django's apps
from django.urls import path  # noqa: E402 - needs Django's apps

from sojourn.frameworks.django.channels import AuthMiddlewareStack  # noqa: E402 - needs Django's apps
from tests.frameworks.django_ecosystem.project.consumers import (  # noqa: E402 - needs Django's apps
    AsyncVisits,
    LoginVisits,
    SyncVisits,
)

sockets = URLRouter(
    [
        path("ws", AuthMiddlewareStack(AsyncVisits.as_asgi())),
        path("ws-sync", AuthMiddlewareStack(SyncVisits.as_asgi())),
        path("ws-login", AuthMiddlewareStack(LoginVisits.as_asgi())),
        path("ws-channels", channels.auth.AuthMiddlewareStack(AsyncVisits.as_asgi())),
    ]
)
application = ProtocolTypeRouter({"http": pages, "websocket": sockets})
