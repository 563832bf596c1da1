"""Web pages about sessions: the admin application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sojourn.admin.request import AdminRequest
from sojourn.errors import ConfigurationError
from sojourn.sessions import Sessions

if TYPE_CHECKING:
    from sojourn.admin.sessions_admin import Allow
    from sojourn.admin.web_application import WebApplication

__all__ = ["AdminRequest", "app"]

_MAX_PAGE_SIZE: Final = 1_000

#: Packages of the extra.
_REQUIRED: Final = frozenset({"jinja2", "markupsafe", "ua_parser", "ua_parser_builtins"})


def app(
    sessions: Sessions[Any],
    *,
    allow: Allow | None = None,
    login_url: str | None = None,
    page_size: int = 50,
    title: str = "Sessions",
) -> WebApplication:
    """Return the admin application: search sessions and revoke them.

    Mount it into an application that has sessions, such as
    ``app.mount("/admin/sessions", sojourn.admin.app(sessions, allow=is_admin))`` in Starlette and
    FastAPI. The session of the visitor is that of the host application.

    Args:
        sessions: which are administered: what ``sojourn.get(app)`` returns.
        allow: called with each request. Returns True to admit the visitor, ``"read"`` to admit them
            without the right to revoke, False to answer 403. It may be a coroutine function under
            ASGI.
        login_url: where visitors who are not logged in and not admitted are sent, with the address
            of the page as the parameter ``next``; None to answer 403.
        page_size: the number of sessions on a page, 1 to 1,000.
        title: of the pages.

    Returns:
        An ASGI and WSGI application.

    Raises:
        ConfigurationError: ``allow`` is missing, an option is wrong, or a package is not installed.
    """
    if allow is None:
        raise ConfigurationError(
            "the admin application admits no visitor without allow=: give a function that returns "
            "whether a visitor may use it, such as allow=lambda request: request.user in ADMINS"
        )
    if not callable(allow):
        raise ConfigurationError(f"allow expects a function, found {allow!r}")
    if not 1 <= page_size <= _MAX_PAGE_SIZE:
        raise ConfigurationError(f"page_size expects 1 to {_MAX_PAGE_SIZE}, found {page_size!r}")
    try:
        from sojourn.admin.sessions_admin import SessionsAdmin
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    pages = SessionsAdmin(
        sessions, allow=allow, login_url=login_url, page_size=page_size, title=title
    )
    return pages.application()


def missing_package(error: ModuleNotFoundError) -> Exception:
    """Return the error for a package that is not installed; another error unchanged."""
    if (error.name or "").partition(".")[0] not in _REQUIRED:
        return error
    return ConfigurationError(
        f"sojourn.admin needs the package {error.name}: pip install 'sojourn[admin]'"
    )
