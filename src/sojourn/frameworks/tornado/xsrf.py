"""XSRF tokens of Tornado, made from the session."""

from __future__ import annotations

from typing import Any

from tornado.web import HTTPError, RequestHandler


class XSRFMixin(RequestHandler):
    """Makes ``xsrf_token`` from the session, and checks it against the session.

    The cookie ``_xsrf`` is set as Tornado sets it, for scripts that send its value as a header. A
    value that only the cookie and the form share proves nothing: the session decides.
    """

    sojourn_exchange: Any

    @property
    def xsrf_token(self) -> bytes:
        """The token of this session; see ``session.csrf_token``."""
        exchange = self.sojourn_exchange
        if exchange is None or exchange.session is None:
            return super().xsrf_token
        token: bytes | None = getattr(self, "_sojourn_xsrf_token", None)
        if token is None:
            text: str = exchange.session.csrf_token
            token = self._sojourn_xsrf_token = text.encode()
            name = self.settings.get("xsrf_cookie_name", "_xsrf")
            if not exchange.session.check_csrf(self.get_cookie(name)):
                options = self.settings.get("xsrf_cookie_kwargs", {})
                self.set_cookie(name, text, **options)
        return token

    def check_xsrf_cookie(self) -> None:
        """Check the argument ``_xsrf``, or the header ``X-XSRFToken`` or ``X-CSRFToken``.

        A request that carries the ticket in a header, and no cookie, needs no token.

        Raises:
            HTTPError: 403, it is missing or belongs to another session.
        """
        exchange = self.sojourn_exchange
        if exchange is None or exchange.session is None:
            super().check_xsrf_cookie()
            return
        if exchange.has_header_only():
            return
        name = self.settings.get("xsrf_cookie_name", "_xsrf")
        token = (
            self.get_argument(name, None)
            or self.request.headers.get("X-Xsrftoken")
            or self.request.headers.get("X-Csrftoken")
        )
        if not token:
            raise HTTPError(403, "'_xsrf' argument missing from POST")
        if not exchange.session.check_csrf(token):
            raise HTTPError(403, "XSRF token does not match the session")
