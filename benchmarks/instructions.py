"""Instructions that a session adds to a request: `python -m benchmarks.instructions [--check]`.

Counts do not depend on the load of the machine, so they may fail a build where timings may not.
Each application runs alone under callgrind (hash seed 0). callgrind writes and resets its counters
at each call of `getppid`, which CPython itself never calls: the counter between two such calls
covers the requests between them, without the startup. The same number of requests to the baseline
is subtracted. Needs valgrind; without it this command says so
and, unless `--check` was given, succeeds.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import tables
from benchmarks.asgi_client import CLIENTS, ASGIClients, freeze_heap, kinds_of, lifespan, run
from benchmarks.candidates import IN_PROCESS, Candidate, find, select

REPEATS = 20
"""Requests of each client in one counted stretch."""

REQUESTS = REPEATS * CLIENTS

GOALS = {"anonymous": 22_000, "read": 58_000, "write": 91_000}
"""The most instructions that sojourn's memory store may add to a request."""

CHECKED = "sojourn-memory"

Counts = dict[str, dict[str, int]]
"""Candidate name, then kind of request, to instructions over the baseline; a baseline's in full."""


async def _serve_counted(candidate: Candidate, kinds: tuple[str, ...], directory: Path) -> None:
    """Serve requests of each kind between two calls of `getppid`; runs under callgrind."""
    app = candidate.build(directory)
    async with lifespan(app):
        clients = ASGIClients(candidate, app)
        await clients.prepare(kinds)
        freeze_heap()
        os.getppid()
        for kind in kinds:
            await clients.send_requests(kind, 2)
            os.getppid()
            await clients.send_requests(kind, REPEATS)
            os.getppid()


def run_callgrind(
    candidate: Candidate,
    kinds: Sequence[str],
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Path]:
    """Run a candidate under callgrind; return callgrind's file for each kind of request.

    Args:
        candidate: one of `IN_PROCESS`.
        kinds: of `asgi_client.KINDS`.
        directory: for callgrind's files and those of the application.
        environment: of the process; None for this process's own.

    Raises:
        RuntimeError: the process under callgrind failed; the text is its error output.
    """
    command = [
        *("valgrind", "--tool=callgrind", "--dump-before=getppid"),
        *("--compress-strings=no", "--compress-pos=no", f"--callgrind-out-file={directory}/out"),
        *(sys.executable, "-m", "benchmarks.instructions"),
        *("--worker", candidate.name, ",".join(kinds), str(directory)),
    ]
    done = subprocess.run(
        command,
        env={**(os.environ if environment is None else environment), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{candidate.name} failed under callgrind:\n{done.stderr}")
    dumps = sorted(directory.glob("out.*"), key=lambda path: int(path.suffix[1:]))
    if len(dumps) < 1 + 2 * len(kinds):
        raise RuntimeError(
            f"{candidate.name}: expected a dump at each getppid, found {len(dumps)} dumps"
        )
    # The first dump is the start-up; then each kind has its warm-up and its counted stretch.
    return dict(zip(kinds, dumps[2::2], strict=False))


def count(
    candidate: Candidate, kinds: Sequence[str], environment: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Return the instructions of one request of each kind, all threads together."""
    with tempfile.TemporaryDirectory() as directory:
        files = run_callgrind(candidate, kinds, Path(directory), environment)
        return {kind: _read_total(path) / REQUESTS for kind, path in files.items()}


def _read_total(dump: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"no total in {dump.name}")
    return int(found[1])


def measure(candidates: Sequence[Candidate]) -> Counts:
    """Count every candidate, as many at once as there are cores, and subtract the baselines."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        counted = pool.map(lambda candidate: count(candidate, kinds_of(candidate)), candidates)
        absolute = dict(zip((c.name for c in candidates), counted, strict=True))
    counts: Counts = {}
    for candidate in candidates:
        base = absolute.get(candidate.baseline or "", {})
        own = absolute[candidate.name]
        counts[candidate.name] = {kind: round(own[kind] - base.get(kind, 0)) for kind in own}
    return counts


def find_misses(counts: Counts) -> list[str]:
    """Return a sentence for each goal that the checked candidate misses."""
    return [
        f"{CHECKED} {kind}: {counts[CHECKED][kind]:,} instructions over bare, goal {goal:,}"
        for kind, goal in GOALS.items()
        if counts[CHECKED][kind] > goal
    ]


def main() -> int:
    """Count and print a table; with `--check` return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="candidates, comma-separated (default: all)")
    parser.add_argument("--check", action="store_true", help=f"fail if {CHECKED} misses a goal")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--worker", nargs=3, metavar=("NAME", "KINDS", "DIRECTORY"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.worker:
        name, kinds, directory = arguments.worker
        run(_serve_counted(find(name), tuple(kinds.split(",")), Path(directory)))
        return 0
    if shutil.which("valgrind") is None:
        print("INSTRUCTIONS NOT COUNTED: valgrind is not installed", file=sys.stderr)
        return 1 if arguments.check else 0
    candidates = select(CHECKED if arguments.check else arguments.only, IN_PROCESS)
    counts = measure(candidates)
    tables.write_json(arguments.json, counts)
    print(tables.instructions_table(candidates, counts))
    if not arguments.check:
        return 0
    misses = find_misses(counts)
    for miss in misses:
        print(miss, file=sys.stderr)
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
