"""pytest plugin that runs the collected tests once for each mutant, in a fork of the session.

mutmut generates the mutants and records which function each test calls. Its own runner starts
pytest and collects the tests for each mutant, which takes ten times as long as the tests.
"""

import gc
import json
import os
import pickle
import resource
import shutil
import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import HealthCheck, settings

#: Exit codes as mutmut records them.
SURVIVED, KILLED, UNTESTED, TIMED_OUT = 0, 1, 33, 36

#: Tests that take longer without a mutant are left out, and the later ones of a mutant's tests
#: when their sum exceeds `--mutant-seconds`.
_SLOW_TEST = 2.5
_TIMEOUT_WITHOUT_MUTANT = 60

#: A test that fails after waiting so long for a processor, in seconds, is repeated: it may have
#: exceeded a time limit of its own.
_STARVED = 0.5
_ATTEMPTS = 3

_MEMORY_LIMIT = 8 << 30

settings.register_profile(
    "mutation",
    deadline=None,
    derandomize=True,  # a mutant must not survive or die by chance
    database=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)

#: For each test its duration in seconds and the functions it calls, as mutmut names them.
Calls = dict[str, tuple[float, set[str]]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that tools/mutation.py sets."""
    parser.addoption("--mutants", help="file with the names of mutants, one a line")
    parser.addoption("--mutant-seconds", type=float, help="for the tests of one mutant")
    parser.addoption("--jobs", type=int, default=1)
    # Without the time that the test waits for a processor.
    parser.addoption("--test-timeout", type=float, help="seconds for each test")


def pytest_timeout_set_timer() -> bool:
    """Replace the timers of pytest-timeout; `_limit_time` sets ours."""
    return True


def pytest_timeout_cancel_timer() -> bool:
    """Leave our timer alone."""
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Run the tests without a mutant, then those that call a mutated function for each mutant."""
    from mutmut.configuration import config

    config()  # reads pyproject.toml of the working directory, which tests change
    names = Path(session.config.getoption("mutants")).read_text("utf-8").split()
    gc.collect()
    gc.freeze()  # children then copy fewer pages
    print(f"running {len(session.items)} tests without a mutant", flush=True)
    calls, failed = _fork(session, lambda pipe: _record_calls(session, pipe)).result()
    for test in failed:
        print(f"left out, because it fails without a mutant: {test}", flush=True)
    Run(session, calls).run(names)
    return True


class Run:
    """The mutants of one session, each in a child process."""

    def __init__(self, session: pytest.Session, calls: Calls) -> None:
        self._session = session
        self._calls = calls
        self._items = {item.nodeid: item for item in session.items}
        self._seconds: float = session.config.getoption("mutant_seconds")
        self._timeout: float = session.config.getoption("test_timeout")
        self._jobs: int = session.config.getoption("jobs")
        self._running: dict[int, tuple[str, Child]] = {}
        self._killers: defaultdict[str, list[str]] = defaultdict(list)
        self._tests: defaultdict[str, list[str]] = defaultdict(list)
        for test, (duration, functions) in calls.items():
            if duration <= _SLOW_TEST:
                for function in functions:
                    self._tests[function].append(test)

    def run(self, names: Sequence[str]) -> None:
        """Run the tests of each mutant and record the exit codes."""
        started = time.monotonic()
        for count, name in enumerate(names):
            while len(self._running) >= self._jobs:
                self._wait()
            tests = self._select(name)
            if not tests:
                _save(name, UNTESTED)
                continue
            child = _fork(self._session, lambda pipe, n=name, t=tests: self._child(n, t, pipe))
            self._running[child.pid] = name, child
            if count % 50 == 0:
                rate = count / (time.monotonic() - started)
                print(f"{count}/{len(names)}  {rate:.1f} mutants/s  {name}", flush=True)
        while self._running:
            self._wait()
        print(f"{len(names) / (time.monotonic() - started):.1f} mutants/s", flush=True)

    def _select(self, name: str) -> list[str]:
        """Return the tests of a mutant: earlier killers, its module's own tests, fast ones."""
        function = name.partition("__mutmut_")[0]
        module = function.rpartition(".")[0].rpartition(".")[2]
        killers = self._killers[function]
        ranked = sorted(
            self._tests[function],
            key=lambda test: (
                killers.index(test) if test in killers else len(killers),
                f"/test_{module}.py" not in test,
                self._calls[test][0],
            ),
        )
        selected, seconds = [], 0.0
        for test in ranked:
            seconds += self._calls[test][0]
            if selected and seconds > self._seconds:
                break
            selected.append(test)
        return selected

    def _child(self, name: str, tests: Sequence[str], pipe: BinaryIO) -> int:
        from mutmut.mutation.trampoline import set_mutant_under_test

        set_mutant_under_test(name)
        items = [self._items[test] for test in tests]
        for item, following in zip(items, [*items[1:], None], strict=True):
            if not _passes(item, following, self._timeout):
                pickle.dump(item.nodeid, pipe)
                return KILLED
        return SURVIVED

    def _wait(self) -> None:
        pid, status = os.wait()
        name, child = self._running.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        if code == KILLED and (killer := child.output()):
            killers = self._killers[name.partition("__mutmut_")[0]]
            if killer in killers:
                killers.remove(killer)
            killers.insert(0, killer)
        child.close()
        _save(name, TIMED_OUT if code == -signal.SIGXCPU else code)


class Child:
    """A child process and the pipe with its pickled output."""

    def __init__(self, pid: int, pipe: BinaryIO, folder: Path) -> None:
        self.pid = pid
        self._pipe = pipe
        self._folder = folder

    def output(self) -> Any:
        """Return the output, None if the child ended without one."""
        data = self._pipe.read()
        return pickle.loads(data) if data else None  # noqa: S301 - from our own child

    def result(self) -> Any:
        """Return the output of a child that must end with 0, and wait for it."""
        output = self.output()
        _, status = os.waitpid(self.pid, 0)
        self.close()
        if status:
            pytest.exit(f"the tests without a mutant ended with status {status}", KILLED)
        return output

    def close(self) -> None:
        """Close the pipe, remove the temporary files."""
        self._pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _fork(session: pytest.Session, work: Callable[[BinaryIO], int]) -> Child:
    """Start a child process that ends with the code that `work` returns."""
    reader, writer = os.pipe()
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    pid = os.fork()
    if pid:
        os.close(writer)
        return Child(pid, os.fdopen(reader, "rb"), folder)
    code = KILLED
    try:
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))
        if "MUTATION_DEBUG" not in os.environ:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
        # pytest counts up the names in this folder: thousands of children slow that down.
        session.config._tmp_path_factory._basetemp = folder  # noqa: SLF001 - no public setter
        with os.fdopen(writer, "wb") as pipe:
            code = work(pipe)
    finally:
        os._exit(code)


def _record_calls(session: pytest.Session, pipe: BinaryIO) -> int:
    """Write what each test calls; leave out the tests that fail without a mutant."""
    from mutmut.mutation.trampoline import set_mutant_under_test
    from mutmut.state import state

    set_mutant_under_test("stats")
    calls: Calls = {}
    failed = []
    for item in session.items:
        state()._stats.clear()  # noqa: SLF001 - mutmut has no other access to it
        started = time.process_time()
        wall = time.monotonic()
        waited = _processor_wait()
        if not _passes(item, None, _TIMEOUT_WITHOUT_MUTANT):
            failed.append(item.nodeid)
            continue
        waited = _processor_wait() - waited
        duration = max(time.process_time() - started, time.monotonic() - wall - waited)
        calls[item.nodeid] = duration, set(state()._stats)  # noqa: SLF001 - see above
    pickle.dump((calls, failed), pipe)
    return 0


def _passes(item: pytest.Item, following: pytest.Item | None, seconds: float) -> bool:
    """Run a test; repeat it if it failed while it waited for a processor."""
    for _ in range(_ATTEMPTS):
        waited = _processor_wait()
        failed = item.session.testsfailed
        _limit_time(seconds)
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if item.session.testsfailed == failed:
            return True
        if _processor_wait() - waited < _STARVED:
            return False
    return False


def _limit_time(seconds: float) -> None:
    """End the process with TIMED_OUT if a test takes too long."""
    started = time.monotonic() - _processor_wait()

    def check(_signal: int, _frame: object) -> None:
        if time.monotonic() - _processor_wait() - started > seconds:
            os._exit(TIMED_OUT)

    signal.signal(signal.SIGALRM, check)
    signal.setitimer(signal.ITIMER_REAL, 1, 1)


def _processor_wait() -> float:
    """Return how long the threads of this process waited for a processor, in seconds."""
    total = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        try:
            total += int(path.read_text("ascii").split()[1])
        except (OSError, IndexError):  # the thread ended, or the kernel has no statistics
            continue
    return total / 1e9


def _save(name: str, code: int) -> None:
    """Record the exit code of a mutant in the file that mutmut reads."""
    module = name.partition("__mutmut_")[0].rpartition(".")[0]
    path = Path("src", *module.split(".")).with_suffix(".py.meta")
    data = json.loads(path.read_text("utf-8"))
    data["exit_code_by_key"][name] = code
    written = path.with_suffix(".new")
    written.write_text(json.dumps(data, indent=4), "utf-8")
    written.replace(path)  # an interrupted run continues
