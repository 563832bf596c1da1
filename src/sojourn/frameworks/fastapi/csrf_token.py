"""CSRF protection as a dependency of FastAPI: ``Depends(csrf)`` checks and provides the token."""

# Without `from __future__ import annotations`: older versions of FastAPI cannot resolve the text of
# annotations of callable objects.

from contextlib import suppress
from typing import Any, Final

from fastapi import HTTPException
from starlette.requests import Request

from sojourn.frameworks.fastapi.dependencies import SessionDep
from sojourn.session import Session
from sojourn.web.asgi_scope import CONNECTION
from sojourn.web.origin import SAFE_METHODS

_URL_ENCODED: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"


class CsrfToken:
    """The token of a visitor's session for forms and scripts; ``str(token)`` makes it.

    A visitor without a session gets one only when the token is used.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Session[Any]) -> None:
        self._session = session

    def __str__(self) -> str:
        """Return a token, 86 characters; see ``Session.csrf_token``."""
        return self._session.csrf_token

    def __html__(self) -> str:
        """Return the token for templates, in which it needs no escaping."""
        return self._session.csrf_token

    def __repr__(self) -> str:
        """Show no token."""
        return "<CsrfToken>"


class Csrf:
    """A dependency that refuses requests without the token of their session with 403.

    GET, HEAD, OPTIONS and TRACE pass, and so do requests that carry the ticket in a header and no
    cookie: browsers do not send that header by themselves.

    Args:
        field: of a form, with the token.
        header: of a script's request, with the token.
    """

    def __init__(self, *, field: str = "csrf_token", header: str = "X-CSRF-Token") -> None:
        self._field = field
        self._header = header

    async def __call__(self, request: Request, session: SessionDep) -> CsrfToken:
        """Check the token of a request; return that of the page.

        Raises:
            HTTPException: 403, the request has no valid token.
        """
        if not (
            request.method in SAFE_METHODS
            or request.scope[CONNECTION].has_header_only()
            or session.check_csrf(await self._find(request))
        ):
            raise HTTPException(
                403,
                f"expected the CSRF token of this session in the form field {self._field!r} or the "
                f"header {self._header!r}; load the page again",
            )
        return CsrfToken(session)

    async def _find(self, request: Request) -> object:
        """Return the token in a request; None without one."""
        value = request.headers.get(self._header)
        if value is not None:
            return value
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == _URL_ENCODED:
            with suppress(RuntimeError):  # raised if FastAPI has parsed the form already
                await request.body()  # kept, so that the path function can read the body, too
        elif kind != _MULTIPART:
            return None
        return (await request.form()).get(self._field)


csrf: Final = Csrf()
"""The dependency with the default names: ``Depends(csrf)``."""
