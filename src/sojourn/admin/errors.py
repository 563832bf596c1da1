"""Errors of a page: one that is shown to its visitor, and a client that disconnected."""

from __future__ import annotations

from http import HTTPStatus


class PageError(Exception):
    """An error with the text of its page.

    Args:
        status: 4xx or 5xx.
        title: the heading of the page, without a full stop.
        detail: sentences that say what to do.
        headers: further headers of the response.

    Attributes:
        status: as given.
        title: as given.
        detail: as given.
        headers: as given.
    """

    def __init__(
        self,
        status: HTTPStatus,
        title: str,
        detail: str,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(title)
        self.status: HTTPStatus = status
        self.title: str = title
        self.detail: str = detail
        self.headers: tuple[tuple[str, str], ...] = headers


class ClientDisconnected(Exception):
    """The client disconnected before it sent the whole body; no response is possible."""
