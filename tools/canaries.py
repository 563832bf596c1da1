"""Runs the canaries of tests/canaries: plants each fault and checks that tests of its law fail.

Run it with ``python -m tools.canaries [name, law or row ...]``. A canary is
* seen: for each law and row that it breaks, a citing test failed by an assertion;
* missed: no citing test failed;
* broken: no test is selected, or tests failed for another reason.

The failing tests are run once more without any fault and must pass. Exits with 1 unless all
canaries are seen.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from tests.canaries.plugin import CANARY, REPORT
from tests.canaries.registry import Canary, canaries, resolve
from tools import citations

#: How many canaries run at a time.
_JOBS = len(os.sched_getaffinity(0))

#: Seconds for one canary; a fault may make tests hang.
_CANARY_TIMEOUT = 240

#: Seconds for one test of a canary.
_TEST_TIMEOUT = 20


class Verdict(NamedTuple):
    """The result of one canary.

    Attributes:
        result: ``seen``, ``missed`` or ``broken``.
        reason: why it was not seen.
        tests: the node IDs of the tests that saw it.
    """

    result: str
    reason: str = ""
    tests: frozenset[str] = frozenset()


def main(names: Sequence[str]) -> int:
    """Run the canaries with these names, laws or rows, or all; return the exit code.

    Raises:
        MissingTarget: the target of one of them does not exist.
    """
    chosen = [
        canary
        for canary in canaries().values()
        if not names or {canary.name, *canary.breaks} & set(names)
    ]
    for canary in chosen:
        for target in canary.targets:
            resolve(target)
    docstrings = citations.collected()
    verdicts = {}
    with ThreadPoolExecutor(_JOBS) as pool:
        running = {pool.submit(run, canary, docstrings): canary for canary in chosen}
        for future in as_completed(running):
            canary, verdict = running[future], future.result()
            print(f"{verdict.result:7} {', '.join(canary.breaks):24} {canary.name}", flush=True)
            verdicts[canary.name] = verdict
    tests = sorted({test for verdict in verdicts.values() for test in verdict.tests})
    _, lines = run_tests(tests, "", "-n", str(_JOBS)) if tests else (0, [])
    unsound = {test for _, _, test in lines}
    seen = 0
    for name, verdict in verdicts.items():
        if verdict.tests & unsound:
            print(f"  {name}: fails without the fault: {', '.join(verdict.tests & unsound)}")
        elif verdict.result != "seen":
            print(f"  {name}: {verdict.result}: {verdict.reason}")
        else:
            seen += 1
    print(f"{seen} of {len(chosen)} canaries were seen")
    return 0 if chosen and seen == len(chosen) else 1


def run(canary: Canary, docstrings: Mapping[str, str]) -> Verdict:
    """Run the tests of one canary with its fault planted."""
    tests = canary.select(docstrings)
    if not tests:
        return Verdict("broken", "no test cites what it breaks and matches its selection")
    code, lines = run_tests(tests, canary.name)
    seen = {name: test for kind, name, test in lines if kind == "seen"}
    unseen = [name for name in canary.breaks if name not in seen]
    if not unseen:
        return Verdict("seen", tests=frozenset(seen.values()))
    errors = [f"{error} in {test}" for kind, error, test in lines if kind == "error"]
    if errors or code not in (0, 1):
        reason = errors[0] if errors else f"pytest ended with {code}"
        return Verdict("broken", f"no assertion for {', '.join(unseen)}; {reason}")
    return Verdict("missed", f"no test that cites {', '.join(unseen)} failed")


def run_tests(
    tests: Sequence[str], name: str, *arguments: str
) -> tuple[int | None, list[list[str]]]:
    """Run tests with the fault of a canary.

    Args:
        tests: node IDs.
        name: of the canary; empty for no fault.
        arguments: further ones for pytest.

    Returns:
        The exit code, None if the time limit was exceeded; the lines of the report.
    """
    command = [sys.executable, "-m", "pytest", "-qq", "--no-header", "--tb=no", "-p"]
    command += ["tests.canaries.plugin", "-p", "no:cacheprovider", "-p", "no:randomly"]
    command += [f"--timeout={_TEST_TIMEOUT}", *arguments, *tests]
    with tempfile.NamedTemporaryFile("r", suffix=".report", encoding="utf-8") as report:
        environment = {**os.environ, REPORT: report.name, CANARY: name}
        try:
            answer = subprocess.run(  # noqa: S603 - runs this repository's tests
                command,
                cwd=citations.ROOT,
                env=environment,
                capture_output=True,
                timeout=_CANARY_TIMEOUT if name else None,
                check=False,
            )
            code = answer.returncode
        except subprocess.TimeoutExpired:
            code = None
        lines = Path(report.name).read_text("utf-8").splitlines()
    return code, [line.split("\t") for line in lines]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
