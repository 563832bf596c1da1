"""Adds security headers to the demo's responses, and a copy of Set-Cookie that the page can show.

Scripts cannot read Set-Cookie. The copy has another name and a masked value, because a ticket that
scripts could read would defeat HttpOnly.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    b"require-trusted-types-for 'script'"
)
_ADDED: Final = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
#: Browsers revalidate the page's files at each request, because they change with the work tree.
_REVALIDATE: Final = (b"cache-control", b"no-cache")
_VALUE: Final = re.compile(rb"^([^=;]*=)([^;]+)")


class PageHeaders:
    """ASGI middleware. It wraps the session middleware, to read the headers of the session.

    Args:
        app: the application with its session middleware.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application and add headers to its response."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                copies = [
                    (b"x-demo-set-cookie", mask(value))
                    for name, value in headers
                    if name.lower() == b"set-cookie"
                ]
                present = {name.lower() for name, _ in headers}
                added = [each for each in (_REVALIDATE, *_ADDED) if each[0] not in present]
                message = {**message, "headers": [*headers, *added, *copies]}
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def mask(cookie: bytes) -> bytes:
    """Return a Set-Cookie header with the cookie's value, if any, replaced by its length."""
    return _VALUE.sub(lambda found: found[1] + b"(%d characters)" % len(found[2]), cookie)
