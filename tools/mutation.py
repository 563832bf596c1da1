"""Runs mutmut and reports the survival rate of each module against the budget.

Run it with ``python -m tools.mutation [module ...]``; without modules it takes all that
``[tool.mutmut]`` in pyproject.toml names. Exits with 1 if a module exceeds its budget in
mutation.toml, or if mutmut fails. ``mutmut results`` and ``mutmut show`` then list and show them.
With ``--write`` the measured modules replace their rows in the table of CONTRIBUTING.md.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from tools import markdown

ROOT = Path(__file__).resolve().parent.parent
BUDGET = Path(__file__).with_suffix(".toml")
MUTANTS = ROOT / "mutants"
TABLE = ROOT / "CONTRIBUTING.md"

#: What the exit codes of a mutant's tests mean; any other one is a failed test or a crash.
OUTCOMES = {None: "not run", 0: "survived", 33: "untested", 36: "timed out"}

#: The columns of the report.
TRIED = ("killed", "timed out", "survived", "untested")

#: The outcome of each mutant, by module and name.
Outcomes = Mapping[str, Mapping[str, str]]

#: The lines around the table.
_BEGIN = "<!-- written by tools/mutation.py --write -->"
_END = "<!-- end of the table -->"

#: The tests of the modules of each package.
TESTS: dict[tuple[str, ...], list[str]] = {
    ("sojourn._core.", "sojourn._crypto."): ["tests/unit/core", "tests/unit/crypto"],
    ("sojourn.web.",): ["tests/unit/web"],
}

# The first two deselected tests start other processes, in which mutated code does not find the
# configuration of mutmut; each of the others takes more than a second.
_PYTEST = """
--rootdir=. --capture=no --quiet --tb=native -m 'not slow'
-p no:randomly -p no:cacheprovider -p no:xdist -p no:faulthandler
-p tools.mutation_plugin --hypothesis-profile=mutation
--deselect=tests/unit/crypto/test_secret_key.py::TestFile::test_eight_processes_that_start_together_get_one_secret
--deselect=tests/unit/web/test_protect.py::TestAudit::test_audit_of_a_real_server_has_one_line_per_event_and_no_secret
--deselect=tests/unit/web/test_garbage.py
"""


def main(arguments: Sequence[str]) -> int:
    """Run the tests of the mutants and print the report; return the exit code."""
    parser = argparse.ArgumentParser(description="Report the survival rate of mutants by module.")
    parser.add_argument("modules", nargs="*", help="such as sojourn._core.plan; default: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--again", choices=TRIED, nargs="*", default=[], help="repeat those that")
    parser.add_argument("--report-only", action="store_true", help="report the last run again")
    parser.add_argument("--write", action="store_true", help=f"write the table in {TABLE.name}")
    options = parser.parse_args(arguments)
    if not options.report_only:
        generate()
        for packages, tests in TESTS.items():
            names = select(read(packages, options.modules), options.again)
            if names and (code := run(names, tests, options.jobs)):
                print(f"pytest ended with {code}; the tests must pass without a mutant first")
                return 1
    outcomes = read(("",), options.modules)
    counted = ((name, Counter(mutants.values())) for name, mutants in outcomes.items())
    modules = {name: counts for name, counts in counted if counts.total() > counts["not run"]}
    budget = tomllib.loads(BUDGET.read_text("utf-8"))
    print(report(modules, budget))
    if options.write:
        page = TABLE.read_text("utf-8")
        TABLE.write_text(write(page, modules, datetime.now(UTC).date()), "utf-8")
    exceeding = [name for name, counts in modules.items() if rate(counts) > limit(name, budget)]
    return 1 if exceeding or not modules else 0


def generate() -> None:
    """Write the mutants of changed modules; forget the results of changed functions."""
    from mutmut import __main__ as mutmut

    complete = MUTANTS / "complete"
    if not complete.exists():
        # An interrupted run leaves an empty module behind, which mutmut takes for up to date.
        shutil.rmtree(MUTANTS, ignore_errors=True)
    MUTANTS.mkdir(exist_ok=True)
    complete.unlink(missing_ok=True)
    # mutmut's steps before its first test
    mutmut.set_mutant_under_test("mutant_generation")
    mutmut.copy_src_dir()
    mutmut.copy_also_copy_files()
    mutmut.create_mutants(1)
    complete.touch()


def read(packages: tuple[str, ...], modules: Sequence[str] = ()) -> Outcomes:
    """Return the outcomes that mutmut has in files, of packages and of modules; empty for all."""
    found = {}
    for path in sorted(MUTANTS.glob("src/**/*.py.meta")):
        name = ".".join(path.relative_to(MUTANTS / "src").parts).removesuffix(".py.meta")
        if name.startswith(packages) and (not modules or name in modules):
            codes = json.loads(path.read_text("utf-8"))["exit_code_by_key"]
            found[name] = {key: OUTCOMES.get(code, "killed") for key, code in codes.items()}
    return found


def select(outcomes: Outcomes, again: Sequence[str]) -> list[str]:
    """Return the mutants to try."""
    wanted = {"not run", *again}
    return [
        mutant
        for mutants in outcomes.values()
        for mutant, outcome in mutants.items()
        if outcome in wanted
    ]


def run(names: Sequence[str], tests: Sequence[str], jobs: int) -> int:
    """Run the tests of mutants; return the exit code of pytest."""
    chosen = MUTANTS / "chosen.txt"
    chosen.write_text("\n".join(names), "utf-8")
    command = [sys.executable, "-m", "pytest", *shlex.split(_PYTEST), *tests]
    command += [f"--mutants={chosen}", f"--jobs={jobs}"]
    path = os.pathsep.join([str(MUTANTS / "src"), str(MUTANTS)])  # before the installed package
    environment = {**os.environ, "PYTHONPATH": path, "MUTANT_UNDER_TEST": ""}
    return subprocess.run(command, cwd=MUTANTS, env=environment, check=False).returncode  # noqa: S603 - our tests


def rate(counts: Counter[str]) -> float:
    """Return the share of survivors in percent; untested mutants survive."""
    tried = sum(counts[outcome] for outcome in TRIED) or 1
    return 100 * (counts["survived"] + counts["untested"]) / tried


def limit(name: str, budget: Mapping[str, Any]) -> float:
    """Return how many percent of a module's mutants may survive."""
    return float(budget.get("modules", {}).get(name, budget["default"]))


def report(modules: Mapping[str, Counter[str]], budget: Mapping[str, Any]) -> str:
    """Return a table of the modules and their sum."""
    lines = [f"{'module':38}" + "".join(f"{outcome:>11}" for outcome in TRIED) + "   survival"]
    for name, counts in [*modules.items(), ("total", sum(modules.values(), Counter()))]:
        cells = "".join(f"{counts[outcome]:11}" for outcome in TRIED)
        line = f"{name:38}{cells}{rate(counts):9.1f} %"
        if rate(counts) > limit(name, budget) and name in modules:
            line += f"  exceeds the budget of {limit(name, budget):g} %"
        lines.append(line)
    return "\n".join(lines)


def write(page: str, modules: Mapping[str, Counter[str]], day: date) -> str:
    """Return the page with the rows of completely measured modules replaced or added."""
    table = page.partition(_BEGIN)[2].partition(_END)[0]
    lines = (line.strip("| ").split(" | ") for line in table.splitlines())
    rows = {name: cells for name, *cells in lines if name.startswith("`")}
    for name, counts in modules.items():
        if not counts["not run"]:
            survived = counts["survived"] + counts["untested"]
            figures = (counts.total(), counts["timed out"], survived, f"{rate(counts):.1f} %", day)
            rows[f"`{name}`"] = list(map(str, figures))
    headings = ("module", "mutants", "timed out", "survived", "rate", "measured")
    block = markdown.table(headings, ((name, *rows[name]) for name in sorted(rows)))
    return markdown.replace(page, _BEGIN, _END, block)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
