"""Fills a page of a list whose filters examine a bounded number of records for each call."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeVar

from sojourn.sessions import EndedPage, SessionPage

Page = TypeVar("Page", SessionPage, EndedPage)

#: Seconds after which a page is shown as it is. A call takes about ten milliseconds, so that about
#: 50,000 records are examined.
SEARCH_TIMEOUT: Final = 0.3


async def fill_page(
    read: Callable[[str, int], Awaitable[Page]], cursor: str, page_size: int
) -> Page:
    """Return a page that is full, the last one, or all that was found in ``SEARCH_TIMEOUT``.

    Args:
        read: returns a part of the page, given a cursor and the most sessions to return.
        cursor: of the previous page; empty for the first one.
        page_size: the most sessions on the page.
    """
    deadline = time.monotonic() + SEARCH_TIMEOUT
    page: Page = await read(cursor, page_size)
    while page.cursor and len(page.sessions) < page_size and time.monotonic() < deadline:
        part: Page = await read(page.cursor, page_size - len(page.sessions))
        page = replace(
            part,
            sessions=(*page.sessions, *part.sessions),
            examined=page.examined + part.examined,
            unreadable=page.unreadable + part.unreadable,
        )
    return page
