"""Django: URL patterns of the admin application, for staff with permissions on sessions."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, path, reverse
from django.views.decorators.csrf import csrf_exempt

from sojourn import admin
from sojourn.admin.request import (
    FORM,
    MAX_FORM_BYTES,
    AdminRequest,
    read_length,
    usable_session,
)
from sojourn.errors import ConfigurationError
from sojourn.frameworks.django.settings import get_sessions
from sojourn.frameworks.django.views import get_session
from sojourn.session import Session

# Not at run time: Django's admin imports this module of every project with sojourn in
# INSTALLED_APPS, also where the packages of `sojourn[admin]` are absent.
if TYPE_CHECKING:
    from sojourn.admin.response import AdminResponse
    from sojourn.admin.sessions_admin import Permission
    from sojourn.admin.web_application import WebApplication

#: The permissions of ``django.contrib.sessions``, which its migration creates.
VIEW: Final = "sessions.view_session"
DELETE: Final = "sessions.delete_session"


def allow_staff(request: AdminRequest) -> Permission:
    """Admit staff: to revoke with the permission to delete sessions, else to read with view."""
    user = request.connection.user
    if not (user.is_active and user.is_staff):
        return False
    if user.has_perm(DELETE):
        return True
    return "read" if user.has_perm(VIEW) else False


class DjangoUsers:
    """Names the users of ``AUTH_USER_MODEL``, whose sessions hold their primary keys."""

    def find(self, text: str, /) -> str | None:
        """Return the primary key of the user with a user name; None if there is none."""
        model = get_user_model()
        try:
            return str(model._default_manager.get_by_natural_key(text).pk)
        except (model.DoesNotExist, ValueError):  # ValueError: psycopg refuses NUL characters
            return None

    def names(self, users: Sequence[str], /) -> dict[str, str]:
        """Return user names by primary key, with one query."""
        model = get_user_model()
        valid = []
        for user in users:
            with suppress(ValidationError):  # a session from before the model was replaced
                valid.append(model._meta.pk.clean(user, None))
        found = QuerySet(model).in_bulk(valid)
        return {str(key): user.get_username() for key, user in found.items()}


def urls(application: WebApplication | None = None) -> tuple[Sequence[Any], str]:
    """Return the URL patterns of the admin application, for ``include``.

    ``path("admin/sessions/", include(sojourn.frameworks.django.admin.urls()))``, before the path
    of Django's own admin if that is ``admin/``.

    Args:
        application: what ``sojourn.admin.app`` returns; None for one that admits staff with the
            permission ``sessions.delete_session``, or ``sessions.view_session`` to read.

    Returns:
        The patterns and the application namespace ``sessions_admin``.
    """
    view = make_view(application)
    return [path("", view, name="index"), path("<path:page>", view, name="page")], "sessions_admin"


def make_view(application: WebApplication | None) -> Callable[..., HttpResponse]:
    """Return the view of all pages; visitors who are not logged in are sent to the login."""
    created: list[WebApplication] = [] if application is None else [application]
    if application is None:
        admin.check_packages()

    from django.contrib.auth.views import redirect_to_login  # imports models: needs settings

    def show(request: Any, page: str = "") -> HttpResponse:
        if not request.user.is_authenticated and request.method in ("GET", "HEAD"):
            return redirect_to_login(request.get_full_path(), _login_url())
        if not created:  # not at import: settings may not be complete while URLs are loaded
            created.append(admin.app(get_sessions(), allow=allow_staff, users=DjangoUsers()))
        return respond(created[0], request, page)

    # The pages check a CSRF token of their own.
    return cast("Callable[..., HttpResponse]", csrf_exempt(show))


def _login_url() -> str | None:
    """Return the login of Django's admin; None for ``LOGIN_URL`` if the project has no admin."""
    try:
        found: str = reverse("admin:login")
    except NoReverseMatch:
        return None
    return found


def respond(application: WebApplication, request: Any, page: str) -> HttpResponse:
    """Return the response of an application.

    Args:
        application: the admin application or a device page.
        request: with the session and the user of its middleware.
        page: the path below the mount, without its first slash.
    """
    needs_session = application.needs_session(f"/{page}")
    found = application.respond(_read_request(request, page, needs_session=needs_session))
    return _to_django(found)


def _to_django(response: AdminResponse) -> HttpResponse:
    answer = HttpResponse(response.body, status=int(response.status))
    del answer["Content-Type"]
    for name, value in response.complete_headers():
        answer[name] = value
    return answer


def _read_request(request: Any, page: str, *, needs_session: bool) -> AdminRequest:
    session, user = None, None
    if needs_session:  # otherwise both stay unloaded, so that caches may keep the response
        session = _load_session(request)
        found = getattr(request, "user", None)  # absent without AuthenticationMiddleware
        if found is not None and found.is_authenticated:
            user = found.get_username()
    return AdminRequest(
        method=request.method,
        path=f"/{page}",
        mount=request.path.removesuffix(page).rstrip("/"),
        query_string=request.META.get("QUERY_STRING", ""),
        headers={
            **{name.lower(): value for name, value in request.headers.items()},
            "host": request.get_host(),  # USE_X_FORWARDED_HOST decides which one
        },
        scheme=request.scheme,
        session=session,
        user=user,
        connection=request,
        form=_read_form(request),
    )


def _load_session(request: HttpRequest) -> Session[Any] | None:
    try:
        return usable_session(get_session(request))
    except ConfigurationError:  # Django's own middleware, with sojourn's session engine
        return usable_session(getattr(request, "session", None))


def _read_form(request: Any) -> dict[str, str]:
    length = read_length(request.headers.get("content-length", ""))
    if request.content_type != FORM or length is None or length > MAX_FORM_BYTES:
        return {}
    found: dict[str, str] = request.POST.dict()
    return found
