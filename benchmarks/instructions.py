"""Instructions that a session adds to a request: `python -m benchmarks.instructions [--check]`.

Counts do not depend on what else the machine does, so they may fail a build where timings may
not. Each application runs alone under callgrind (hash seed 0). callgrind writes out and zeroes
its counters whenever the process calls `getppid`, which CPython never does by itself: the
counter between two such calls holds the requests between them and nothing of the start-up. The
same number of requests to the baseline is subtracted. Needs valgrind; without it this command
says so and, unless `--check` was given, succeeds.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import tables as report
from benchmarks.asgi_client import CLIENTS, Driver, kinds_of, lifespan, run, settle
from benchmarks.candidates.starlette import Candidate, choose

EACH = 20
"""Requests of each client in one counted stretch."""

REQUESTS = EACH * CLIENTS

GOALS = {"anonymous": 25_000, "read": 90_000, "write": 120_000}
"""The most that sojourn's memory store may add to a request."""

CHECKED = "sojourn-memory"

Counts = dict[str, dict[str, int]]
"""Candidate name, then kind of request, to instructions; of a baseline: all that it takes."""


async def counted_stretches(candidate: Candidate, folder: Path) -> None:
    """Serve requests of each kind between two calls of `getppid`; runs under callgrind."""
    app = candidate.build(folder)
    async with lifespan(app):
        driver = Driver(candidate, app)
        await driver.prepare()
        settle()
        os.getppid()
        for kind in kinds_of(candidate):
            await driver.requests(kind, 2)
            os.getppid()
            await driver.requests(kind, EACH)
            os.getppid()


def counted(candidate: Candidate, folder: Path) -> dict[str, Path]:
    """Run a candidate under callgrind; return callgrind's file for each kind of request.

    Raises:
        RuntimeError: the process under callgrind failed; the text is its error output.
    """
    command = [
        *("valgrind", "--tool=callgrind", "--dump-before=getppid"),
        *("--compress-strings=no", "--compress-pos=no", f"--callgrind-out-file={folder}/out"),
        *(sys.executable, "-m", "benchmarks.instructions", "--worker", candidate.name, str(folder)),
    ]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{candidate.name} failed under callgrind:\n{done.stderr}")
    dumps = sorted(folder.glob("out.*"), key=lambda path: int(path.suffix[1:]))
    kinds = kinds_of(candidate)
    if len(dumps) < 1 + 2 * len(kinds):
        raise RuntimeError(f"{candidate.name}: {len(dumps)} counters; is getppid seen?")
    # The first is the start-up; then for each kind its warm-up and its counted stretch.
    return dict(zip(kinds, dumps[2::2], strict=False))


def count(candidate: Candidate) -> dict[str, float]:
    """Return the instructions of one request of each kind, everything the process ran."""
    with tempfile.TemporaryDirectory() as folder:
        files = counted(candidate, Path(folder))
        return {kind: _total(path) / REQUESTS for kind, path in files.items()}


def _total(dump: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"no total in {dump.name}")
    return int(found[1])


def measure(candidates: tuple[Candidate, ...]) -> Counts:
    """Count every candidate, as many at once as there are cores, and subtract the baselines."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        absolute = dict(zip((c.name for c in candidates), pool.map(count, candidates), strict=True))
    counts: Counts = {}
    for candidate in candidates:
        base = absolute.get(candidate.baseline or "", {})
        own = absolute[candidate.name]
        counts[candidate.name] = {kind: round(own[kind] - base.get(kind, 0)) for kind in own}
    return counts


def above_goals(counts: Counts) -> list[str]:
    """Return a sentence for each goal that the checked candidate misses."""
    return [
        f"{CHECKED} {kind}: {counts[CHECKED][kind]:,} instructions over bare, goal {goal:,}"
        for kind, goal in GOALS.items()
        if counts[CHECKED][kind] > goal
    ]


def main() -> int:
    """Count, print a table; with `--check` return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="candidates, comma-separated (default: all)")
    parser.add_argument("--check", action="store_true", help=f"fail if {CHECKED} misses a goal")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--worker", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        name, folder = arguments.worker
        (candidate,) = (c for c in choose(name) if c.name == name)
        run(counted_stretches(candidate, Path(folder)))
        return 0
    if shutil.which("valgrind") is None:
        print("INSTRUCTIONS NOT COUNTED: valgrind is not installed", file=sys.stderr)
        return 1 if arguments.check else 0
    candidates = choose(CHECKED if arguments.check else arguments.only)
    counts = measure(candidates)
    report.keep(arguments.json, counts)
    print(report.instructions_table(candidates, counts))
    if not arguments.check:
        return 0
    misses = above_goals(counts)
    for miss in misses:
        print(miss, file=sys.stderr)
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
