"""CSRFStoragePolicy: Pyramid's CSRF protection with the token of the session's ticket."""

from __future__ import annotations

from hmac import compare_digest
from typing import Any

from pyramid.interfaces import ICSRFStoragePolicy  # type: ignore[import-untyped] # it has no types
from zope.interface import classImplements  # type: ignore[import-untyped] # it has no types

from sojourn.frameworks.pyramid.session import CSRF_KEY
from sojourn.web.wsgi import EXCHANGE, WSGIExchange


class CSRFStoragePolicy:
    """Gives ``get_csrf_token`` and ``require_csrf`` the token ``session.csrf_token``.

    It belongs to the ticket: a login replaces it. Each call returns other characters for it, so
    that a compressed page does not reveal it (BREACH). The token of ``session.get_csrf_token()``,
    which older templates use, is accepted as well.
    """

    def new_csrf_token(self, request: Any) -> str:
        """Return the token; only a login or a rotation replaces it."""
        return self.get_csrf_token(request)

    def get_csrf_token(self, request: Any) -> str:
        """Return the token."""
        token: str = request.session.csrf_token
        return token

    def check_csrf_token(self, request: Any, token: str) -> bool:
        """Return whether a token belongs to the session of a request.

        A request that carries the ticket in a header, and no cookie, needs none.
        """
        session = request.session
        exchange: WSGIExchange | None = request.environ.get(EXCHANGE)
        if exchange is not None and exchange.has_header_only():
            return True
        if session.check_csrf(token):
            return True
        stored = session.get(CSRF_KEY)
        return isinstance(stored, str) and compare_digest(
            stored.encode(), token.encode(errors="backslashreplace")
        )


classImplements(CSRFStoragePolicy, ICSRFStoragePolicy)
