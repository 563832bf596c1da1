"""ResponseLifecycle: the base of the lifecycles of Flask and Quart."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final, Protocol

from werkzeug.datastructures import Headers

from sojourn.errors import StoreError
from sojourn.web.cache_headers import PRIVATE, PRIVATE_NO_STORE, VARY_COOKIE, RawHeaders
from sojourn.web.error_response import RETRY_HEADERS
from sojourn.web.installation import WebInstallation
from sojourn.web.lifecycle import ResponseHeaders, SessionLifecycle
from sojourn.web.origin import Refusal

#: The headers of the application that those of a session are combined with.
_TARGETED: Final = ("-cache-control", "surrogate-control")
_CACHING: Final = ("vary", "cache-control")

#: The last seven letters of their names, or the whole name.
_NAME_ENDINGS: Final = ("vary", "control")

_SERVER_ERROR: Final = 500
_UNAVAILABLE: Final = 503


class HasHeaders(Protocol):
    """A response of Flask or Quart."""

    status_code: int
    headers: Headers


class ResponseLifecycle(SessionLifecycle):
    """The session of one request; the base class for both frameworks.

    Attributes:
        load_error: loading the session raised it; it is raised again where the framework handles
            errors.
        refusal: why the request must be refused, because of its origin; None if it may pass.
        responded: the session was committed, and its headers are on the response.
        settled: what is kept of a failed request was committed; after that, only what the handler
            of its error does is (``commit_after_error``).
        store_failed: an error page of the application means that the store failed.
    """

    __slots__ = ("load_error", "refusal", "responded", "settled", "store_failed")

    def __init__(self, web: WebInstallation) -> None:
        super().__init__(web)
        self.load_error: StoreError | None = None
        self.refusal: Refusal | None = None
        self.responded: bool = False
        self.settled: bool = False
        self.store_failed: bool = False

    def commit_for(
        self, response: HasHeaders, headers: RawHeaders, *, complete: bool
    ) -> RawHeaders | ResponseHeaders:
        """Commit the session before a response.

        Args:
            response: with the final status.
            headers: those of the response that decide on caching.
            complete: see ``respond``.

        Returns:
            The headers in their place, or a coroutine that returns them.
        """
        status = response.status_code
        if status >= _SERVER_ERROR and (self.store_failed or self.unavailable):
            add_retry_headers(response)
            headers[:] = caching_headers(response)
            if not self.has_kept_changes():
                self.mark_failed()
                self.settled = True  # a store that has just failed is not called again
        if self.settled:
            failed = self.store_failed or self.unavailable
            waiting = self.commit_after_error(store_failed=failed)
            if waiting is not None:
                return self._respond_settled(response, headers, waiting)  # type: ignore[return-value] # a CoroutineType, as of each `async def`
            if not failed and self.destroys_session():
                _make_unavailable(response, headers)  # `fail` could not end the session
            return self.error_headers(headers)
        return self.respond(status, headers, complete)

    async def _respond_settled(
        self, response: HasHeaders, headers: RawHeaders, waiting: Coroutine[Any, Any, bool]
    ) -> RawHeaders:
        """Return the headers of a response whose error handler ended or rotated the session."""
        if not await waiting:
            _make_unavailable(response, headers)
        return self.error_headers(headers)

    def settlement(self, error: BaseException) -> Coroutine[Any, Any, None] | None:
        """Commit what is kept of a request that raised, once.

        Returns:
            A coroutine to wait for, or None. It must be shielded if the request was cancelled.
        """
        if self.settled or self.responded:
            return None
        self.settled = True
        if isinstance(error, StoreError) and not self.has_kept_changes():
            self.mark_failed()  # as in `commit_for`
            return None
        return self.fail(cancelled=not isinstance(error, Exception))


def _make_unavailable(response: HasHeaders, headers: RawHeaders) -> None:
    """Make a response to an error 503, because the session that it may have ended is alive."""
    response.status_code = _UNAVAILABLE
    add_retry_headers(response)
    headers[:] = caching_headers(response)


def caching_headers(response: HasHeaders) -> RawHeaders:
    """Return the headers that decide on caching, the only ones that a session changes."""
    return [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in response.headers
        if name[-7:].lower() in _NAME_ENDINGS and _is_caching(name)
    ]


def replace_caching_headers(response: HasHeaders, present: RawHeaders, sent: RawHeaders) -> None:
    """Put the headers of a session on a response, in place of those for caching.

    Args:
        response: to be sent.
        present: its ``caching_headers``.
        sent: what the session made of them.
    """
    headers = response.headers
    for name, _ in present:
        headers.remove(name.decode("latin-1"))
    for header in sent:
        headers.add(*_COMMON_HEADERS.get(header) or _as_text(header))


def _as_text(header: tuple[bytes, bytes]) -> tuple[str, str]:
    name, value = header
    return name.decode("latin-1").title(), value.decode("latin-1")


#: The headers of most responses: decoding them costs more than adding them.
_COMMON_HEADERS: Final[dict[tuple[bytes, bytes], tuple[str, str]]] = {
    header: _as_text(header) for header in (VARY_COOKIE, PRIVATE, PRIVATE_NO_STORE)
}


def add_retry_headers(response: HasHeaders) -> None:
    """Make an error response of the application one that says when to try again.

    Its 500 becomes 503; a Retry-After of the application is kept.
    """
    if response.status_code == _SERVER_ERROR:
        response.status_code = _UNAVAILABLE
    own = response.headers.get("Retry-After")
    for name, value in RETRY_HEADERS:
        response.headers[name.decode().title()] = value.decode()
    if own is not None:
        response.headers["Retry-After"] = own


def _is_caching(name: str) -> bool:
    lowered = name.lower()
    return lowered in _CACHING or lowered.endswith(_TARGETED)
