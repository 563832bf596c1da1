"""Django: URL patterns of the page on which users see and log out their own devices."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import resolve_url
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from sojourn import admin
from sojourn.frameworks.django.admin import respond
from sojourn.frameworks.django.settings import get_sessions

if TYPE_CHECKING:
    from sojourn.admin.web_application import WebApplication


def urls(application: WebApplication | None = None) -> tuple[list[Any], str]:
    """Return the URL patterns of the device page, for ``include``.

    ``path("account/devices/", include(sojourn.frameworks.django.device_page.urls()))``

    Args:
        application: what ``sojourn.admin.device_page`` returns; None for one that sends visitors
            who are not logged in to ``LOGIN_URL``.

    Returns:
        The patterns and the application namespace ``device_page``.
    """
    view = make_view(application)
    return [path("", view, name="index"), path("<path:page>", view, name="page")], "device_page"


def make_view(application: WebApplication | None) -> Any:
    """Return the view of all pages, a function."""
    created: list[WebApplication] = [] if application is None else [application]
    if application is None:
        admin.check_packages()

    def show(request: HttpRequest, page: str = "") -> HttpResponse:
        if not created:  # not at import: settings may not be complete while URLs are loaded
            login_url = resolve_url(settings.LOGIN_URL)
            created.append(admin.device_page(get_sessions(), login_url=login_url))
        return respond(created[0], request, page)

    return csrf_exempt(show)  # the pages check a CSRF token of their own
