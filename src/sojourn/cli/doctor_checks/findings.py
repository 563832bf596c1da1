"""Problem and Finding: what the checks look for, and what they have found."""

from __future__ import annotations

import enum

import msgspec


class Severity(enum.StrEnum):
    """How much a finding matters."""

    ERROR = "error"
    """Sessions fail, are lost, or can be stolen."""

    WARNING = "warning"
    """Works now; an event such as a restart or a peak of load makes it an error."""

    INFO = "info"
    """Was not examined, or is worth knowing."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that differs from what was expected. It contains no secret.

    Attributes:
        code: of the problem, such as ``valkey-eviction``; stable between releases.
        severity: of the problem.
        expected: what a healthy installation has.
        found: what this one has.
        remedy: what to do.
    """

    code: str
    severity: Severity
    expected: str
    found: str
    remedy: str


class Problem(msgspec.Struct, frozen=True):
    """A problem that a check looks for.

    Attributes:
        code: lower case with hyphens; begins with what is examined.
        severity: of its findings.
        expected: what a healthy installation has, and why.
        remedy: what to do.
    """

    code: str
    severity: Severity
    expected: str
    remedy: str

    def finding(self, found: str, *, remedy: str | None = None) -> Finding:
        """Return a finding.

        Args:
            found: what was found instead of what is expected.
            remedy: a more precise one for this case.
        """
        return Finding(self.code, self.severity, self.expected, found, remedy or self.remedy)


def error(code: str, expected: str, remedy: str) -> Problem:
    """Return a problem whose findings are errors."""
    return Problem(code, Severity.ERROR, expected, remedy)


def warning(code: str, expected: str, remedy: str) -> Problem:
    """Return a problem whose findings are warnings."""
    return Problem(code, Severity.WARNING, expected, remedy)


def info(code: str, expected: str, remedy: str) -> Problem:
    """Return a problem whose findings are for information."""
    return Problem(code, Severity.INFO, expected, remedy)
