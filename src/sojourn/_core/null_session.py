"""NullSession: the session of a request that goes on although the store failed.

What lives here: what such a session can do, which is nothing that lasts. What must not: when a
request may go on (``web/lifecycle.py``).

It is empty, as if the visitor had just arrived, and what is written into it lasts for the request.
It is never saved, and no cookie is sent or cleared because of it (law A15): the visitor's own
session is in the store, and is found again when the store is. Whatever would have to reach the
store to be true, above all a login or a logout, fails as the store did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from sojourn._core.session import Session
from sojourn.errors import StoreUnavailable

if TYPE_CHECKING:
    from sojourn._core.engine import Engine
    from sojourn._core.working_copy import Client


class NullSession(Session[Any]):
    """An empty session that is never saved.

    Attributes:
        _denied: something was asked that it cannot do, or the request was not to go on at all:
            an answer that the framework makes of this error means that the store is unavailable.
    """

    __slots__ = ("_denied", "_failure")

    def __init__(self, engine: Engine, client: Client | None, failure: StoreUnavailable) -> None:
        super().__init__(engine, None, b"", client)
        self._gone = True  # so that no commit does anything
        self._failure = failure
        self._denied = False

    def _insist(self, *, wanted: bool) -> None:
        """Fail if a route does not want to go on without its session, or was not to."""
        if wanted or self._denied:
            self._fail()

    def _fail(self) -> NoReturn:
        self._denied = True
        raise StoreUnavailable(
            f"this request goes on without its session, which cannot do this: {self._failure}"
        ) from self._failure

    def login(self, *_: Any, **__: Any) -> None:
        """Fail: nobody would be logged in at the next request."""
        self._fail()

    def rotate(self) -> None:
        """Fail: the ticket would stay as it is."""
        self._fail()

    def destroy(self) -> None:
        """Fail: the session would live on."""
        self._fail()

    async def acommit(self) -> None:
        """Fail: nothing can be saved."""
        self._fail()

    async def arefresh(self) -> None:
        """Fail: nobody knows what others wrote."""
        self._fail()

    async def aclaim(self, key: str, default: Any = None) -> Any:  # noqa: ARG002 - as in the base
        """Fail: others might claim it as well."""
        self._fail()

    async def ause_grant(self, purpose: str) -> bool:  # noqa: ARG002 - as in the base
        """Fail: others might use it as well."""
        self._fail()

    def exclusive(self, **_: Any) -> NoReturn:
        """Fail: others would not be kept out."""
        self._fail()
