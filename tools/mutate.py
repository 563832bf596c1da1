"""Break the code on purpose, one fault at a time, and see the tests of what it protects fail.

Copies the work tree to a temporary folder for each job, applies one row of ``tools/mutations``,
runs its tests there, and puts the file back. A fault is noticed when, for each law and each row of
the security table that it says to break, a test fails that cites it; these tests are then run
without any fault, and must pass. The program ends with 1 if a fault survived, if a row's text is
not found, or if the tests fail by themselves.

    python tools/mutate.py                        all rows
    python tools/mutate.py A7 B-32 "ASVS 7.2.4"   the rows of these laws, flaws and requirements
    python tools/mutate.py --jobs 1 A7            one after the other; default: one job per CPU
"""

from __future__ import annotations

import argparse
import os
import queue
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # also when it is run as a file

from tools import witness  # noqa: E402 - after the path
from tools.mutations import TABLE, Mutation  # noqa: E402 - as above

COPIED = ("src", "tests", "tools", "docs", "examples", "pyproject.toml", "README.md")

#: Seconds for one row; a fault may well make a test hang.
PATIENCE = 240

#: What pytest answers when tests were run and some failed, and when it was stopped.
FAILED = (1, 2)


class Verdict(NamedTuple):
    """What became of one fault.

    Attributes:
        row: the fault.
        problem: why it does not count as noticed; empty if it does.
        witnesses: the tests that noticed.
    """

    row: Mutation
    problem: str
    witnesses: frozenset[str] = frozenset()


def main(arguments: Sequence[str]) -> int:
    """Run the rows that were asked for; return the exit code."""
    parser = argparse.ArgumentParser(description="Break the code on purpose, see tests fail.")
    parser.add_argument("names", nargs="*", help="laws, flaws, requirements; all if none is named")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="rows at a time")
    options = parser.parse_args(arguments)
    asked = set(options.names)
    rows = [row for row in TABLE if not asked or asked & set(row.names())]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(options.jobs):
            copies.put(copied(Path(folder) / str(number)))

        def judged(row: Mutation) -> Verdict:
            copy = copies.get()
            try:
                verdict = judge(row, copy)
            finally:
                copies.put(copy)
            said = verdict.problem or "noticed"
            print(f"{row.breaks:24} {row.file.removeprefix('src/sojourn/'):28} {said}", flush=True)
            return verdict

        with ThreadPoolExecutor(options.jobs) as pool:
            verdicts = list(pool.map(judged, rows))
        unsound = failing_anyway(verdicts, copies.get())
    bad = [verdict for verdict in verdicts if verdict.problem or verdict.witnesses & unsound]
    print(f"{len(rows) - len(bad)} of {len(rows)} faults were noticed,", end=" ")
    print(f"in {time.monotonic() - began:.0f} s")
    for row, problem, witnesses in bad:
        said = problem or f"fails without the fault: {', '.join(sorted(witnesses & unsound))}"
        print(f"  {row.breaks}: {row.file}: {row.text.strip().splitlines()[0]}: {said}")
    return 1 if bad or not rows else 0


def copied(copy: Path) -> Path:
    """Copy what tests need into a new folder and return it."""
    copy.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("*.pyc", "__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


def judge(row: Mutation, copy: Path) -> Verdict:
    """Apply a row, run its tests, take it back; tell whether they noticed."""
    path = copy / row.file
    original = path.read_text("utf-8")
    found = original.count(row.text)
    if found != 1:
        return Verdict(row, f"text found {found} times: bring the row up to date")
    noted = copy / "witnesses"
    noted.write_text("", "utf-8")
    path.write_text(original.replace(row.text, row.fault), "utf-8")
    code = run_tests(shlex.split(row.tests), copy, wanted=row.breaks, noted=noted)
    path.write_text(original, "utf-8")
    seen = dict(line.split("\t", 1) for line in noted.read_text("utf-8").splitlines())
    missing = [name for name in row.names() if name not in seen]
    if not missing:
        return Verdict(row, "", frozenset(seen.values()))
    if code == 0:
        return Verdict(row, "SURVIVED")
    if code not in FAILED:
        return Verdict(row, "SURVIVED: the tests hang" if code is None else f"pytest said {code}")
    return Verdict(row, f"SURVIVED: no test failed that cites {', '.join(missing)}")


def failing_anyway(verdicts: Sequence[Verdict], copy: Path) -> set[str]:
    """Return those of the tests that noticed a fault which fail without any."""
    tests = sorted({test for verdict in verdicts for test in verdict.witnesses})
    if not tests:
        return set()
    noted = copy / "witnesses"
    noted.write_text("", "utf-8")
    code = run_tests(tests, copy, wanted="", noted=noted, patience=None)
    failed = {line.split("\t", 1)[1] for line in noted.read_text("utf-8").splitlines()}
    return failed if code in (0, 1) else set(tests)


def run_tests(
    tests: Sequence[str], copy: Path, *, wanted: str, noted: Path, patience: int | None = PATIENCE
) -> int | None:
    """Return the exit code of tests in the copy; None if they hang."""
    command = [sys.executable, "-m", "pytest", "-qq", "--no-header", "--tb=no", "--timeout=20"]
    command += ["-p", "no:cacheprovider", "-p", "no:randomly", "-p", witness.__name__]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(copy / "src"), str(copy)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        witness.WANTED: wanted,
        witness.FOUND: str(noted),
    }
    try:
        return subprocess.run(  # noqa: S603 - our own tests
            [*command, *tests],
            cwd=copy,
            env=environment,
            capture_output=True,
            timeout=patience,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
