"""PageHeaders: what the demo adds to its responses.

What lives here: the Content-Security-Policy, and an echo of Set-Cookie for the page to show. What
must not: sessions. Scripts cannot read Set-Cookie, so the same response says it again under another
name, with the ticket masked: the ticket is a secret, and HttpOnly would be in vain otherwise.
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
#: The page's own files change with the work tree: browsers ask each time whether they have.
_CHECK: Final = (b"cache-control", b"no-cache")
_VALUE: Final = re.compile(rb"^([^=;]*=)([^;]+)")


class PageHeaders:
    """ASGI middleware; it must stand outside of the sessions to see what they send.

    Args:
        app: the application with its sessions.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a connection through and add to the headers of its response."""

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                echo = [
                    (b"x-demo-set-cookie", mask(value))
                    for name, value in headers
                    if name.lower() == b"set-cookie"
                ]
                if not any(name.lower() == b"cache-control" for name, _ in headers):
                    headers.append(_CHECK)
                message = {**message, "headers": [*headers, *_ADDED, *echo]}
            await send(message)

        await self.app(scope, receive, send_more if scope["type"] == "http" else send)


def mask(cookie: bytes) -> bytes:
    """Return a Set-Cookie value with the cookie's own value, if any, replaced by its length."""
    return _VALUE.sub(lambda found: found[1] + b"(%d characters)" % len(found[2]), cookie)
