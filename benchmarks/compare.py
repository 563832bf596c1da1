"""Compares an older commit with this work tree in one run: `python -m benchmarks.compare`.

`--baseline COMMIT` names the old tree, which is checked out into a temporary git worktree. Both
trees serve the same applications (candidates/), which use only sojourn's public API, with one set
of packages, so nothing but sojourn's own code differs. Servers of both trees are loaded in turn,
round after round, pinned to one core, with the load generator on another; a ratio is the median
over the rounds of (current over baseline in the same round).

uvicorn sends a response with two system calls. With two cores, the speed of the load generator
decides whether both wake it, which costs 5 microseconds and can favour either tree: two equal
trees differ by up to 15 percent for minutes. `--same-core` runs the load generator on the
servers' core, where it waits until the server has sent both; Valkey has the other core.

`--instructions-only` counts the instructions of the memory store and takes 20 seconds on an idle
machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles

from benchmarks import machine, tables
from benchmarks.asgi_client import run
from benchmarks.candidates import find
from benchmarks.candidates.candidate import VALKEY_URL_VARIABLE
from benchmarks.cpu_idle import no_idle_states
from benchmarks.instructions import GOALS, count
from benchmarks.load_generator import Visitor, connect, measure
from benchmarks.processes import choose_cores, run_server, run_valkey
from benchmarks.server import pin

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"anonymous": "/", "read": "/read", "write": "/write"}
CANDIDATES = ("sojourn-memory", "sojourn-sqlite", "sojourn-valkey")
TOLERANCE = 0.02
"""A row that is slower by more than this share is reported."""


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Check a commit out into a temporary git worktree; remove it at the end."""
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as parent:
        path = Path(parent) / "baseline"
        subprocess.run(
            [*git, "add", "--quiet", "--detach", str(path), commit], check=True, stdout=sys.stderr
        )
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], check=True, stdout=sys.stderr)


def environment_of(tree: Path) -> dict[str, str]:
    """Return the environment of a process that imports sojourn from a tree.

    Raises:
        SystemExit: there is no sojourn in the tree.
    """
    source = tree / "src"
    if not (source / "sojourn" / "__init__.py").exists():
        raise SystemExit(f"expected the package src/sojourn in {tree}, found none")
    return os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{ROOT}"}


def describe_commit(tree: Path) -> str:
    """Return the short commit of a tree, with a note if files differ from it."""
    command = ["git", "-C", str(tree), "describe", "--always", "--dirty=, with changes"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


# Instructions


def count_instructions(
    trees: Mapping[str, Path], names: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return instructions over bare by candidate, tree and kind of request."""
    environments = {label: environment_of(tree) for label, tree in trees.items()}
    bare = ("bare", next(iter(environments)))
    jobs = [bare, *((name, label) for name in names for label in environments)]
    kinds = tuple(KINDS)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        counts = pool.map(lambda job: count(find(job[0]), kinds, environments[job[1]]), jobs)
        absolute = dict(zip(jobs, counts, strict=True))
    return {
        name: {
            label: {kind: absolute[name, label][kind] - absolute[bare][kind] for kind in kinds}
            for label in environments
        }
        for name in names
    }


def instructions_table(counts: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return a row for each candidate and kind: both trees, the change, and the goal."""
    rows = []
    for name, by_tree in counts.items():
        old, new = by_tree["baseline"], by_tree["current"]
        for kind in KINDS:
            goal = GOALS[kind] if name == "sojourn-memory" else None
            verdict = "" if goal is None else ("holds" if new[kind] <= goal else "**missed**")
            rows.append(
                [
                    f"{name}, {kind}",
                    f"{old[kind] / 1000:.1f}",
                    f"{new[kind] / 1000:.1f}",
                    f"{new[kind] / old[kind] - 1:+.1%}",
                    "" if goal is None else f"≤ {goal / 1000:g}",
                    verdict,
                ]
            )
    header = ["thousand instructions over bare", "baseline", "current", "change", "goal", ""]
    return tables.table(header, rows)


# Throughput


@dataclass(slots=True)
class Pair:
    """One candidate served from both trees.

    Attributes:
        name: of the candidate.
        visitors: by tree.
        per_second: requests per second in each round, by tree and kind of request.
    """

    name: str
    visitors: dict[str, list[Visitor]] = field(default_factory=dict)
    per_second: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def ratios(self, kind: str) -> list[float]:
        """Return current over baseline in each round."""
        old, new = (self.per_second[label][kind] for label in ("baseline", "current"))
        return [mine / other for mine, other in zip(new, old, strict=True)]


def measure_starts(
    trees: Mapping[str, Path], *, starts: int, rounds: int, seconds: float, same_core: bool
) -> list[Pair]:
    """Return the rounds of several starts, each with a load generator in a new process."""
    merged = [Pair(name) for name in CANDIDATES]
    # `spawn` lets the child choose its cores; a forked one would be pinned like this process.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for start in range(starts):
            ordered = dict(reversed(trees.items())) if start % 2 else dict(trees)
            for pair, measured in zip(
                merged,
                pool.submit(_measure_start, ordered, rounds, seconds, same_core=same_core).result(),
                strict=True,
            ):
                for label, by_kind in measured.items():
                    mine = pair.per_second.setdefault(label, {kind: [] for kind in KINDS})
                    for kind, values in by_kind.items():
                        mine[kind] += values
    return merged


def _measure_start(
    trees: Mapping[str, Path], rounds: int, seconds: float, *, same_core: bool
) -> list[dict[str, dict[str, list[float]]]]:
    """Return the requests per second of each candidate, by tree and kind, in each round."""
    pairs: list[Pair] = run(
        measure_throughput(trees, rounds=rounds, seconds=seconds, same_core=same_core)
    )
    return [pair.per_second for pair in pairs]


async def measure_throughput(
    trees: Mapping[str, Path], *, rounds: int, seconds: float, same_core: bool
) -> list[Pair]:
    """Load the servers of both trees alternately; the tree that goes first alternates too."""
    async with AsyncExitStack() as stack:
        stack.enter_context(no_idle_states())
        server_core, other_core = choose_cores()
        pin(server_core if same_core else other_core)
        parent = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(run_valkey(parent, other_core))
        pairs = []
        for name in CANDIDATES:
            pair = Pair(name)
            for database, (label, tree) in enumerate(trees.items()):
                directory = parent / f"{name}-{label}"
                directory.mkdir(mode=0o700)
                environment = environment_of(tree)
                environment[VALKEY_URL_VARIABLE] = f"{url.rpartition('/')[0]}/{database}"
                port = stack.enter_context(
                    run_server(find(name), directory, server_core, environment)
                )
                pair.visitors[label] = await connect(port, keeps_values=True)
                pair.per_second[label] = {kind: [] for kind in KINDS}
            pairs.append(pair)
        order = list(trees)
        for _ in range(rounds):
            for kind, path in KINDS.items():
                for pair in pairs:
                    for label in order:
                        result = await measure(
                            pair.visitors[label],
                            path,
                            seconds=seconds,
                            rate=None,
                            keeps_values=True,
                        )
                        pair.per_second[label][kind].append(result.per_second)
            order.reverse()
        return pairs


def throughput_table(pairs: Sequence[Pair]) -> str:
    """Return a row for each candidate and kind with the median and the quartiles of the ratio."""
    rows = []
    for pair in pairs:
        for kind in KINDS:
            ratios = pair.ratios(kind)
            low, ratio, high = (
                quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
            )
            rows.append(
                [
                    f"{pair.name}, {kind}",
                    f"{median(pair.per_second['baseline'][kind]):,.0f}",
                    f"{median(pair.per_second['current'][kind]):,.0f}",
                    f"{ratio:.3f}",
                    f"{low:.3f} to {high:.3f}",
                    "**slower**" if ratio < 1 - TOLERANCE else "",
                ]
            )
    header = ["requests per second", "baseline", "current", "ratio", "quartiles", ""]
    return tables.table(header, rows)


def main() -> None:
    """Compare both trees and print a table for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baseline", default="HEAD", help="commit of the old tree (default: HEAD)")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the new tree (default: this one)")
    parser.add_argument("--instructions-only", action="store_true", help="count, measure no time")
    parser.add_argument("--starts", type=int, default=10, help="of all servers (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="in each start (default: 3)")
    parser.add_argument("--same-core", action="store_true", help="load on the servers' core")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each stretch")
    parser.add_argument("--quick", action="store_true", help="two short starts: does it work?")
    arguments = parser.parse_args()
    starts, rounds, seconds = arguments.starts, arguments.rounds, arguments.seconds
    if arguments.quick:
        starts, rounds, seconds = 2, 1, 0.1
    with checked_out(arguments.baseline) as baseline:
        trees = {"baseline": baseline, "current": arguments.tree.resolve()}
        for label, tree in trees.items():
            print(f"* {label}: {describe_commit(tree)}")
        print("\n".join(machine.describe()), end="\n\n", flush=True)
        if not arguments.instructions_only:
            print(f"{machine.describe_load()}\n" if machine.describe_load() else "", end="")
            pairs = measure_starts(
                trees, starts=starts, rounds=rounds, seconds=seconds, same_core=arguments.same_core
            )
            print(throughput_table(pairs), end="\n\n", flush=True)
        if shutil.which("valgrind") is None:
            raise SystemExit("INSTRUCTIONS NOT COUNTED: valgrind is not installed")
        names = CANDIDATES[:1] if arguments.instructions_only else CANDIDATES[:2]
        print(instructions_table(count_instructions(trees, names)))


if __name__ == "__main__":
    main()
