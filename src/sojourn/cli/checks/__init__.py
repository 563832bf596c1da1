"""Checks of an installation, as functions; ``sojourn doctor`` prints their report."""

from __future__ import annotations

from sojourn.cli.checks.context import CheckContext
from sojourn.cli.checks.examination import CheckResult, Report, RoundTrip, examine, problems
from sojourn.cli.checks.findings import Finding, Problem, Severity

__all__ = [
    "CheckContext",
    "CheckResult",
    "Finding",
    "Problem",
    "Report",
    "RoundTrip",
    "Severity",
    "examine",
    "problems",
]
