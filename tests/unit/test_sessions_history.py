"""``sessions.history``: pages of ended sessions."""

from datetime import UTC, datetime

import pytest

from sojourn import CallbackStore, Sessions
from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError
from sojourn.sessions import EndedPage, EndedSession
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock
from sojourn.testing.store_suite.history import make_entry

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"
LIFETIME = 86_400_000
AT = 1_700_000_000_000


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def sessions(store):
    made = Sessions(store=store, secret=SECRET, history="30 days", clock=FakeClock())
    yield made
    made.close()


def log_in(sessions, user):
    """Log a user in; return the public ID of the new session."""
    with sessions.open(labels={"browser": "Lynx"}) as visit:
        visit.session.login(user)
    return visit.session.id


def test_a_page_contains_the_ended_sessions_and_their_reasons(sessions):
    session_id = log_in(sessions, "ada")
    at = datetime.fromtimestamp(sessions.config.clock() / 1000, UTC)
    sessions.revoke(session_id, reason="stolen", actor="support")
    page = sessions.history()
    assert page == EndedPage(
        (EndedSession(session_id, "ada", page.sessions[0].labels, at, at, "stolen", "support"),),
        cursor="",
        examined=1,
        unreadable=0,
    )
    assert page.sessions[0].labels["browser"] == "Lynx"
    with pytest.raises(TypeError):
        page.sessions[0].labels["browser"] = "Mosaic"


def test_unknown_fields_are_none(sessions):
    sessions.revoke_all(reason="restart")
    [ended] = sessions.history().sessions
    assert (ended.id, ended.user, ended.created_at, ended.labels) == ("", None, None, {})


def test_pages_continue_at_the_cursor(sessions, store):
    entries = [make_entry(AT + number) for number in range(7)]
    run(store.add_history(entries, LIFETIME))
    found, cursor, sizes = [], "", []
    while not sizes or cursor:
        page = sessions.history(cursor, 3)
        found += page.sessions
        sizes.append(page.examined)
        cursor = page.cursor
    assert [ended.id for ended in found] == [entry.session_id.hex() for entry in entries[::-1]]
    assert sizes == [3, 3, 1]


def test_a_page_for_one_user_contains_only_that_users_sessions(sessions, store):
    """A page without any of them is not the last one while it has a cursor."""
    entries = [make_entry(AT + number, user=str(number % 4)) for number in range(8)]
    run(store.add_history(entries, LIFETIME))
    first = sessions.history("", 3, user=0)
    assert (first.sessions, first.examined) == ((), 3)
    second = sessions.history(first.cursor, 3, user=0)
    assert [ended.user for ended in second.sessions] == ["0"]
    assert len(sessions.history(limit=1_000, user=0).sessions) == 2


@pytest.mark.parametrize("limit", [0, -1, 1_001, True, 1.5, "5", None])
def test_a_limit_out_of_range_is_refused(sessions, limit):
    with pytest.raises(ValueError, match="limit expects 1 to 1000"):
        sessions.history("", limit)


@pytest.mark.parametrize("cursor", ["x", "1", "1-1-1", "new:"])
def test_an_invalid_cursor_is_refused(sessions, cursor):
    with pytest.raises(ValueError, match="cursor"):
        sessions.history(cursor)


@pytest.mark.parametrize("user", ["", b"ada", "a" * 256])
def test_a_user_that_is_not_text_is_refused(sessions, user):
    with pytest.raises(TypeError, match="expected a user"):
        sessions.history(user=user)


def test_an_unreadable_entry_is_counted(sessions, store):
    """S9."""
    run(store.add_history([make_entry(AT)], LIFETIME))
    [stored] = store._history
    store._history.append(stored._replace(number=2, data=b"\x02"))
    page = sessions.history()
    assert (len(page.sessions), page.examined, page.unreadable) == (1, 2, 1)


def test_a_store_without_a_history_is_refused():
    sessions = Sessions(store=CallbackStore(), secret=SECRET)
    with pytest.raises(ConfigurationError, match=r"has no history .* and the option history"):
        sessions.history()


def test_expired_entries_are_purged(sessions):
    """S8."""
    session_id = log_in(sessions, "ada")
    sessions.revoke(session_id)
    sessions.config.clock.advance("29 days")
    sessions.purge()
    assert len(sessions.history().sessions) == 1
    sessions.config.clock.advance("2 days")
    sessions.purge()
    assert sessions.history().sessions == ()
