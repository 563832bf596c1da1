"""SessionContext: a visitor's session in a ``with`` block, outside of a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self
from urllib.parse import SplitResult, urlsplit

from sojourn.errors import StoreUnavailable
from sojourn.session import Session
from sojourn.web.installation import WebInstallation
from sojourn.web.lifecycle import PlannedCommit, SessionLifecycle, decode_headers, run

#: The status of a block that succeeds.
_OK: Final = 200

_ASYNC_FORM: Final = "`async with sessions.open(...)`"


class SessionContext:
    """The result of ``sessions.open``, for ``with`` and ``async with``; used once.

    Args:
        web: the web layer of the installation.
        cookies: see ``Sessions.open``.
        url: see ``Sessions.open``.
        labels: see ``Sessions.open``.
        headers: see ``Sessions.open``.
    """

    def __init__(
        self,
        web: WebInstallation,
        *,
        cookies: Mapping[str, str] | str | None,
        url: str,
        labels: Mapping[str, str] | None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"url expects an http or https URL with a host, found {url!r}")
        if cookies is not None and not isinstance(cookies, str):
            cookies = _cookie_header(cookies)
        self._lifecycle = _ContextLifecycle(web, parts, labels or {}, headers or {})
        self._parts = parts
        self._cookies = cookies
        self._headers: list[tuple[str, str]] | None = None

    @property
    def session(self) -> Session[Any]:
        """The session.

        Raises:
            RuntimeError: the block has not been entered.
        """
        session = self._lifecycle.session
        if session is None:
            raise RuntimeError("sessions.open(...) is used as `with` or `async with` block")
        return session

    def response_headers(self) -> list[tuple[str, str]]:
        """Return the headers for the visitor: the ticket, Vary and Cache-Control as needed.

        The ticket is in Set-Cookie or, with ``transport="header"``, in the response header.

        Raises:
            RuntimeError: the block has not ended.
        """
        if self._headers is None:
            raise RuntimeError(
                "response_headers() is known when the block has ended; call it after the block"
            )
        return self._headers

    async def __aenter__(self) -> Self:
        """Load the session.

        Raises:
            RuntimeError: the block was entered before.
        """
        host, cookies = self._request_headers()
        waiting = self._lifecycle.begin(self._parts.scheme, host, cookies)
        if waiting is not None:
            await waiting
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Commit the changes; drop them if the block raised."""
        lifecycle = self._lifecycle
        waiting = lifecycle.commit(_OK) if kind is None else lifecycle.fail()
        if waiting is not None:
            await waiting
        self._end()

    def __enter__(self) -> Self:
        """Load the session.

        Raises:
            RuntimeError: the block was entered before.
        """
        host, cookies = self._request_headers()
        lifecycle = self._lifecycle
        # Not `begin`: `run` would close its coroutine, and not the one that it waits for.
        loading = lifecycle.begin_load(self._parts.scheme, host, cookies)
        if loading is not None:
            try:
                lifecycle.loaded(run(loading, instead=_ASYNC_FORM))
            except StoreUnavailable as error:
                lifecycle.load_failed(error)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Commit the changes; drop them if the block raised."""
        lifecycle = self._lifecycle
        waiting = lifecycle.commit(_OK) if kind is None else lifecycle.fail()
        if waiting is not None:
            run(waiting, instead=_ASYNC_FORM)
        self._end()

    def _request_headers(self) -> tuple[bytes, bytes | None]:
        """Return the Host and the Cookie header.

        Raises:
            RuntimeError: the block was entered before.
        """
        if self._lifecycle.session is not None:
            raise RuntimeError(
                "sessions.open(...) serves one block; call it again for each further block"
            )
        host = self._parts.netloc.encode("latin-1", "replace")
        cookies = self._cookies
        return host, None if cookies is None else cookies.encode("latin-1", "replace")

    def _end(self) -> None:
        lifecycle = self._lifecycle
        headers = lifecycle.plan_response(_OK, [], complete=True)
        if isinstance(headers, PlannedCommit):  # a touch fell due meanwhile; it can wait
            headers = lifecycle.response_headers([], complete=True)
        self._headers = decode_headers(headers)
        lifecycle.end()


def _cookie_header(cookies: object) -> str:
    """Return cookies as a Cookie header.

    Raises:
        TypeError: they are no mapping from text to text. It does not show them: one is a ticket.
    """
    found = type(cookies).__qualname__
    if isinstance(cookies, Mapping):
        if all(isinstance(value, str) for value in cookies.values()):
            return "; ".join(f"{name}={value}" for name, value in cookies.items())
        found += " with values that are no texts"
    raise TypeError(
        f"cookies expects a Cookie header as text, or a dict from names to texts, found {found}"
    )


class _ContextLifecycle(SessionLifecycle):
    """The lifecycle of one block."""

    __slots__ = ("_headers", "_labels", "_parts")

    def __init__(
        self,
        web: WebInstallation,
        parts: SplitResult,
        labels: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(web)
        self._headers = {name.lower(): value for name, value in headers.items()}
        self._labels = dict(labels)
        self._parts = parts

    def labels(self) -> dict[str, str]:
        """Return the labels of the client."""
        return self._labels

    def header(self, name: str) -> str | None:
        """Return a header of the visitor's request."""
        return self._headers.get(name)

    def path(self) -> str:
        """Return the path of the URL."""
        return self._parts.path or "/"
