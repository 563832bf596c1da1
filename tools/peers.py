"""Run the frameworks' own session tests with sojourn in place; ``make test-peers`` calls it.

Each suite is in ``tests/peers/suites.toml``. The sources are the released sdists that
``tests/peers/requirements.txt`` pins. A test that has to fail is listed with its reason in the
``exceptions.toml`` of its framework; a listed test that passes, or does not exist, is an error.
"""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

PEERS = Path(__file__).resolve().parent.parent / "tests" / "peers"
CACHE = Path(sys.prefix) / "peers"

#: How the outcomes of tests are counted, in the order of the table.
COUNTS = ("passed", "excepted", "skipped", "failed")


class Suite(NamedTuple):
    """One run of tests of an sdist, a table of ``tests/peers/suites.toml``."""

    name: str
    package: str
    command: list[str]
    environ: Mapping[str, str] = {}


def unpack(folder: Path) -> None:
    """Unpack the sdists, each into the folder ``<package>-<version>``; download missing ones."""
    names = sorted({suite.package for suite in read_suites([])})
    archives = [CACHE / f"{name}-{version(name)}.tar.gz" for name in names]
    if not all(archive.exists() for archive in archives):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--no-binary", ",".join(names), "--dest", str(CACHE)]
        command += ["--requirement", str(PEERS / "requirements.txt")]
        subprocess.run(command, check=True)  # noqa: S603 - pip, with arguments of this file
    for archive in archives:
        shutil.unpack_archive(archive, folder, filter="data")


def run(suite: Suite, source: Path, log: Path) -> dict[str, str]:
    """Run a suite; return the outcome of each test: "passed", "failed" or "skipped"."""
    with tempfile.TemporaryDirectory() as folder, log.open("wb") as output:
        outcomes = Path(folder) / "outcomes.json"
        environ = {
            **{name: value for name, value in os.environ.items() if "SOJOURN" not in name},
            **suite.environ,
            "OUTCOMES": str(outcomes),
            "PYTHONPATH": os.pathsep.join(map(str, (PEERS / suite.package, PEERS, source))),
        }
        command = [sys.executable, *suite.command]
        subprocess.run(  # noqa: S603 - a command of suites.toml
            command, cwd=source, env=environ, stdout=output, stderr=output, check=False
        )
        if not outcomes.exists():
            return {"(did not run)": "failed"}
        found: dict[str, str] = json.loads(outcomes.read_text("utf-8"))
        return found


def compare(
    outcomes: Mapping[str, str], exceptions: Mapping[str, str]
) -> tuple[Counter[str], list[str]]:
    """Return the number of tests for each of COUNTS, and a line for each unexpected outcome.

    The keys of the exceptions are patterns of the tests that have to fail.
    """
    counts: Counter[str] = Counter()
    errors = [] if outcomes else ["has no tests"]
    for test, outcome in outcomes.items():
        excepted = any(fnmatch.fnmatchcase(test, pattern) for pattern in exceptions)
        counts["excepted" if excepted and outcome == "failed" else outcome] += 1
        if excepted and outcome == "passed":
            errors.append(f"passes, so it is no exception: {test}")
        if outcome == "failed" and not excepted:
            errors.append(f"fails: {test}")
    unused = (pattern for pattern in exceptions if not fnmatch.filter(outcomes, pattern))
    errors += [f"an exception names no test: {pattern}" for pattern in unused]
    return counts, errors


def read_exceptions(suite: Suite) -> dict[str, str]:
    """Return the exceptions of a suite: a pattern of test names, and the reason."""
    text = (PEERS / suite.package / "exceptions.toml").read_text("utf-8")
    return {
        test: entry["reason"]
        for entry in tomllib.loads(text)["exceptions"]
        if fnmatch.fnmatchcase(suite.name, entry.get("suite", "*"))
        and version(suite.package).startswith(entry.get("version", ""))
        for test in entry["tests"]
    }


def read_suites(names: list[str]) -> list[Suite]:
    """Return the suites whose name contains one of these texts; all without a text."""
    tables = tomllib.loads((PEERS / "suites.toml").read_text("utf-8"))["suites"]
    suites = [Suite(**table) for table in tables]
    return [s for s in suites if not names or any(name in s.name for name in names)]


def main() -> None:
    """Run the suites that the arguments name, print a table and the differences."""
    CACHE.mkdir(exist_ok=True)
    width = max(len(suite.name) for suite in read_suites([]))
    print(f"{'suite':{width}}  version  " + "  ".join(COUNTS), flush=True)
    differences = []
    with tempfile.TemporaryDirectory() as folder:
        unpack(Path(folder))
        for suite in read_suites(sys.argv[1:]):
            tested = version(suite.package)
            log = CACHE / (re.sub(r"\W+", "-", suite.name) + ".log")
            outcomes = run(suite, Path(folder, f"{suite.package}-{tested}"), log)
            counts, errors = compare(outcomes, read_exceptions(suite))
            cells = "  ".join(f"{counts[name]:{len(name)}}" for name in COUNTS)
            print(f"{suite.name:{width}}  {tested:7}  {cells}", flush=True)
            differences += [f"{suite.name}: {error}" for error in errors]
    if differences:
        sys.exit("\n".join(["", *differences, "", f"the output of each suite is in {CACHE}"]))


if __name__ == "__main__":
    main()
