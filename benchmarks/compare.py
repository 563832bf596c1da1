"""Compares an older commit with this work tree in one run: `python -m benchmarks.compare`.

`--baseline COMMIT` names the old tree, which is checked out into a temporary git worktree. Both
trees serve the same applications (candidates/), which use only sojourn's public API, with one set
of packages, so nothing but sojourn's own code differs. `--instructions-only` counts instructions of
the memory store and needs about a minute.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks import tables
from benchmarks.candidates import find
from benchmarks.instructions import GOALS, count

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("anonymous", "read", "write")


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


def count_instructions(
    trees: Mapping[str, Path], names: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return instructions over bare by candidate, tree and kind of request."""
    environments = {label: environment_of(tree) for label, tree in trees.items()}
    bare = next(iter(environments))
    jobs = [("bare", bare), *((name, label) for name in names for label in environments)]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        counts = pool.map(
            lambda job: count(find(job[0]), KINDS, environments[job[1]]),
            jobs,
        )
        absolute = dict(zip(jobs, counts, strict=True))
    base = absolute["bare", bare]
    return {
        name: {
            label: {kind: absolute[name, label][kind] - base[kind] for kind in KINDS}
            for label in environments
        }
        for name in names
    }


def instructions_table(counts: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return a row for each candidate and kind: both trees, their difference, and the goal."""
    rows = []
    for name, by_tree in counts.items():
        old, new = by_tree["baseline"], by_tree["current"]
        for kind in KINDS:
            goal = GOALS[kind] if name == "sojourn-memory" else None
            held = "" if goal is None else ("reached" if new[kind] <= goal else "**missed**")
            rows.append(
                [
                    f"{name}, {kind}",
                    f"{old[kind] / 1000:.1f}",
                    f"{new[kind] / 1000:.1f}",
                    f"{new[kind] / old[kind] - 1:+.1%}",
                    "" if goal is None else f"≤ {goal / 1000:g}",
                    held,
                ]
            )
    header = ["thousand instructions over bare", "baseline", "current", "change", "goal", ""]
    return tables.table(header, rows)


def main() -> None:
    """Compare both trees and print a table for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baseline", default="HEAD", help="commit of the old tree (default: HEAD)")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the new tree (default: this one)")
    parser.add_argument("--instructions-only", action="store_true", help="count, measure no time")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("INSTRUCTIONS NOT COUNTED: valgrind is not installed")
    with checked_out(arguments.baseline) as baseline:
        trees = {"baseline": baseline, "current": arguments.tree.resolve()}
        for label, tree in trees.items():
            print(f"* {label}: {describe_commit(tree)}")
        print(flush=True)
        print(instructions_table(count_instructions(trees, ["sojourn-memory"])))


if __name__ == "__main__":
    main()
