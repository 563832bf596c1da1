"""Checks of an installation, as functions; ``sojourn doctor`` prints their report."""

from __future__ import annotations

from sojourn.cli.doctor_checks.context import CheckContext
from sojourn.cli.doctor_checks.examination import CheckResult, Report, RoundTrip, examine, problems
from sojourn.cli.doctor_checks.findings import Finding, Problem, Severity

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
