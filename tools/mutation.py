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
_TIMED_OUT = {36, 24, -24, 152}

#: What `--again` repeats.
AGAIN = ["survived", "untested", "timed out", "killed"]

#: The tests of the modules of each package.
TESTS: dict[tuple[str, ...], list[str]] = {
    ("sojourn._core.", "sojourn._crypto."): ["tests/unit/core", "tests/unit/crypto"],
    ("sojourn.web.",): ["tests/unit/web"],
}

#: How long the tests of one mutant may take in sum, in seconds, when none of them fails.
_MUTANT_SECONDS = 10

# The first two deselected tests start other processes, in which mutated code does not find the
# configuration of mutmut; each of the others takes more than a second.
_PYTEST = """
--rootdir=. --capture=no --quiet --tb=native -m 'not slow'
-p no:randomly -p no:cacheprovider -p no:xdist -p no:faulthandler
-p tools.mutation_plugin --hypothesis-profile=mutation
--deselect=tests/unit/crypto/test_secret_key.py::TestFile::test_eight_processes_that_start_together_get_one_secret
--deselect=tests/unit/web/test_protect.py::TestAudit::test_a_real_run_has_one_line_for_each_event_and_no_secret
--deselect=tests/unit/web/test_garbage.py
"""

#: mutmut's steps before its first test.
_GENERATE = """
from mutmut import __main__ as mutmut
if __name__ == "__main__":
    mutmut.set_mutant_under_test("mutant_generation")
    mutmut.copy_src_dir()
    mutmut.copy_also_copy_files()
    mutmut.create_mutants(1)
"""


class Module(NamedTuple):
    """The mutants of one module.

    Attributes:
        survived: their tests passed.
        untested: no test calls the mutated function.
        killed: a test failed, or the process crashed.
        timed_out: a test did not end.
        not_run: not tried, because the run was interrupted or was for other modules.
    """

    name: str
    survived: int
    untested: int
    killed: int
    timed_out: int = 0
    not_run: int = 0

    def total(self) -> int:
        """Return the number of mutants that were tried."""
        return self.survived + self.untested + self.killed + self.timed_out

    def rate(self) -> float:
        """Return the share of survivors in percent; untested mutants survive."""
        return 100 * (self.survived + self.untested) / self.total()


def main(arguments: Sequence[str]) -> int:
    """Run the tests of the mutants and print the report; return the exit code."""
    parser = argparse.ArgumentParser(description="Report the survival rate of mutants by module.")
    parser.add_argument("modules", nargs="*", help="such as sojourn._core.plan; default: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tests", action="append", help="test files; default: by package")
    parser.add_argument("--again", choices=AGAIN, nargs="*", default=[], help="repeat those that")
    parser.add_argument("--test-timeout", type=float, default=5, help="seconds for each test")
    parser.add_argument("--report-only", action="store_true", help="report the last run again")
    parser.add_argument("--write", action="store_true", help=f"write the table in {TABLE.name}")
    options = parser.parse_args(arguments)
    if not options.report_only:
        generate()
        for packages, tests in TESTS.items():
            names = select(MUTANTS, packages, options.modules, options.again)
            if names and (code := run(names, options.tests or tests, options)):
                print(f"pytest ended with {code}; the tests must pass without a mutant first")
                return 1
    budget = tomllib.loads(BUDGET.read_text("utf-8"))
    modules = [
        module for module in read(MUTANTS) if not options.modules or module.name in options.modules
    ]
    print(report(modules, budget))
    if options.write:
        page = TABLE.read_text("utf-8")
        TABLE.write_text(write(page, modules, datetime.now(UTC).date()), "utf-8")
    return 1 if not modules or any(m.rate() > limit(m.name, budget) for m in modules) else 0


def generate() -> None:
    """Write the mutants of changed modules; forget the results of changed functions."""
    complete = MUTANTS / "complete"
    if not complete.exists():
        # An interrupted run leaves an empty module behind, which mutmut takes for up to date.
        shutil.rmtree(MUTANTS, ignore_errors=True)
    MUTANTS.mkdir(exist_ok=True)
    complete.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-c", _GENERATE], cwd=ROOT, check=True)  # noqa: S603 - our text
    complete.touch()


def select(
    mutants: Path, packages: tuple[str, ...], modules: Sequence[str], again: Sequence[str]
) -> list[str]:
    """Return the mutants of packages to try, in the order of the modules."""
    found: dict[str, list[str]] = {}
    for path in sorted(mutants.glob("src/**/*.py.meta")):
        name = _module_name(path, mutants)
        if name.startswith(packages) and (not modules or name in modules):
            codes = json.loads(path.read_text("utf-8"))["exit_code_by_key"]
            found[name] = [
                mutant for mutant, code in codes.items() if classify(code) in {"", *again}
            ]
    order = list(modules) or sorted(found, key=lambda name: len(found[name]))
    return [mutant for name in order for mutant in found.get(name, ())]


def run(names: Sequence[str], tests: Sequence[str], options: argparse.Namespace) -> int:
    """Run the tests of mutants; return the exit code of pytest."""
    chosen = MUTANTS / "chosen.txt"
    chosen.write_text("\n".join(names), "utf-8")
    command = [sys.executable, "-m", "pytest", *shlex.split(_PYTEST), *tests]
    command += [f"--mutants={chosen}", f"--jobs={options.jobs}"]
    command += [f"--mutant-seconds={_MUTANT_SECONDS}", f"--test-timeout={options.test_timeout}"]
    path = os.pathsep.join([str(MUTANTS / "src"), str(MUTANTS)])  # before the installed package
    environment = {**os.environ, "PYTHONPATH": path, "MUTANT_UNDER_TEST": ""}
    return subprocess.run(command, cwd=MUTANTS, env=environment, check=False).returncode  # noqa: S603 - our tests


def read(mutants: Path) -> list[Module]:
    """Return the modules with tried mutants, by name, from the files that mutmut leaves."""
    modules = []
    for path in sorted(mutants.glob("src/**/*.py.meta")):
        codes = json.loads(path.read_text("utf-8"))["exit_code_by_key"]
        counts = Counter(map(classify, codes.values()))
        module = Module(
            _module_name(path, mutants),
            survived=counts["survived"],
            untested=counts["untested"],
            killed=counts["killed"],
            timed_out=counts["timed out"],
            not_run=counts[""],
        )
        if module.total():
            modules.append(module)
    return modules


def classify(code: int | None) -> str:
    """Return what the exit code of a mutant's tests means; empty for a mutant that was not run."""
    if code in _NOT_RUN:
        return ""
    if code in _SURVIVED:
        return "survived"
    if code in _TIMED_OUT:
        return "timed out"
    return "untested" if code in _UNTESTED else "killed"


def limit(name: str, budget: Mapping[str, object]) -> float:
    """Return how many percent of a module's mutants may survive."""
    modules = budget.get("modules", {})
    assert isinstance(modules, dict)  # noqa: S101 - by the format of the file
    return float(modules.get(name, budget["default"]))


def report(modules: Sequence[Module], budget: Mapping[str, object]) -> str:
    """Return a table of the modules and their sum."""
    columns = f"{'mutants':>8}{'killed':>8}{'timed out':>10}{'survived':>9}{'untested':>9}"
    lines = [f"{'module':38}{columns}  survival"]
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
            figures = f"{module.total()} | {module.timed_out} | {survived} | {module.rate():.1f} %"
            rows[module.name] = f"| `{module.name}` | {figures} | {day} |"
    lines = [
        "| module | mutants | timed out | survived | rate | measured |",
        "|---|---|---|---|---|---|",
    ]
    lines += [rows[name] for name in sorted(rows)]
    written = "\n".join(lines)
    return f"{before}{_BEGIN}{written}\n{_END}{after}"


def _module_name(path: Path, mutants: Path) -> str:
    return ".".join(path.relative_to(mutants / "src").parts).removesuffix(".py.meta")


def _line(module: Module) -> str:
    tests = f"{module.killed:8}{module.timed_out:10}{module.survived:9}{module.untested:9}"
    return f"{module.name:38}{module.total():8}{tests}{module.rate():8.1f} %"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
