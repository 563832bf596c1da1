"""QuartLifecycle: the session of one request of Quart, and streams that use it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from types import CoroutineType
from typing import Any, Final, Self

from quart import Response
from quart.wrappers.response import DataBody, FileBody, IOBody, ResponseBody

from sojourn.errors import SessionError
from sojourn.frameworks.flask.response_lifecycle import (
    ResponseLifecycle,
    caching_headers,
    replace_caching_headers,
)
from sojourn.web.asgi_scope import Scope, read_header, read_headers, read_labels, read_path
from sojourn.web.installation import OnStoreFailure, WebInstallation

#: The scope key of the ``QuartLifecycle`` of a request.
LIFECYCLE: Final = "sojourn.quart"

#: Bodies that cannot use the session while they are sent.
_COMPLETE_BODIES: Final = (DataBody, FileBody, IOBody)

logger: logging.Logger = logging.getLogger("sojourn")


class QuartLifecycle(ResponseLifecycle):
    """The session of one request.

    Args:
        web: the web layer of the installation.
        scope: of the request.
    """

    __slots__ = ("_scope",)

    def __init__(self, web: WebInstallation, scope: Scope) -> None:
        super().__init__(web)
        self._scope = scope

    def labels(self) -> dict[str, str]:
        """Return the labels of the client."""
        return read_labels(self._scope)

    def method(self) -> str:
        """Return the method of the request."""
        method: str = self._scope.get("method", "")
        return method

    def path(self) -> str:
        """Return the path of the request."""
        return read_path(self._scope)

    def header(self, name: str) -> str | None:
        """Return a header of the request."""
        return read_header(self._scope, name)

    def may_load_later(self) -> bool:
        """Return whether the request has a ticket and its path may have a session."""
        web = self.web
        patterns = web.config.patterns
        if not (patterns.everything or patterns.match(self.path())):
            return False
        host, cookies, _, proxied = read_headers(self._scope)
        transport = web.classify(self._scope["scheme"], host, proxied)
        return web.has_ticket(transport, cookies, self.header)

    async def load(self, on_store_failure: OnStoreFailure | None = None) -> None:
        """Load the session, once.

        Raises:
            StoreError: the store failed.
        """
        host, cookies, _, proxied = read_headers(self._scope)
        waiting = self.begin(self._scope["scheme"], host, cookies, proxied, on_store_failure)
        if waiting is not None:
            await waiting

    async def add_to(self, response: Response) -> None:
        """Commit the session and put its headers on a response; wrap the body of a stream.

        Raises:
            StoreError: the store failed.
            SessionError: the session cannot be saved.
        """
        body: Any = response.response
        # A response of Werkzeug, such as that of an HTTP error, has a list.
        complete = isinstance(body, _COMPLETE_BODIES) or not isinstance(body, ResponseBody)
        headers = caching_headers(response)
        sent = self.commit_for(response, headers, complete=complete)
        if isinstance(sent, CoroutineType):
            sent = await sent
        if sent is not headers:
            replace_caching_headers(response, headers, sent)
        self.responded: bool = True
        if complete:
            self.release()
        else:
            response.response = Stream(body, self)

    async def settle(self, error: BaseException) -> None:
        """Commit what is kept of a request that raised, once.

        Raises:
            StoreError: the store failed.
        """
        try:
            waiting = self.settlement(error)
            if waiting is not None:
                await asyncio.shield(waiting)
        except SessionError as refused:  # with save_on_error: the data cannot be saved
            logger.error("the data of a failed request was not saved: %s", refused)  # noqa: TRY400 - one line
            self.failed: bool = True
            waiting = self.finish()
            if waiting is not None:
                await waiting

    def release(self) -> None:
        """Drop references that form cycles: the request is freed at once."""
        self._scope.pop(LIFECYCLE, None)
        self.end()


class Stream(ResponseBody):
    """The body of a streamed response; it commits what the stream changed at its end (law A11).

    Args:
        body: the application's.
        lifecycle: of the request.
    """

    def __init__(self, body: ResponseBody, lifecycle: QuartLifecycle) -> None:
        self._body: Any = body
        self._lifecycle = lifecycle
        self._parts: AsyncIterator[Any]

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the application's body."""
        return getattr(self._body, name)

    async def __aenter__(self) -> Self:
        """Open the application's body."""
        self._parts = aiter(await self._body.__aenter__())
        return self

    def __aiter__(self) -> Stream:
        """Return the stream itself; it is iterated over once."""
        return self

    async def __anext__(self) -> Any:
        """Return the next part."""
        try:
            return await anext(self._parts)
        except (StopAsyncIteration, asyncio.CancelledError):
            raise  # the end, or a client that left
        except BaseException:
            self._lifecycle.mark_failed()
            raise

    async def __aexit__(self, *error: object) -> None:
        """Close the application's body, and commit what a client that left did not prevent."""
        lifecycle = self._lifecycle
        try:
            await self._body.__aexit__(*error)
        finally:
            waiting = lifecycle.finish()
            if waiting is not None:
                await asyncio.shield(waiting)
            lifecycle.release()
