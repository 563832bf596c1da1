"""Runs the canaries of tests/canaries: plants each fault and checks that tests of its law fail.

Run it with ``python -m tools.canaries [--jobs N] [name, law or row ...]``. A canary is
* seen: for each law and row that it breaks, a citing test failed by an assertion;
* missed: no citing test failed;
* broken: its target does not exist, no test is selected, or tests failed for another reason.

The failing tests are run once more without any fault and must pass. Exits with 1 unless all
canaries are seen.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.canaries.plugin import CANARY, REPORT
from tests.canaries.registry import Canary, MissingTarget, canaries, resolve
from tools import citations

ROOT = citations.ROOT

#: Held while the module of a target is imported: threads that import the modules of one package at
#: the same time may see them half initialized.
_importing = threading.Lock()

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

    canary: Canary
    result: str
    reason: str = ""
    tests: frozenset[str] = frozenset()


def main(arguments: Sequence[str]) -> int:
    """Run the chosen canaries; return the exit code."""
    parser = argparse.ArgumentParser(description="Plant faults and see the tests of each law fail.")
    parser.add_argument("names", nargs="*", help="canaries, laws or security rows; default: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="canaries at a time")
    options = parser.parse_args(arguments)
    chosen = [
        canary
        for canary in canaries().values()
        if not options.names or {canary.name, *canary.breaks} & set(options.names)
    ]
    start = time.monotonic()
    docstrings = dict(citations.collected())
    with ThreadPoolExecutor(options.jobs) as pool:
        verdicts = list(pool.map(lambda canary: _run_and_print(canary, docstrings), chosen))
    unsound = failing_without_fault(verdicts, options.jobs)
    for index, verdict in enumerate(verdicts):
        if verdict.tests & unsound:
            reason = f"fails without the fault: {', '.join(sorted(verdict.tests & unsound))}"
            verdicts[index] = verdict._replace(result="broken", reason=reason)
    seen = [verdict for verdict in verdicts if verdict.result == "seen"]
    print(f"{len(seen)} of {len(verdicts)} canaries were seen, in {time.monotonic() - start:.0f} s")
    for verdict in verdicts:
        if verdict.result != "seen":
            print(f"  {verdict.canary.name}: {verdict.result}: {verdict.reason}")
    return 0 if seen and len(seen) == len(verdicts) else 1


def _run_and_print(canary: Canary, docstrings: dict[str, str]) -> Verdict:
    start = time.monotonic()
    verdict = run(canary, docstrings)
    seconds = time.monotonic() - start
    breaks = ", ".join(canary.breaks)
    print(f"{verdict.result:7}{seconds:5.0f} s  {breaks:24} {canary.name}", flush=True)
    return verdict


def run(canary: Canary, docstrings: dict[str, str]) -> Verdict:
    """Run the tests of one canary with its fault planted."""
    try:
        with _importing:
            for target in canary.targets:
                resolve(target)
    except MissingTarget as error:
        return Verdict(canary, "broken", str(error))
    tests = canary.select(docstrings)
    if not tests:
        return Verdict(canary, "broken", "no test cites what it breaks and matches its selection")
    code, lines = run_tests(tests, canary.name)
    seen = {name: test for kind, name, test in lines if kind == "seen"}
    unseen = [name for name in canary.breaks if name not in seen]
    if not unseen:
        return Verdict(canary, "seen", tests=frozenset(seen.values()))
    errors = [f"{error} in {test}" for kind, error, test in lines if kind == "error"]
    if errors or code not in (0, 1):
        reason = errors[0] if errors else f"pytest ended with {code}"
        return Verdict(canary, "broken", f"no assertion for {', '.join(unseen)}; {reason}")
    return Verdict(canary, "missed", f"no test that cites {', '.join(unseen)} failed")


def failing_without_fault(verdicts: Sequence[Verdict], jobs: int) -> set[str]:
    """Return the tests of seen canaries that fail without a fault, too."""
    tests = sorted({test for verdict in verdicts for test in verdict.tests})
    if not tests:
        return set()
    _, lines = run_tests(tests, "", "-n", str(jobs))
    return {test for _, _, test in lines}


def run_tests(
    tests: Sequence[str], name: str, *arguments: str
) -> tuple[int | None, list[tuple[str, str, str]]]:
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
        environment = {**os.environ, REPORT: report.name}
        environment.pop(CANARY, None)
        if name:
            environment[CANARY] = name
        try:
            answer = subprocess.run(  # noqa: S603 - runs this repository's tests
                command,
                cwd=ROOT,
                env=environment,
                capture_output=True,
                timeout=_CANARY_TIMEOUT if name else None,
                check=False,
            )
            code: int | None = answer.returncode
        except subprocess.TimeoutExpired:
            code = None
        lines = [line.split("\t") for line in Path(report.name).read_text("utf-8").splitlines()]
    return code, [(kind, text, test) for kind, text, test in lines]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
