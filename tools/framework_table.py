"""Runs the tests of all frameworks and writes docs/frameworks/tested.md from their results.

python -m tools.framework_table [--render-only] [arguments of pytest]

The results of each Python are kept in framework_table.json, so that the page shows all of them.
"""

import json
import platform
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pytest

from tools import citations, markdown

PAGE: Final = markdown.DOCS / "frameworks" / "tested.md"
RESULTS: Final = Path(__file__).with_suffix(".json")
TESTS: Final = ("tests/contract/test_applications.py", "tests/frameworks")

#: As in the names of test classes; in lower case, the names of the distributions.
FRAMEWORKS: Final = (
    *("Starlette", "FastAPI", "Django", "Flask", "Litestar", "Aiohttp", "Quart", "Sanic"),
    *("Tornado", "Pyramid", "Falcon", "Bottle", "BlackSheep", "CherryPy", "Connexion", "Lilya"),
)
STORES: Final = ("memory", "SQLite", "Valkey")
LAWS: Final = sorted((law for law in citations.LAWS if law[0] == "A"), key=lambda law: int(law[1:]))
#: Classes that test fewer laws are about one part of a framework; they have no row.
LEAST_LAWS: Final = 12

_SUITE = re.compile(r"::Test(\w+?)(?:Over(?:SQLite|Valkey|Postgres))?::")
_SERVED = re.compile(r"test_servers\.py::TestServed::\w+\[(\w+)-([\w-]+)-(memory|sqlite|valkey)\]")


class Recorder:
    """A plugin of pytest.

    Attributes:
        results: each test with the report of its call, or of a phase that failed or was skipped.
    """

    def __init__(self) -> None:
        self.results: list[tuple[pytest.Item, pytest.TestReport]] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Keep a report."""
        report = yield
        if report.when == "call" or not report.passed:
            self.results.append((item, report))
        return report


def run(arguments: Iterable[str]) -> dict[str, Any]:
    """Run the tests; return the number of passed tests by suite and law, and by server.

    Raises:
        SystemExit: a test failed.
    """
    recorder = Recorder()
    if pytest.main(["-q", "-p", "no:randomly", *(arguments or TESTS)], plugins=[recorder]):
        raise SystemExit("a test failed: nothing was written")
    laws: dict[str, Counter[str]] = defaultdict(Counter)
    skipped: dict[str, dict[str, str]] = defaultdict(dict)
    servers: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for item, report in recorder.results:
        if served := _SERVED.search(item.nodeid):
            framework, server, store = served.groups()
            servers[framework][server][store] += report.passed
        elif suite := _SUITE.search(item.nodeid):
            for law in set(citations.laws(citations.docstring(item))) & set(LAWS):
                laws[suite[1]][law] += report.passed
                if report.skipped:
                    reason = report.longrepr[2].removeprefix("Skipped: ")
                    skipped[suite[1]].setdefault(law, reason)
    versions = {framework: version(framework) for framework in FRAMEWORKS}
    return {"versions": versions, "laws": laws, "skipped": skipped, "servers": servers}


def page(text: str, results: Mapping[str, Any]) -> str:
    """Return the page with other tables; the results are those of each Python."""
    for name, block in (
        ("versions", version_table(results)),
        ("laws", law_table(results)),
        ("servers", server_table(results)),
    ):
        begin = f"<!-- {name}: written by tools/framework_table.py -->"
        text = markdown.replace(text, begin, f"<!-- /{name} -->", block)
    return text


def version_table(results: Mapping[str, Any]) -> str:
    """Return the versions of each framework."""
    pythons = sorted(results)
    rows = (
        (name, *(results[python]["versions"].get(name, "-") for python in pythons))
        for name in FRAMEWORKS
    )
    return markdown.table(("framework", *(f"Python {python}" for python in pythons)), rows)


def law_table(results: Mapping[str, Any]) -> str:
    """Return the number of tests of each law; below it, why there are none."""
    reasons: dict[str, int] = {}
    rows = []
    for python, found in sorted(results.items()):
        for suite, counts in sorted(found["laws"].items()):
            if len(counts) < LEAST_LAWS:
                continue
            cells = [suite, python]
            for law in LAWS:
                if counts.get(law):
                    cells.append(str(counts[law]))
                    continue
                skipped = found["skipped"].get(suite, {})
                reason = skipped.get(law, "no test of the suite cites it")
                cells.append(f"({reasons.setdefault(reason, len(reasons) + 1)})")
            rows.append(cells)
    notes = (f"\n\n({number}) {reason}" for reason, number in reasons.items())
    return markdown.table(("suite", "Python", *LAWS), rows) + "".join(notes)


def server_table(results: Mapping[str, Any]) -> str:
    """Return the number of tests of each application and server."""
    rows = (
        (framework, server, python, *(str(counts.get(store.lower(), 0)) for store in STORES))
        for python, found in sorted(results.items())
        for framework, servers in sorted(found["servers"].items())
        for server, counts in sorted(servers.items())
    )
    return markdown.table(("application", "server", "Python", *STORES), rows)


def main(arguments: list[str]) -> None:
    """Run the tests of this Python, and write the page from the results of all of them."""
    results = json.loads(RESULTS.read_text("utf-8"))
    if "--render-only" not in arguments:
        results[".".join(platform.python_version_tuple()[:2])] = run(arguments)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")
    PAGE.write_text(page(PAGE.read_text("utf-8"), results), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
