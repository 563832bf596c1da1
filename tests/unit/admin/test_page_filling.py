"""Pages of a search that reads a bounded number of records for each call."""

import pytest

from sojourn.admin import page_filling
from sojourn.admin.page_filling import fill_page
from sojourn.sessions import SessionPage
from tests.support.admin_client import Site


def numbers(found, last=1_000):
    """Return a list of numbers of which some are found; each call examines 10 of them."""
    calls = []

    async def read(cursor, limit):
        start = int(cursor or 0)
        calls.append((start, limit))
        sessions = [number for number in range(start, start + 10) if number in found][:limit]
        end = sessions[-1] + 1 if len(sessions) == limit else start + 10
        return SessionPage(tuple(sessions), str(end) if end < last else "", end - start, 1)

    return read, calls


@pytest.mark.anyio
async def test_a_page_is_filled_by_several_calls():
    found = {3, 55, 56, 57, 300}
    read, calls = numbers(found)
    page = await fill_page(read, "", 3)
    assert page == SessionPage((3, 55, 56), "57", 57, 6)
    assert calls[:2] == [(0, 3), (10, 2)]
    page = await fill_page(read, page.cursor, 3)
    assert (page.sessions, page.cursor) == ((57, 300), "")


@pytest.mark.anyio
async def test_a_search_stops_at_its_timeout(monkeypatch):
    """A page with few matches does not hold a worker."""
    monkeypatch.setattr(page_filling, "SEARCH_TIMEOUT", 0)
    read, calls = numbers({999})
    page = await fill_page(read, "", 3)
    assert (page.sessions, page.cursor, len(calls)) == ((), "10", 1)


def test_a_page_without_results_yet_reports_it(monkeypatch):
    monkeypatch.setattr(page_filling, "SEARCH_TIMEOUT", 0)
    site = Site(page_size=5)
    root = site.client("root")

    async def alist_page(cursor, limit, **_):
        return SessionPage((), "more", examined, 0)

    site.sessions.alist_page = alist_page
    examined = 2_000
    text = root.get("/admin/?label=tenant%3Dother").text
    assert "No live session was found yet: 2,000 were examined." in text
    assert "Next page" in text
    examined = 0
    text = root.get("/admin/").text
    assert "No live session was found yet. The next page continues the search." in text
