"""Reading a WSGI environ: what ``scope.py`` is for ASGI.

What lives here: pure functions from an environ (PEP 3333), and what stands in one once its response
is over. What must not: responses (``wsgi.py``) and decisions.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

from sojourn.web.lifecycle import Gate, OnStoreFailure
from sojourn.web.origin import Refusal

Environ = dict[str, Any]


def judge(gate: Gate, environ: Environ) -> Refusal | None:
    """Tell why a request that changes something is refused; see ``Gate.judge``."""

    def header(name: str) -> bytes | None:
        value: str | None = environ.get(name)
        return None if value is None else value.encode("latin-1", "replace")

    return gate.judge(
        environ["REQUEST_METHOD"],
        environ["wsgi.url_scheme"],
        site=header("HTTP_SEC_FETCH_SITE"),
        origin=header("HTTP_ORIGIN"),
        host=header("HTTP_HOST"),
        cookies=header("HTTP_COOKIE"),
        proxied=is_proxied(environ),
    )


def is_proxied(environ: Environ) -> bool:
    """Tell whether a proxy passed the request on: only proxies add these headers."""
    return (
        "HTTP_X_FORWARDED_FOR" in environ
        or "HTTP_X_FORWARDED_PROTO" in environ
        or "HTTP_FORWARDED" in environ
        or "HTTP_VIA" in environ
    )


def read_path(environ: Environ) -> str:
    """Return the path as the application's own routes are written, as in ASGI.

    PEP 3333 spells its bytes as Latin-1 and leaves it empty at the mount point itself.
    """
    path: str = environ.get("PATH_INFO", "") or "/"
    return path if path.isascii() else path.encode("latin-1", "replace").decode(errors="replace")


class Ended:
    """Stands in a request for the exchange that is over."""

    gate: Final = None

    def load(self, policy: OnStoreFailure | None = None) -> NoReturn:  # noqa: ARG002 - as Exchange's
        """Say that it is too late."""
        raise RuntimeError("the response has ended; ask for the session before that")


ENDED: Final = Ended()
