"""FlaskLifecycle: the session of one request of Flask, and streams that use it."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Iterable, Iterator
from types import CoroutineType
from typing import Any, Final

from flask import Response

from sojourn.errors import SessionError
from sojourn.frameworks.flask.response_lifecycle import (
    ResponseLifecycle,
    caching_headers,
    replace_caching_headers,
)
from sojourn.web.installation import OnStoreFailure, WebInstallation
from sojourn.web.lifecycle import run
from sojourn.web.wsgi_environ import (
    Environ,
    begin,
    may_load_later,
    read_labels,
    read_path,
    read_text_header,
)

#: The environ key of the ``FlaskLifecycle`` of a request.
LIFECYCLE: Final = "sojourn.flask"

logger: logging.Logger = logging.getLogger("sojourn")


class FlaskLifecycle(ResponseLifecycle):
    """The session of one request.

    Args:
        web: the web layer of the installation.
        environ: of the request.
    """

    __slots__ = ("_environ",)

    def __init__(self, web: WebInstallation, environ: Environ) -> None:
        super().__init__(web)
        self._environ = environ

    def labels(self) -> dict[str, str]:
        """Return the labels of the client."""
        return read_labels(self._environ)

    def method(self) -> str:
        """Return the method of the request."""
        method: str = self._environ["REQUEST_METHOD"]
        return method

    def path(self) -> str:
        """Return the path of the request."""
        return read_path(self._environ)

    def may_load_later(self) -> bool:
        """Return whether the request has a ticket and its path may have a session."""
        return may_load_later(self.web, self._environ, self.path())

    def header(self, name: str) -> str | None:
        """Return a header of the request."""
        return read_text_header(self._environ, name)

    def load(self, on_store_failure: OnStoreFailure | None = None) -> None:
        """Load the session, once.

        Raises:
            StoreError: the store failed.
        """
        wait(begin(self, self._environ, on_store_failure))

    def add_to(self, response: Response) -> None:
        """Commit the session and put its headers on a response; wrap the body of a stream.

        Raises:
            StoreError: the store failed.
            SessionError: the session cannot be saved.
        """
        # A file, which goes to the server as it is, cannot use the session either.
        complete = response.is_sequence or response.direct_passthrough
        headers = caching_headers(response)
        sent = self.commit_for(response, headers, complete=complete)
        if isinstance(sent, CoroutineType):
            sent = run(sent)
        if sent is not headers:
            replace_caching_headers(response, headers, sent)
        self.responded: bool = True
        if complete:
            self.release()
        else:
            response.response = Stream(response.iter_encoded(), response.response, self)

    def settle(self, error: BaseException) -> None:
        """Commit what is kept of a request that raised, once.

        Raises:
            StoreError: the store failed.
        """
        try:
            wait(self.settlement(error))
        except SessionError as refused:  # with save_on_error: the data cannot be saved
            logger.error("the data of a failed request was not saved: %s", refused)  # noqa: TRY400 - one line
            self.failed: bool = True
            wait(self.finish())

    def commit_late_changes(self) -> None:
        """Commit what a stream has changed; of a failed request what is kept of it (law A10)."""
        if self.settled:
            late = self.commit_after_error(store_failed=True)
            if late is not None:
                run(late)
        else:
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
            self._lifecycle.commit_late_changes()
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
            self._lifecycle.commit_late_changes()
            self._lifecycle.release()


def wait(waiting: Coroutine[Any, Any, None] | None) -> None:
    """Carry out a step of the lifecycle."""
    if waiting is not None:
        run(waiting)
