"""pytest plugin that runs the collected tests once for each mutant, in a fork of the session.

mutmut generates the mutants and records which function each test calls. Its own runner starts
pytest and collects the tests for each mutant, which takes ten times as long as the tests.
"""

import gc
import json
import os
import resource
import shutil
import signal
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

#: Exit codes as mutmut records them.
KILLED, UNTESTED, TIMED_OUT = 1, 33, 36

#: Seconds for the tests of one mutant in sum; the later ones are left out.
_MUTANT_SECONDS = 10

#: Seconds for each of them, without the time that it waits for a processor.
_TEST_TIMEOUT = 5

#: Tests that take longer without a mutant are left out.
_SLOW_TEST = 2.5
_TIMEOUT_WITHOUT_MUTANT = 60

_MEMORY_LIMIT = 8 << 30

#: The file for what a child returns.
_RESULT = "result.json"

settings.register_profile(
    "mutation",
    deadline=None,
    derandomize=True,  # a mutant must not survive or die by chance
    database=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)

#: For each test its duration in seconds and the functions it calls, as mutmut names them.
Calls = dict[str, tuple[float, list[str]]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that tools/mutation.py sets."""
    parser.addoption("--mutants", help="file with the names of mutants, one a line")
    parser.addoption("--jobs", type=int, default=1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Run the tests without a mutant, then those that call a mutated function for each mutant."""
    from mutmut.configuration import config

    config()  # reads pyproject.toml of the working directory, which tests change
    names = Path(session.config.getoption("mutants")).read_text("utf-8").split()
    gc.collect()
    gc.freeze()  # children then copy fewer pages
    print(f"running {len(session.items)} tests without a mutant", flush=True)
    pid, folder = _fork(session, _record_calls)
    _, status = os.waitpid(pid, 0)
    calls = _result(folder)
    if calls is None:
        pytest.exit(f"the tests without a mutant ended with status {status}", KILLED)
    for test in {item.nodeid for item in session.items} - set(calls):
        print(f"left out, because it fails without a mutant: {test}", flush=True)
    Run(session, calls).run(names)
    return True


class Run:
    """The mutants of one session, each in a child process."""

    def __init__(self, session: pytest.Session, calls: Calls) -> None:
        self._session = session
        self._calls = calls
        self._jobs: int = session.config.getoption("jobs")
        self._running: dict[int, tuple[str, Path]] = {}  # name and folder, by process ID
        self._kills: Counter[tuple[str, str]] = Counter()  # by function and test
        self._tests: defaultdict[str, list[str]] = defaultdict(list)
        for test, (duration, functions) in calls.items():
            if duration <= _SLOW_TEST:
                for function in functions:
                    self._tests[function].append(test)

    def run(self, names: Sequence[str]) -> None:
        """Run the tests of each mutant and record the exit codes."""
        for count, name in enumerate(names):
            while len(self._running) >= self._jobs:
                self._wait()
            if tests := self._select(name):
                pid, folder = _fork(self._session, _first_failure, name, tests)
                self._running[pid] = name, folder
            else:
                _save(name, UNTESTED)
            if count % 50 == 0:
                print(f"{count}/{len(names)}  {name}", flush=True)
        while self._running:
            self._wait()

    def _select(self, name: str) -> list[str]:
        """Return the tests of a mutant: earlier killers, its module's own tests, fast ones."""
        function = name.partition("__mutmut_")[0]
        module = function.rpartition(".")[0].rpartition(".")[2]
        ranked = sorted(
            self._tests[function],
            key=lambda test: (
                -self._kills[function, test],
                f"/test_{module}.py" not in test,
                self._calls[test][0],
            ),
        )
        seconds = accumulate(self._calls[test][0] for test in ranked)
        within = sum(total <= _MUTANT_SECONDS for total in seconds)
        return ranked[: max(within, 1)]

    def _wait(self) -> None:
        """Wait until the tests of a mutant end, and record the exit code."""
        pid, status = os.wait()
        name, folder = self._running.pop(pid)
        killer = _result(folder)
        if killer:
            self._kills[name.partition("__mutmut_")[0], killer] += 1
        _save(name, KILLED if killer else os.waitstatus_to_exitcode(status))


def _fork(
    session: pytest.Session, function: Callable[..., Any], *arguments: Any
) -> tuple[int, Path]:
    """Call a function in a child process; return its ID and a folder for the result."""
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    if pid := os.fork():
        return pid, folder
    code = KILLED
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        # pytest counts up the names in this folder: thousands of children slow that down.
        session.config._tmp_path_factory._basetemp = folder  # noqa: SLF001 - no public setter
        (folder / _RESULT).write_text(json.dumps(function(session, *arguments)), "utf-8")
        code = 0
    finally:
        os._exit(code)


def _result(folder: Path) -> Any:
    """Return what a child's function returned, None if it did not return; remove the folder."""
    file = folder / _RESULT
    text = file.read_text("utf-8") if file.exists() else "null"
    shutil.rmtree(folder, ignore_errors=True)
    return json.loads(text)


def _record_calls(session: pytest.Session) -> Calls:
    """Return what each test calls that passes without a mutant."""
    from mutmut.mutation.trampoline import set_mutant_under_test
    from mutmut.state import state

    set_mutant_under_test("stats")
    calls: Calls = {}
    for item in session.items:
        state()._stats.clear()  # noqa: SLF001 - mutmut has no other access to it
        started = _clock()
        if _passes(item, None, _TIMEOUT_WITHOUT_MUTANT):
            seconds = _clock() - started
            calls[item.nodeid] = seconds, list(state()._stats)  # noqa: SLF001 - mutmut has no other access to it
    return calls


def _first_failure(session: pytest.Session, mutant: str, tests: Sequence[str]) -> str | None:
    """Return the first test that fails with a mutant, None if all pass."""
    from mutmut.mutation.trampoline import set_mutant_under_test

    set_mutant_under_test(mutant)
    found = {item.nodeid: item for item in session.items}
    items = [found[test] for test in tests]
    for item, following in zip(items, [*items[1:], None], strict=True):
        if not _passes(item, following, _TEST_TIMEOUT):
            return item.nodeid
    return None


def _passes(item: pytest.Item, following: pytest.Item | None, seconds: float) -> bool:
    """Run a test; repeat it if it fails: it may exceed a time limit of its own on a busy machine.

    Ends the process with TIMED_OUT if the test takes too long.
    """
    for _ in range(2):
        failed = item.session.testsfailed
        end = _clock() + seconds
        signal.signal(signal.SIGALRM, lambda *_, end=end: _clock() < end or os._exit(TIMED_OUT))
        signal.setitimer(signal.ITIMER_REAL, 1, 1)
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if item.session.testsfailed == failed:
            return True
    return False


def _clock() -> float:
    """Return a time in seconds that stops while this process waits for a processor."""
    waited = Path("/proc/self/schedstat").read_text("ascii").split()[1]
    return time.monotonic() - int(waited) / 1e9


def _save(name: str, code: int | None) -> None:
    """Record the exit code of a mutant in the file that mutmut reads."""
    module = name.partition("__mutmut_")[0].rpartition(".")[0]
    path = Path("src", *module.split(".")).with_suffix(".py.meta")
    data = json.loads(path.read_text("utf-8"))
    data["exit_code_by_key"][name] = code
    written = path.with_suffix(".new")
    written.write_text(json.dumps(data, indent=4), "utf-8")
    written.replace(path)  # an interrupted run continues
