"""Reading a WSGI environ (PEP 3333)."""

from __future__ import annotations

from functools import partial
from typing import Any

from sojourn.web.installation import WebInstallation
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
