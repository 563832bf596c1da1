"""Runs the tests of all frameworks and writes docs/frameworks/tested.md from their results.

python -m tools.framework_table [--render-only] [arguments of pytest]

The results of each Python are kept in framework_table.json, so that the page shows all of them.
"""

import json
import platform
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from tools import citations

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "frameworks" / "tested.md"
RESULTS: Final = Path(__file__).with_suffix(".json")

#: The distribution of each framework, by the name that test classes have.
DISTRIBUTIONS: Final = {
    "Starlette": "starlette",
    "FastAPI": "fastapi",
    "Django": "django",
    "Flask": "flask",
    "Litestar": "litestar",
    "Aiohttp": "aiohttp",
    "Quart": "quart",
    "Sanic": "sanic",
    "Tornado": "tornado",
    "Pyramid": "pyramid",
    "Falcon": "falcon",
    "Bottle": "bottle",
    "BlackSheep": "blacksheep",
    "CherryPy": "cherrypy",
    "Connexion": "connexion",
    "Lilya": "lilya",
}
STORES: Final = ("memory", "SQLite", "Valkey")
LAWS: Final = sorted((law for law in citations.LAWS if law[0] == "A"), key=lambda law: int(law[1:]))

_RUN = """
import json, pathlib, sys, pytest

class Recorder:
    def __init__(self):
        self.found = {}
    def pytest_collection_finish(self, session):
        self.docs = {item.nodeid: getattr(item.function, "__doc__", None) or ""
                     for item in session.items if hasattr(item, "function")}
    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            reason = report.longrepr[2] if report.outcome == "skipped" else ""
            self.found[report.nodeid] = [report.outcome, reason]
    def pytest_sessionfinish(self, session):
        rows = [[name, *result, self.docs.get(name, "")] for name, result in self.found.items()]
        pathlib.Path(sys.argv[1]).write_text(json.dumps(rows))

sys.exit(pytest.main(["-q", "-p", "no:randomly", *sys.argv[2:]], plugins=[Recorder()]))
"""

_SUITE = re.compile(r"::Test(\w+?)(?:Over(SQLite|Valkey))?::")
_SERVED = re.compile(r"test_servers\.py::TestServed::\w+\[(\w+)-([\w-]+)-(memory|sqlite|valkey)\]")


def run(arguments: Iterable[str]) -> dict[str, Any]:
    """Run the tests and return what the page needs of their results.

    Raises:
        SystemExit: a test failed.
    """
    file = ROOT / ".framework_table.run"
    tests = ["tests/contract/test_applications.py", "tests/frameworks"]
    try:
        answer = subprocess.run(  # noqa: S603 - runs this repository's tests
            [sys.executable, "-c", _RUN, str(file), *(list(arguments) or tests)],
            cwd=ROOT,
            check=False,
        )
        rows = json.loads(file.read_text("utf-8"))
    finally:
        file.unlink(missing_ok=True)
    if answer.returncode != 0:
        raise SystemExit("a test failed: nothing was written")
    return summary(rows)


def summary(rows: Iterable[tuple[str, str, str, str]]) -> dict[str, Any]:
    """Return the number of passed tests by suite, store and law, and by server.

    Args:
        rows: node ID, outcome, reason of a skip, docstring.
    """
    laws: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    skipped: dict[str, dict[str, str]] = defaultdict(dict)
    servers: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for name, outcome, reason, doc in rows:
        served = _SERVED.search(name)
        if served is not None:
            framework, server, store = served.groups()
            servers[framework][server][store] += outcome == "passed"
            continue
        suite = _SUITE.search(name)
        if suite is None:
            continue
        framework, store = suite.group(1), suite.group(2) or "memory"
        for law in set(citations.laws(doc)) & set(LAWS):
            laws[framework][store][law] += outcome == "passed"
            if outcome == "skipped":
                skipped[framework].setdefault(law, reason.removeprefix("Skipped: "))
    return {
        "versions": versions(),
        "laws": laws,
        "skipped": skipped,
        "servers": servers,
    }


def versions() -> dict[str, str]:
    """Return the installed version of each framework."""
    found = {}
    for title, distribution in DISTRIBUTIONS.items():
        try:
            found[title] = version(distribution)
        except PackageNotFoundError:
            continue
    return found


def page(results: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        results: of each Python, by its version.
    """
    return "\n".join(
        [
            "# What is tested",
            "",
            "Written by `python -m tools.framework_table` from the results of the tests.",
            "",
            "## Versions",
            "",
            *_version_table(results),
            "",
            "## Laws of requests",
            "",
            "The number of passed tests for each [law](../laws.md#requests), over the memory",
            "store, SQLite and Valkey together. A suite with another name than its framework is a",
            "variant, such as an application with middleware.",
            "",
            *_law_table(results),
            "",
            "## Servers and stores",
            "",
            "The number of passed black-box tests through a real server, over the memory store,",
            "SQLite and Valkey.",
            "",
            *_server_table(results),
            "",
        ]
    )


def _version_table(results: Mapping[str, Any]) -> Iterator[str]:
    pythons = sorted(results)
    yield "| framework | " + " | ".join(f"Python {python}" for python in pythons) + " |"
    yield "|---|" + "---|" * len(pythons)
    for title in DISTRIBUTIONS:
        cells = [results[python]["versions"].get(title, "-") for python in pythons]
        yield f"| {title} | " + " | ".join(cells) + " |"


def _law_table(results: Mapping[str, Any]) -> Iterator[str]:
    reasons: list[str] = []
    yield "| suite | Python | " + " | ".join(LAWS) + " |"
    yield "|---|---|" + "---|" * len(LAWS)
    for python in sorted(results):
        found = results[python]
        for suite, stores in sorted(found["laws"].items()):
            cells = []
            for law in LAWS:
                passed = sum(counts.get(law, 0) for counts in stores.values())
                reason = found["skipped"].get(suite, {}).get(law)
                if not passed and reason is None:
                    reason = "no test of the suite cites it"
                mark = ""
                if not passed and reason is not None:
                    if reason not in reasons:
                        reasons.append(reason)
                    mark = f"({reasons.index(reason) + 1})"
                cells.append(mark or str(passed))
            yield f"| {suite} | {python} | " + " | ".join(cells) + " |"
    for number, reason in enumerate(reasons, 1):
        yield ""
        yield f"({number}) {reason}"


def _server_table(results: Mapping[str, Any]) -> Iterator[str]:
    yield "| application | server | Python | memory | SQLite | Valkey |"
    yield "|---|---|---|---|---|---|"
    for python in sorted(results):
        for framework, servers in sorted(results[python]["servers"].items()):
            for server, counts in sorted(servers.items()):
                cells = [str(counts.get(store.lower(), 0)) for store in STORES]
                yield f"| {framework} | {server} | {python} | " + " | ".join(cells) + " |"


def main(arguments: list[str]) -> None:
    """Run the tests of this Python, and write the page from the results of all of them."""
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    if "--render-only" not in arguments:
        python = ".".join(platform.python_version_tuple()[:2])
        results[python] = run(arguments)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")
    PAGE.write_text(page(results), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
