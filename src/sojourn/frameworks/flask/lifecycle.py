"""FlaskLifecycle: the session of one request of Flask, and streams that use it."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any, Final, TypeVar

from flask import Response

from sojourn.errors import SessionError, StoreError
from sojourn.frameworks.flask.response import (
    add_retry_headers,
    caching_headers,
    is_complete,
    replace_caching_headers,
)
from sojourn.web.installation import WebInstallation
from sojourn.web.lifecycle import run
from sojourn.web.origin import Refusal
from sojourn.web.wsgi_environ import Environ, EnvironLifecycle

#: The environ key of the ``FlaskLifecycle`` of a request.
LIFECYCLE: Final = "sojourn.flask"

_SERVER_ERROR: Final = 500

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("sojourn")


class FlaskLifecycle(EnvironLifecycle):
    """The session of one request.

    Attributes:
        load_error: loading the session raised it; it is raised again where Flask handles errors.
        refusal: why the request must be refused, because of its origin; None if it may pass.
        responded: the session was committed, and its headers are on the response.
        settled: what is kept of a failed request was committed; nothing is committed after that.
        store_failed: an error page of the application means that the store failed.
    """

    __slots__ = ("load_error", "refusal", "responded", "settled", "store_failed")

    def __init__(self, web: WebInstallation, environ: Environ) -> None:
        super().__init__(web, environ)
        self.load_error: StoreError | None = None
        self.refusal: Refusal | None = None
        self.responded: bool = False
        self.settled: bool = False
        self.store_failed: bool = False

    def add_to(self, response: Response) -> None:
        """Commit the session and put its headers on a response; wrap the body of a stream.

        Raises:
            StoreError: the store failed.
            SessionError: the session cannot be saved.
        """
        status = response.status_code
        complete = is_complete(response)
        if status >= _SERVER_ERROR and (self.store_failed or self.unavailable):
            add_retry_headers(response)
            if not self.keeps_something():
                self.mark_failed()
                self.settled = True  # a store that has just failed is not asked again for nothing
        headers = caching_headers(response)
        if self.settled:
            sent = self.error_headers(headers)
        else:
            sent = wait(self.respond(status, headers, complete))
        if sent is not headers:
            replace_caching_headers(response, sent)
        self.responded = True
        if complete:
            self.release()
        else:
            response.response = Stream(response.iter_encoded(), response.response, self)

    def keeps_something(self) -> bool:
        """Return whether a failed request has something to commit (law A10)."""
        copy = self.working_copy
        return copy is not None and (copy.destroyed_record is not None or copy.renewal is not None)

    def settle(self, error: BaseException) -> None:
        """Commit what is kept of a request that raised, once.

        Raises:
            StoreError: the store failed.
        """
        if self.settled or self.responded:
            return
        self.settled = True
        if isinstance(error, StoreError) and not self.keeps_something():
            self.mark_failed()  # as in `add_to`
            return
        try:
            wait(self.fail(cancelled=not isinstance(error, Exception)))
        except SessionError as refused:  # with save_on_error: the data cannot be saved
            logger.error("the data of a failed request was not saved: %s", refused)  # noqa: TRY400 - one line
            self.failed: bool = True
            wait(self.finish())

    def release(self) -> None:
        """Drop references that form cycles: the request is freed at once."""
        self._environ.pop(LIFECYCLE, None)
        self.end()


class Stream:
    """The body of a streamed response; it commits what the stream changed at its end (law A11).

    Args:
        parts: encoded.
        body: the application's, which is closed.
        lifecycle: of the request.
    """

    def __init__(
        self, parts: Iterable[bytes], body: Iterable[Any], lifecycle: FlaskLifecycle
    ) -> None:
        self._parts = iter(parts)
        self._body = body
        self._lifecycle = lifecycle
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        """Return the stream itself; it is iterated over once."""
        return self

    def __next__(self) -> bytes:
        """Return the next part."""
        try:
            for part in self._parts:
                return part
            wait(self._lifecycle.finish())
        except BaseException as error:
            if not self._lifecycle.settled:
                self._lifecycle.settled = True
                wait(self._lifecycle.fail(cancelled=not isinstance(error, Exception)))
            raise
        raise StopIteration

    def close(self) -> None:
        """Close the application's body, and commit what a client that left did not prevent."""
        if self._closed:
            return
        self._closed = True
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            if not self._lifecycle.settled:
                wait(self._lifecycle.finish())
            self._lifecycle.release()


def wait(result: T | Coroutine[Any, Any, T]) -> T:
    """Return the result of a step of the lifecycle."""
    return run(result) if isinstance(result, Coroutine) else result
