"""Where a request spends itself: `python -m benchmarks.profiler sojourn-memory write`.

Two views. By Python function, from cProfile: calls and microseconds of one request; the profiler
makes calls look dearer than they are, so read it as an order, not as a price. By C function, from
callgrind: instructions of one request above the baseline's, exact, but blind to which Python
function asked. For whoever makes the library faster; nothing of this goes into RESULTS.md.
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

from benchmarks import tables as report
from benchmarks.asgi_client import CLIENTS, KINDS, Driver, lifespan, run, settle
from benchmarks.candidates.starlette import Candidate, choose
from benchmarks.instructions import REQUESTS, counted

EACH = 500
LINES = 40


async def profiled(candidate: Candidate, kind: str, folder: Path) -> cProfile.Profile:
    """Serve requests of one kind under cProfile."""
    app = candidate.build(folder)
    async with lifespan(app):
        driver = Driver(candidate, app)
        await driver.prepare()
        settle()
        profile = cProfile.Profile()
        profile.enable()
        await driver.requests(kind, EACH)
        profile.disable()
        return profile


def by_python_function(profile: cProfile.Profile) -> str:
    """Return the table of Python functions, dearest first, for one request."""
    requests = EACH * CLIENTS
    stats = pstats.Stats(profile)
    rows = []
    entries = sorted(stats.stats.items(), key=lambda item: -item[1][2])  # type: ignore[attr-defined]
    for (file, line, name), (_, calls, own, cumulative, _) in entries[:LINES]:
        place = "/".join(Path(file).parts[-3:]) + f":{line} " if line else ""
        rows.append(
            [
                f"{place}{name}",
                f"{calls / requests:.2f}",
                f"{own * 1e6 / requests:.2f}",
                f"{cumulative * 1e6 / requests:.2f}",
            ]
        )
    return report.table(["Python function", "calls", "own µs", "with what it calls"], rows)


def by_c_function(candidate: Candidate, baseline: Candidate | None, kind: str) -> str:
    """Return the table of C functions, dearest first, for one request above the baseline's."""
    cost = _own_costs(candidate, kind)
    if baseline is not None:
        cost.subtract(_own_costs(baseline, kind))
    rows = [[name, f"{value / REQUESTS:,.0f}"] for name, value in cost.most_common(LINES)]
    total = f"{cost.total() / REQUESTS:,.0f}"
    return report.table(["C function", "instructions"], [["in all", total], *rows])


def _own_costs(candidate: Candidate, kind: str) -> Counter[str]:
    cost: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        function, called = "", False
        for line in counted(candidate, Path(folder))[kind].read_text().splitlines():
            if line.startswith("fn="):
                function = line[3:].partition("'")[0]  # recursion levels count as one
            elif line.startswith("calls="):
                called = True  # the next line is the cost of the call, which is the callee's own
            elif line[:1].isdigit():
                if not called:
                    cost[function] += int(line.split()[1])
                called = False
    return cost


def main() -> None:
    """Print both views of one kind of request to one candidate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="the candidate")
    parser.add_argument("kind", choices=KINDS)
    arguments = parser.parse_args()
    chosen = {candidate.name: candidate for candidate in choose(arguments.name)}
    candidate = chosen[arguments.name]
    with tempfile.TemporaryDirectory() as folder:
        profile = run(profiled(candidate, arguments.kind, Path(folder)))
    print(by_python_function(profile))
    print()
    if shutil.which("valgrind") is None:
        print("C FUNCTIONS NOT COUNTED: valgrind is not installed", file=sys.stderr)
        return
    print(by_c_function(candidate, chosen.get(candidate.baseline or ""), arguments.kind))


if __name__ == "__main__":
    main()
