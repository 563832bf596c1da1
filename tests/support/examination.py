"""Examinations by the doctor, and assertions about their findings."""

from contextlib import closing
from typing import Any

from sojourn.cli.doctor_checks import CheckContext, Finding, Report, Severity, examine

SECRET = "of-the-application-8Ld2vXq7NpR4"


def examined(url: str | None = None, **options: Any) -> Report:
    """Return the report on an installation."""
    options = {"secret_text": SECRET, "round_trips": 2, **options}
    with closing(CheckContext(url=url, **options)) as context:
        return examine(context)


def codes(report: Report) -> set[str]:
    """Return the codes of all findings."""
    return {finding.code for finding in report.findings}


def found(report: Report, code: str, *words: str) -> Finding:
    """Return the only finding with a code; assert that its text contains the given words.

    Args:
        report: of an examination.
        code: of the finding.
        words: expected parts of its text.
    """
    matching = [finding for finding in report.findings if finding.code == code]
    assert len(matching) == 1, f"{code} in {[(each.code, each.found) for each in report.findings]}"
    (finding,) = matching
    text = f"{finding.found}\n{finding.expected}\n{finding.remedy}"
    for word in words:
        assert word in text, text
    return finding


def assert_healthy(report: Report) -> None:
    """Assert that an installation was examined completely, without errors and warnings."""
    # A machine that runs many tests is slow.
    serious = [
        each
        for each in report.findings
        if each.severity is not Severity.INFO and each.code != "store-slow"
    ]
    assert not serious, serious
    assert [each for each in report.checks if each.state == "skipped"] == []
    assert report.reached
    assert report.round_trip is not None
