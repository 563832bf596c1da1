"""Reading a WSGI environ (PEP 3333)."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any

from sojourn.web.asgi_scope import client_labels
from sojourn.web.installation import OnStoreFailure, WebInstallation
from sojourn.web.lifecycle import SessionLifecycle
from sojourn.web.origin import Refusal

Environ = dict[str, Any]


def check_origin(web: WebInstallation, environ: Environ) -> Refusal | None:
    """Return why a request must be refused; see ``WebInstallation.check_origin``."""
    return web.check_origin(
        environ["REQUEST_METHOD"],
        environ["wsgi.url_scheme"],
        site=read_header(environ, "HTTP_SEC_FETCH_SITE"),
        origin=read_header(environ, "HTTP_ORIGIN"),
        host=read_header(environ, "HTTP_HOST"),
        cookies=read_header(environ, "HTTP_COOKIE"),
        proxied=is_proxied(environ),
        read=partial(read_text_header, environ),
    )


def read_header(environ: Environ, name: str) -> bytes | None:
    """Return a header as bytes; None if it is absent.

    Args:
        environ: of the request.
        name: the environ key, such as ``HTTP_HOST``.
    """
    value: str | None = environ.get(name)
    return None if value is None else value.encode("latin-1", "replace")


def read_text_header(environ: Environ, name: str) -> str | None:
    """Return a header as text; None if it is absent.

    Args:
        environ: of the request.
        name: of the header, in lower case.
    """
    value: str | None = environ.get("HTTP_" + name.upper().replace("-", "_"))
    return value


def is_proxied(environ: Environ) -> bool:
    """Return whether the request has a header that only proxies add."""
    return (
        "HTTP_X_FORWARDED_FOR" in environ
        or "HTTP_X_FORWARDED_PROTO" in environ
        or "HTTP_FORWARDED" in environ
        or "HTTP_VIA" in environ
    )


def read_path(environ: Environ) -> str:
    """Return the path as the application's routes are written, without the mount prefix.

    PEP 3333 spells its bytes as Latin-1, and leaves it empty at the mount point itself.
    """
    path: str = environ.get("PATH_INFO", "") or "/"
    return path if path.isascii() else path.encode("latin-1", "replace").decode(errors="replace")


def begin(
    lifecycle: SessionLifecycle, environ: Environ, on_store_failure: OnStoreFailure | None = None
) -> Coroutine[Any, Any, None] | None:
    """Load the session of a request; see ``SessionLifecycle.begin``."""
    return lifecycle.begin(
        environ["wsgi.url_scheme"],
        read_header(environ, "HTTP_HOST"),
        read_header(environ, "HTTP_COOKIE"),
        is_proxied(environ),
        on_store_failure,
    )


def read_labels(environ: Environ) -> dict[str, str]:
    """Return the labels of the client: address and browser."""
    return client_labels(environ.get("REMOTE_ADDR"), environ.get("HTTP_USER_AGENT"))


def may_load_later(web: WebInstallation, environ: Environ, path: str) -> bool:
    """Return whether a request has a ticket and its path may have a session.

    Args:
        web: the web layer of the installation.
        environ: of the request.
        path: as the application's routes are written.
    """
    patterns = web.config.patterns
    if not (patterns.everything or patterns.match(path)):
        return False
    host = read_header(environ, "HTTP_HOST")
    transport = web.classify(environ["wsgi.url_scheme"], host, is_proxied(environ))
    cookies = read_header(environ, "HTTP_COOKIE")
    return web.has_ticket(transport, cookies, partial(read_text_header, environ))
