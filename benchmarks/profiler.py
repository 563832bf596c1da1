"""Profile of one kind of request: `python -m benchmarks.profiler sojourn-memory write`.

Two tables. By Python function, from cProfile: calls and microseconds of one request; the profiler
inflates the cost of calls, so the order is reliable and the figures are not. By C function, from
callgrind: instructions of one request over the baseline's; exact, but without the Python caller.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks import tables
from benchmarks.asgi_client import CLIENTS, KINDS, ASGIClients, freeze_heap, lifespan, run
from benchmarks.candidates import IN_PROCESS, Candidate, select
from benchmarks.instructions import REQUESTS, run_callgrind

REPEATS = 500
ROWS = 40


async def run_cprofile(candidate: Candidate, kind: str, directory: Path) -> cProfile.Profile:
    """Serve requests of one kind under cProfile."""
    app = candidate.build(directory)
    async with lifespan(app):
        clients = ASGIClients(candidate, app)
        await clients.prepare((kind,))
        freeze_heap()
        profile = cProfile.Profile()
        profile.enable()
        await clients.send_requests(kind, REPEATS)
        profile.disable()
        return profile


def python_functions_table(profile: cProfile.Profile) -> str:
    """Return the table of Python functions for one request, most expensive first."""
    requests = REPEATS * CLIENTS
    stats = pstats.Stats(profile)
    rows = []
    entries = sorted(stats.stats.items(), key=lambda item: -item[1][2])  # type: ignore[attr-defined] # in no stub
    for (file, line, name), (_, calls, own, cumulative, _) in entries[:ROWS]:
        place = "/".join(Path(file).parts[-3:]) + f":{line} " if line else ""
        rows.append(
            [
                f"{place}{name}",
                f"{calls / requests:.2f}",
                f"{own * 1e6 / requests:.2f}",
                f"{cumulative * 1e6 / requests:.2f}",
            ]
        )
    return tables.table(["Python function", "calls", "own µs", "cumulative µs"], rows)


def c_functions_table(candidate: Candidate, baseline: Candidate | None, kind: str) -> str:
    """Return the table of C functions for one request over the baseline, most expensive first."""
    cost = _own_costs(candidate, kind)
    if baseline is not None:
        cost.subtract(_own_costs(baseline, kind))
    rows = [[name, f"{value / REQUESTS:,.0f}"] for name, value in cost.most_common(ROWS)]
    total = f"{cost.total() / REQUESTS:,.0f}"
    return tables.table(["C function", "instructions"], [["total", total], *rows])


def _own_costs(candidate: Candidate, kind: str) -> Counter[str]:
    cost: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as directory:
        function, is_call = "", False
        dump = run_callgrind(candidate, [kind], Path(directory))[kind]
        for line in dump.read_text().splitlines():
            if line.startswith("fn="):
                function = line[3:].partition("'")[0]  # recursion levels count as one
            elif line.startswith("calls="):
                is_call = True  # the next line is the cost of the callee, listed under its own name
            elif line[:1].isdigit():
                if not is_call:
                    cost[function] += int(line.split()[1])
                is_call = False
    return cost


def main() -> None:
    """Print both tables for one kind of request to one candidate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="the candidate")
    parser.add_argument("kind", choices=KINDS)
    arguments = parser.parse_args()
    selected = {c.name: c for c in select(arguments.name, IN_PROCESS)}
    candidate = selected[arguments.name]
    with tempfile.TemporaryDirectory() as directory:
        profile = run(run_cprofile(candidate, arguments.kind, Path(directory)))
    print(python_functions_table(profile))
    print()
    if shutil.which("valgrind") is None:
        print("C FUNCTIONS NOT COUNTED: valgrind is not installed", file=sys.stderr)
        return
    print(c_functions_table(candidate, selected.get(candidate.baseline or ""), arguments.kind))


if __name__ == "__main__":
    main()
