"""Run the frameworks' own session tests with sojourn in place; ``make test-peers`` calls it.

Each suite is in ``tests/peers/suites.toml``. The sources are the released sdists that
``tests/peers/requirements.txt`` pins. A test that has to fail is listed with its reason in the
``exceptions.toml`` of its framework; a listed test that passes, or does not exist, is an error.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
PEERS = REPOSITORY / "tests" / "peers"
CACHE = Path(sys.prefix) / "peers"


@dataclass
class Suite:
    """One run of tests of an sdist.

    Attributes:
        name: shown in the table.
        package: whose sdist has the tests; also the folder of the adapter in ``tests/peers``.
        command: arguments for Python.
        environ: variables to add.
    """

    name: str
    package: str
    command: list[str]
    environ: dict[str, str] = field(default_factory=dict)


@dataclass
class Result:
    """The outcomes of a suite, compared with its exceptions.

    Attributes:
        counts: tests by what they count as: "passed", "excepted", "skipped", "failed".
        errors: one line for each difference.
    """

    counts: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)


def sources() -> dict[str, Path]:
    """Download and unpack the sdists; return the folder of each package.

    pip verifies the hashes, also those of files that are downloaded already.

    Raises:
        SystemExit: the installed version is not the one of the tests.
    """
    pins = PEERS / "requirements.txt"
    names = re.findall(r"^([\w-]+)==", pins.read_text("utf-8"), re.MULTILINE)
    CACHE.mkdir(exist_ok=True)
    wanted = {name: importlib.metadata.version(name) for name in names}
    missing = [name for name, version in wanted.items() if not _unpacked(name, version).exists()]
    if missing:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--no-binary", ",".join(wanted), "--dest", str(CACHE)]
        command += ["--requirement", str(pins)]
        subprocess.run(command, check=True)  # noqa: S603 - pip, with arguments of this file
    for name in missing:
        archive = CACHE / f"{name}-{wanted[name]}.tar.gz"
        if not archive.exists():
            sys.exit(
                f"{name} {wanted[name]} is installed, and {pins} pins another version: its tests "
                "must be those of the installed version"
            )
        with tempfile.TemporaryDirectory(dir=CACHE) as folder, tarfile.open(archive) as sdist:
            sdist.extractall(folder, filter="data")
            (Path(folder) / archive.name.removesuffix(".tar.gz")).rename(
                _unpacked(name, wanted[name])
            )
    return {name: _unpacked(name, version) for name, version in wanted.items()}


def _unpacked(name: str, version: str) -> Path:
    return CACHE / f"{name}-{version}"


def run(suite: Suite, source: Path) -> dict[str, str]:
    """Run a suite; return the outcome of each test: "passed", "failed" or "skipped"."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Path(folder) / "outcomes.json"
        log = CACHE / (re.sub(r"\W+", "-", suite.name) + ".log")
        paths = (PEERS / suite.package, PEERS, source)
        environ = {
            **{name: value for name, value in os.environ.items() if "SOJOURN" not in name},
            **suite.environ,
            "OUTCOMES": str(outcomes),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
        }
        with log.open("wb") as output:
            subprocess.run(  # noqa: S603 - a command of suites.toml
                [sys.executable, *suite.command],
                cwd=source,
                env=environ,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,  # the outcomes tell
            )
        if not outcomes.exists():
            return {f"(did not run, see {log})": "failed"}
        found: dict[str, str] = json.loads(outcomes.read_text("utf-8"))
        return found


def compare(suite: Suite, outcomes: dict[str, str], exceptions: dict[str, str]) -> Result:
    """Compare outcomes with the exceptions.

    Args:
        suite: that was run.
        outcomes: of each test.
        exceptions: the reason of each test that has to fail; the keys are patterns.
    """
    result = Result()
    for test, outcome in outcomes.items():
        excepted = any(fnmatch.fnmatchcase(test, pattern) for pattern in exceptions)
        match outcome, excepted:
            case "failed", True:
                result.counts["excepted"] += 1
            case "passed", True:
                result.errors.append(f"{suite.name}: passes, so it is no exception: {test}")
            case _:
                result.counts[outcome] += 1
                if outcome == "failed":
                    result.errors.append(f"{suite.name}: fails: {test}")
    result.errors += [
        f"{suite.name}: an exception names no test: {pattern}"
        for pattern in exceptions
        if not any(fnmatch.fnmatchcase(test, pattern) for test in outcomes)
    ]
    if not outcomes:
        result.errors.append(f"{suite.name}: has no tests")
    return result


def read_exceptions(suite: Suite) -> dict[str, str]:
    """Return the exceptions of a suite: a pattern of test names, and the reason."""
    path = PEERS / suite.package / "exceptions.toml"
    entries = tomllib.loads(path.read_text("utf-8")).get("exceptions", []) if path.exists() else []
    version = importlib.metadata.version(suite.package)
    found = {}
    for entry in entries:
        if not entry["reason"].strip():
            sys.exit(f"{path}: an exception without a reason: {entry['tests']}")
        applies = fnmatch.fnmatchcase(suite.name, entry.get("suite", "*"))
        if applies and version.startswith(entry.get("version", "")):
            found |= dict.fromkeys(entry["tests"], entry["reason"])
    return found


def read_suites(names: list[str]) -> list[Suite]:
    """Return the suites whose name contains one of these texts; all without a text."""
    tables = tomllib.loads((PEERS / "suites.toml").read_text("utf-8"))["suites"]
    suites = [Suite(**table) for table in tables]
    return [s for s in suites if not names or any(name in s.name for name in names)]


def main() -> None:
    """Run the suites that the arguments name, print a table and the differences."""
    folders = sources()
    width = max(len(suite.name) for suite in read_suites([]))
    titles = ("passed", "excepted", "skipped", "failed")
    print(f"{'suite':{width}}  version  " + "  ".join(titles), flush=True)
    errors = []
    for suite in read_suites(sys.argv[1:]):
        outcomes = run(suite, folders[suite.package])
        result = compare(suite, outcomes, read_exceptions(suite))
        cells = "  ".join(f"{result.counts[title]:{len(title)}}" for title in titles)
        version = importlib.metadata.version(suite.package)
        print(f"{suite.name:{width}}  {version:7}  {cells}", flush=True)
        errors += result.errors
    if errors:
        sys.exit("\n".join(["", *errors, "", f"the output of each suite is in {CACHE}"]))


if __name__ == "__main__":
    main()
