"""A million sessions in each store: the time of a page, and how long a command blocks a server."""

import asyncio
import contextlib
import subprocess
import sys
import time

import pytest

from sojourn import Sessions
from tests.integration.valkey import Valkey, running
from tests.integration.valkey_groups import ValkeyCluster
from tests.support.million_sessions import MILLION, fill
from tests.support.postgresql_fixtures import shared_postgresql
from tests.support.slow_commands import without_slow_command

__all__ = ["shared_postgresql"]

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"

#: Seconds.
FIRST_PAGE = 0.1

#: Sessions of the user "user-0".
OF_ONE_USER = 100_000

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Filled:
    """A store with a million sessions; the first 1,000 have expired.

    Attributes:
        url: of the store.
        ports: of the Valkey servers.
    """

    def __init__(self, url, ports=()):
        self.url = url
        self.ports = ports
        fill(url, MILLION, ended=1_000)
        fill(url, 2 * OF_ONE_USER, users=1, realm="one-user", seed=1)


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "valkey", "cluster"])
def filled(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("million")
    with contextlib.ExitStack() as stack:
        if request.param == "sqlite":
            yield Filled(f"sqlite:///{folder}/sessions.db")
        elif request.param == "postgresql":
            server = request.getfixturevalue("shared_postgresql")
            server.reset()
            yield Filled(server.url)
            server.reset()
        elif request.param == "valkey":
            server = stack.enter_context(running(Valkey(folder)))
            yield Filled(server.url, [server.port])
        else:
            cluster = stack.enter_context(running(ValkeyCluster(folder, steady=True)))
            yield Filled(cluster.url, [node.port for node in cluster.nodes])


@contextlib.contextmanager
def opened(url, realm="default"):
    sessions = Sessions(store=url, secret=SECRET, realm=realm)
    try:
        yield sessions
    finally:
        sessions.close()


async def seconds_of(call, repetitions=9):
    """Return the minimum duration of several calls, because other processes delay some."""
    durations = []
    for _ in range(repetitions):
        started = time.perf_counter()
        await call()
        durations.append(time.perf_counter() - started)
    return min(durations)


def test_pages_take_the_same_time_at_every_position(filled):
    """The first page, and pages behind 100,000 sessions, with filters and without."""

    async def work():
        with opened(filled.url) as sessions:
            started = time.perf_counter()
            page = await sessions.alist_page()
            first_call = time.perf_counter() - started
            assert len(page.sessions) == 50
            first = await seconds_of(sessions.alist_page)
            found = 0
            while found < 100_000:
                page = await sessions.alist_page(page.cursor, 1000)
                found += len(page.sessions)
            deep = await seconds_of(lambda: sessions.alist_page(page.cursor))
            labels = {"tenant": "tenant-7"}

            def filter_by_label():
                return sessions.alist_page(page.cursor, labels=labels)

            filtered = await seconds_of(filter_by_label)
            for work in (
                sessions.alist_page,
                filter_by_label,
                lambda: sessions.alist_page(page.cursor, 1000),
            ):
                await without_slow_command(filled.ports, work)
        return first_call, first, deep, filtered

    first_call, first, deep, filtered = asyncio.run(work())
    sys.stdout.write(
        f"{filled.url[:14]} first call {first_call * 1e3:.1f} ms, first page {first * 1e3:.1f} ms, "
        f"deep {deep * 1e3:.1f} ms, filtered {filtered * 1e3:.1f} ms\n"
    )
    assert first < FIRST_PAGE
    assert deep < 3 * first + 0.01
    assert filtered < FIRST_PAGE


def test_command_prints_the_first_page(filled):
    """Its duration, the start of Python included, is printed for the benchmark."""
    code = (
        "import sys, sojourn\n"
        "sessions = sojourn.Sessions(store=sys.argv[1], secret=sys.argv[2])\n"
        "print(len(sessions.list_page().sessions))\n"
        "sessions.close()\n"
    )
    durations = []
    for _ in range(3):
        started = time.perf_counter()
        command = [sys.executable, "-c", code, filled.url, SECRET]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        durations.append(time.perf_counter() - started)
        assert done.stdout.strip() == "50"
    sys.stdout.write(f"{filled.url[:14]} process {min(durations) * 1e3:.0f} ms\n")


def test_every_session_is_listed_once(filled):
    """Expired sessions are not listed."""

    async def work():
        found, cursor, is_last = set(), "", False
        duplicates = 0
        with opened(filled.url) as sessions:
            while not is_last:
                page = await sessions.alist_page(cursor, 1000)
                ids = {info.id for info in page.sessions}
                duplicates += len(found & ids)
                found |= ids
                cursor, is_last = page.cursor, not page.cursor
        return found, duplicates

    found, duplicates = asyncio.run(work())
    assert len(found) == MILLION - 1_000
    assert duplicates == 0 or filled.ports


def test_count_takes_at_most_a_second(filled):
    async def work():
        with opened(filled.url) as sessions:
            await sessions.aping()
            seconds = await seconds_of(sessions.acount, 3)
            return await without_slow_command(filled.ports, sessions.acount), seconds

    found, seconds = asyncio.run(work())
    sys.stdout.write(f"{filled.url[:14]} count {found:,} in {seconds * 1e3:.0f} ms\n")
    expected = MILLION - 1_000
    if found.is_exact:
        assert found == expected
    assert abs(found - expected) < 0.1 * expected
    assert found.is_exact is not bool(filled.ports)
    assert seconds < 1


def test_sessions_of_a_user_with_very_many_are_listed_in_pages(filled):
    async def work():
        with opened(filled.url, "one-user") as sessions:
            started = time.perf_counter()
            first = await without_slow_command(
                filled.ports, lambda: sessions.alist_page(user="user-0", limit=1000)
            )
            seconds = time.perf_counter() - started
            second = await sessions.alist_page(first.cursor, 1000, user="user-0")
        return first, second, seconds

    first, second, seconds = asyncio.run(work())
    sys.stdout.write(f"{filled.url[:14]} user of 100,000: {seconds * 1e3:.0f} ms\n")
    assert first.examined == OF_ONE_USER
    ids = [info.id for info in first.sessions + second.sessions]
    assert len(ids) == len(set(ids)) == 2_000


def test_purge_keeps_valid_sessions(filled):
    """The last test, because it deletes expired sessions. Valkey deletes them itself, later."""

    async def work():
        with opened(filled.url) as sessions:
            started = time.perf_counter()
            removed = await sessions.apurge()
            return removed, time.perf_counter() - started, await sessions.acount()

    removed, seconds, count = asyncio.run(work())
    sys.stdout.write(f"{filled.url[:14]} purge {removed} in {seconds:.1f} s\n")
    assert removed == (0 if filled.ports else 1_000)
    assert abs(count - (MILLION - 1_000)) < 0.1 * MILLION
