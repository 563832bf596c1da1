"""A plugin of pytest that writes the outcome of each test as JSON to the file in ``OUTCOMES``."""

import json
import os
from pathlib import Path

outcomes: dict[str, str] = {}


def pytest_runtest_logreport(report):
    """Record a failure of any phase, otherwise the outcome of the call."""
    if report.failed:
        outcomes[report.nodeid] = "failed"
    elif report.skipped:
        outcomes.setdefault(report.nodeid, "skipped")
    elif report.when == "call":
        outcomes.setdefault(report.nodeid, "passed")


def pytest_sessionfinish():
    """Write the file."""
    Path(os.environ["OUTCOMES"]).write_text(json.dumps(outcomes), "utf-8")
