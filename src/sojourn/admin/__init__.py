"""Web pages about sessions: the admin application and the device page."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any, Final

from sojourn._core.durations import milliseconds
from sojourn.admin.request import AdminRequest
from sojourn.admin.user_directory import UserDirectory
from sojourn.errors import ConfigurationError
from sojourn.sessions import Sessions
from sojourn.store import SupportsUserIndex

if TYPE_CHECKING:
    from pathlib import Path

    from sojourn._core.durations import Duration
    from sojourn.admin.device_page_handlers import FormatTime, Texts
    from sojourn.admin.sessions_admin import Allow
    from sojourn.admin.web_application import WebApplication

__all__ = ["AdminRequest", "UserDirectory", "app", "device_page"]

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
    users: UserDirectory | None = None,
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
        users: names users for administrators and finds them by name, if sessions hold identifiers
            such as numbers; None to show users as they were given to ``session.login``.

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
    if type(page_size) is not int or not 1 <= page_size <= _MAX_PAGE_SIZE:
        raise ConfigurationError(f"page_size expects 1 to {_MAX_PAGE_SIZE}, found {page_size!r}")
    _check_login_url(login_url)
    try:
        from sojourn.admin.sessions_admin import SessionsAdmin
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    pages = SessionsAdmin(
        sessions,
        allow=allow,
        login_url=login_url,
        page_size=page_size,
        title=title,
        users=users,
    )
    return pages.application()


def device_page(
    sessions: Sessions[Any],
    *,
    login_url: str | None = None,
    require_recent: Duration | None = None,
    texts: Texts | None = None,
    templates: str | Path | None = None,
    stylesheet: str | None = None,
    format_time: FormatTime | None = None,
) -> WebApplication:
    """Return the page on which users see where they are logged in and log out other devices.

    Mount it into an application that has sessions, such as
    ``app.mount("/devices", sojourn.admin.device_page(sessions, login_url="/login"))`` in Starlette
    and FastAPI. Each user sees and ends only their own sessions. ``GET sessions``,
    ``DELETE sessions`` and ``DELETE sessions/{id}`` below the mount are the same as JSON.

    Args:
        sessions: what ``sojourn.get(app)`` returns; its store lists the sessions of a user.
        login_url: where visitors who are not logged in, or too long ago, are sent, with the address
            of the page as the parameter ``next``; None to answer 401.
        require_recent: the greatest age of a login that may log out other devices, such as
            ``"10 minutes"``; None for any.
        texts: texts by name in place of the English ones, or a function of the request that
            returns them; see ``docs/device-page.md``.
        templates: a folder with templates in place of those of the package.
        stylesheet: the path of a further stylesheet on this host, such as ``/static/brand.css``.
        format_time: a function of a datetime and the request that returns a text; None for English
            such as "3 minutes ago".

    Returns:
        An ASGI and WSGI application.

    Raises:
        ConfigurationError: an option is wrong, the store does not list the sessions of a user, or a
            package is not installed.
    """
    if not isinstance(sessions.store, SupportsUserIndex):
        raise ConfigurationError(
            "the device page needs a store with an index of users, found "
            f"{sessions.store!r}; use one with an index, such as sqlite:/// or memory://"
        )
    _check_login_url(login_url)
    if require_recent is not None:
        milliseconds(require_recent, option="require_recent")
    if stylesheet is not None and not _is_local_path(stylesheet):
        raise ConfigurationError(
            "stylesheet expects a path on this host such as '/static/brand.css', because the page "
            f"loads nothing from other hosts, found {stylesheet!r}"
        )
    folder = None if templates is None else pathlib.Path(templates)
    if folder is not None and not folder.is_dir():
        raise ConfigurationError(f"templates expects a folder, found {str(templates)!r}")
    try:
        from sojourn.admin.device_page_handlers import DevicePage
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    pages = DevicePage(
        sessions,
        login_url=login_url,
        require_recent=require_recent,
        texts=texts or {},
        templates=folder,
        stylesheet=stylesheet,
        format_time=format_time,
    )
    return pages.application()


def check_packages() -> None:
    """Raise ``ConfigurationError`` if a package of ``sojourn[admin]`` is not installed."""
    try:
        from sojourn.admin import sessions_admin  # noqa: F401 - imported to find missing packages
    except ModuleNotFoundError as error:
        raise missing_package(error) from error


def _check_login_url(url: str | None) -> None:
    if url is not None and not (url and url.isascii() and url.isprintable() and " " not in url):
        raise ConfigurationError(
            f"login_url expects a URL such as '/login', with other characters than ASCII quoted as "
            f"%XX, found {url!r}"
        )


def _is_local_path(url: str) -> bool:
    # "//host" and "/\\host" name other hosts.
    return url.startswith("/") and not url.startswith(("//", "/\\"))


def missing_package(error: ModuleNotFoundError) -> Exception:
    """Return the error for a package that is not installed; another error unchanged."""
    if (error.name or "").partition(".")[0] not in _REQUIRED:
        return error
    return ConfigurationError(
        f"sojourn.admin needs the package {error.name}: pip install 'sojourn[admin]'"
    )
