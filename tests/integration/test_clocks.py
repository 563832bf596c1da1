"""Processes whose wall clocks differ by up to an hour, over a real Valkey server (law A22)."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.valkey import PATIENCE, Valkey, running

REPOSITORY = Path(__file__).parent.parent.parent
HOUR = 3_600_000

#: Milliseconds by which the clocks of two processes are ahead.
SKEWS = [(0, -3_000), (0, 60_000), (0, HOUR), (-HOUR, 0), (HOUR, -HOUR)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(Valkey(tmp_path_factory.mktemp("valkey"))) as server:
        yield server


class Process:
    """A process of ``clock_worker.py``; each method is one of its commands."""

    def __init__(self, popen):
        self._popen = popen

    def __getattr__(self, name):
        def command(*arguments):
            self._popen.stdin.write(json.dumps([name, *arguments]) + "\n")
            self._popen.stdin.flush()
            answer = self._popen.stdout.readline()
            assert answer, f"{name} failed"
            return json.loads(answer)

        return command


@contextmanager
def process(url, skew):
    popen = subprocess.Popen(
        [sys.executable, "-m", "tests.support.clock_worker", url, str(skew)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'src'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Process(popen)
    finally:
        popen.stdin.close()
        popen.stdout.close()
        try:
            popen.wait(PATIENCE)
        finally:
            popen.kill()


def log_in_soon(process, user):
    """Log in after a revocation.

    A process measures the server's time with an error of some milliseconds, more if it waits for
    the processor. A login within this time of a cutoff is refused.
    """
    end = time.monotonic() + 1
    while True:
        cookie = process.login(user)
        if (cookie is not None and process.who(cookie) == user) or time.monotonic() > end:
            return cookie
        time.sleep(0.005)


@pytest.mark.parametrize("skews", SKEWS)
def test_revocation_login_and_exclusive_work_across_clock_skew(server, skews):
    """A22, S16: the same results as with one clock."""
    with process(server.url, skews[0]) as ours, process(server.url, skews[1]) as theirs:
        cookies = [ours.login("ada"), theirs.login("ada")]
        ours.revoke_all()
        assert [ours.who(cookie) for cookie in cookies] == [None, None]
        for revoking, other in ((ours, theirs), (theirs, ours)):
            earlier = log_in_soon(other, "ada")
            assert revoking.who(earlier) == "ada"
            other.begin_login("ada")
            assert revoking.revoke_user("ada") == 1
            assert other.end_login() is None
            assert other.who(earlier) is None
            later = log_in_soon(other, "ada")
            assert revoking.who(later) == "ada"
            assert revoking.revoke_user("ada") == 1

        cookie = log_in_soon(ours, "bob")
        for first, second in ((ours, theirs), (theirs, ours)):
            assert first.enter(cookie, 1) == "inside"
            assert second.enter(cookie, 0.1) == "timeout"
            first.leave()
            assert second.enter(cookie, 1) == "inside"
            second.leave()
