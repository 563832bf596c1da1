"""Runs mutmut and reports the survival rate of each module against the budget.

Run it with ``python -m tools.mutation [module ...]``; without modules it takes all that
``[tool.mutmut]`` in pyproject.toml names. Exits with 1 if a module exceeds its budget in
mutation.toml, or if mutmut fails. ``mutmut results`` and ``mutmut show`` then list and show them.
With ``--write`` the measured modules replace their rows in the table of CONTRIBUTING.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BUDGET = Path(__file__).with_suffix(".toml")
MUTANTS = ROOT / "mutants"
TABLE = ROOT / "CONTRIBUTING.md"

#: The lines around the table.
_BEGIN = "<!-- written by tools/mutation.py --write -->\n"
_END = "<!-- end of the table -->\n"

#: Exit codes of a mutant's tests as mutmut records them; any other one is a failed test, a crash or
#: an exceeded time limit.
_SURVIVED = {0}
_UNTESTED = {5, 33}
_NOT_RUN = {None, 2, 34}


class Module(NamedTuple):
    """The mutants of one module.

    Attributes:
        survived: their tests passed.
        untested: no test calls the mutated function.
        killed: a test failed or exceeded its time limit.
        not_run: not tried, because the run was interrupted or was for other modules.
    """

    name: str
    survived: int
    untested: int
    killed: int
    not_run: int = 0

    def total(self) -> int:
        """Return the number of mutants that were tried."""
        return self.survived + self.untested + self.killed

    def rate(self) -> float:
        """Return the share of survivors in percent; untested mutants survive."""
        return 100 * (self.survived + self.untested) / self.total()


def main(arguments: Sequence[str]) -> int:
    """Run mutmut and print the report; return the exit code."""
    parser = argparse.ArgumentParser(description="Report the survival rate of mutants by module.")
    parser.add_argument("modules", nargs="*", help="such as sojourn._core.plan; default: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--report-only", action="store_true", help="report the last run again")
    parser.add_argument("--write", action="store_true", help=f"write the table in {TABLE.name}")
    options = parser.parse_args(arguments)
    if not options.report_only:
        # An interrupted run leaves an empty module behind, which mutmut takes for up to date.
        shutil.rmtree(MUTANTS, ignore_errors=True)
        command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(options.jobs)]
        command += [f"{module}.*" for module in options.modules]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:  # noqa: S603 - a fixed command
            print("mutmut failed; its own tests must pass without a mutant first")
            return 1
    budget = tomllib.loads(BUDGET.read_text("utf-8"))
    modules = read(MUTANTS)
    print(report(modules, budget))
    if options.write:
        page = TABLE.read_text("utf-8")
        TABLE.write_text(write(page, modules, datetime.now(UTC).date()), "utf-8")
    return 1 if not modules or any(m.rate() > limit(m.name, budget) for m in modules) else 0


def read(mutants: Path) -> list[Module]:
    """Return the modules with tried mutants, by name, from the files that mutmut leaves."""
    modules = []
    for path in sorted(mutants.glob("src/**/*.py.meta")):
        codes = json.loads(path.read_text("utf-8"))["exit_code_by_key"]
        counts = Counter(map(classify, codes.values()))
        name = ".".join(path.relative_to(mutants / "src").parts).removesuffix(".py.meta")
        module = Module(name, counts["survived"], counts["untested"], counts["killed"], counts[""])
        if module.total():
            modules.append(module)
    return modules


def classify(code: int | None) -> str:
    """Return what the exit code of a mutant's tests means; empty for a mutant that was not run."""
    if code in _NOT_RUN:
        return ""
    if code in _SURVIVED:
        return "survived"
    return "untested" if code in _UNTESTED else "killed"


def limit(name: str, budget: Mapping[str, object]) -> float:
    """Return how many percent of a module's mutants may survive."""
    modules = budget.get("modules", {})
    assert isinstance(modules, dict)  # noqa: S101 - by the format of the file
    return float(modules.get(name, budget["default"]))


def report(modules: Sequence[Module], budget: Mapping[str, object]) -> str:
    """Return a table of the modules and their sum."""
    lines = [f"{'module':38}{'mutants':>8}{'killed':>8}{'survived':>9}{'untested':>9}  survival"]
    for module in modules:
        allowed = limit(module.name, budget)
        verdict = "" if module.rate() <= allowed else f"  exceeds the budget of {allowed:g} %"
        lines.append(_line(module) + verdict)
    if modules:
        lines.append(_line(Module("total", *map(sum, zip(*(m[1:] for m in modules), strict=True)))))
    return "\n".join(lines)


def write(page: str, modules: Sequence[Module], day: date) -> str:
    """Return the page with the rows of completely measured modules replaced or added."""
    before, _, rest = page.partition(_BEGIN)
    table, _, after = rest.partition(_END)
    rows = {row.split("`")[1]: row for row in table.splitlines() if row.startswith("| `")}
    for module in modules:
        if not module.not_run:
            survived = module.survived + module.untested
            figures = f"{module.total()} | {survived} | {module.rate():.1f} % | {day}"
            rows[module.name] = f"| `{module.name}` | {figures} |"
    lines = ["| module | mutants | survived | rate | measured |", "|---|---|---|---|---|"]
    lines += [rows[name] for name in sorted(rows)]
    written = "\n".join(lines)
    return f"{before}{_BEGIN}{written}\n{_END}{after}"


def _line(module: Module) -> str:
    counts = f"{module.total():8}{module.killed:8}{module.survived:9}{module.untested:9}"
    return f"{module.name:38}{counts}{module.rate():8.1f} %"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
