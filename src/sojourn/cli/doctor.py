"""The command ``doctor``: examines an installation and says what to do."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click
import msgspec

from sojourn.cli.arguments import FiniteRange
from sojourn.cli.exit_codes import ExitCode
from sojourn.cli.formatting import print_json, printable_message
from sojourn.cli.target import (
    DEFAULT_REALM,
    Target,
    TargetCommand,
    message_without_secret,
)
from sojourn.errors import ConfigurationError, StoreError

if TYPE_CHECKING:
    from rich.console import Console

    from sojourn.cli.doctor_checks import Finding, Report

_STYLES: Final = {"error": "bold red", "warning": "yellow", "info": "cyan"}
_STATES: Final = {"ok": "green", "findings": "yellow", "skipped": "dim"}


@click.command("doctor", cls=TargetCommand)
@click.option("--strict", is_flag=True, help="Fail if there are warnings, too.")
@click.option(
    "--ignore",
    "ignored",
    metavar="CODE",
    multiple=True,
    help="Leave out findings with this code; may be given several times.",
)
@click.option(
    "--url",
    "public_url",
    metavar="URL",
    callback=lambda _ctx, _param, value: _check_public_url(value),
    help="The public address of a page that uses the session, to check proxy and cookie.",
)
@click.option(
    "--round-trips",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="How often the round trip is measured.",
)
@click.option(
    "--timeout",
    type=FiniteRange(0.1, 60),
    default=2.0,
    show_default=True,
    help="Seconds that a call of the store may take; with --app its store_timeout.",
)
@click.pass_context
def doctor(
    ctx: click.Context,
    *,
    strict: bool,
    ignored: tuple[str, ...],
    public_url: str | None,
    round_trips: int,
    timeout: float,
) -> None:
    """Examine the installation and say what to do.

    Changes nothing, except that one record is created and deleted. Exit codes: 0 no errors, 1
    problems, 2 wrong options, 3 the store cannot be reached.
    """
    target = ctx.ensure_object(Target)
    _check_codes(ignored)
    report = _ignore_codes(
        _examine(target, public_url=public_url, round_trips=round_trips, timeout=timeout), ignored
    )
    if target.is_json:
        print_json(msgspec.to_builtins(report))
    else:
        print_report(report, target.console)
    ctx.exit(exit_code(report, strict=strict))


def exit_code(report: Report, *, strict: bool = False) -> ExitCode:
    """Return the exit code of the command."""
    from sojourn.cli.doctor_checks import Severity

    codes = {finding.code for finding in report.findings}
    if "store-unreachable" in codes:
        return ExitCode.STORE_UNAVAILABLE
    if report.count(Severity.ERROR) or (strict and report.count(Severity.WARNING)):
        return ExitCode.NOT_FOUND
    return ExitCode.OK


def _check_public_url(url: str | None) -> str | None:
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # may quote a password
        is_valid = False
    if not is_valid or "@" in url.partition("?")[0]:
        raise click.BadParameter(
            "expected the address of a page without user and password, such as "
            "https://shop.example/account",
            param_hint="--url",
        )
    return url


def _check_codes(ignored: tuple[str, ...]) -> None:
    if not ignored:
        return
    from sojourn.cli.doctor_checks import problems

    try:
        known = {problem.code for problem in problems()}
    except ImportError:  # a client library of another store is not installed
        return
    for code in ignored:
        if code not in known:
            raise click.BadParameter(
                f"{code!r} is no code of a finding; docs/doctor.md lists them",
                param_hint="--ignore",
            )


def _ignore_codes(report: Report, ignored: tuple[str, ...]) -> Report:
    kept = tuple(finding for finding in report.findings if finding.code not in ignored)
    return msgspec.structs.replace(report, findings=kept)


def _examine(target: Target, *, public_url: str | None, round_trips: int, timeout: float) -> Report:
    from sojourn.cli.doctor_checks import CheckContext, examine

    if target.is_of_application:
        try:
            sessions = target.installation
        except (ConfigurationError, StoreError) as error:
            refused = _refused(error)
            if refused is None:
                raise
            return _report_of(target, refused)
        context = CheckContext(
            store=sessions.store,
            config=sessions.config,
            realm=sessions.config.realm,
            timeout=sessions.config.core.store_timeout,
            public_url=public_url,
            round_trips=round_trips,
        )
    else:
        context = CheckContext(
            url=target.effective_url,
            realm=target.realm or DEFAULT_REALM,
            secret_file=target.secret_file,
            secret_text=os.environ.get("SOJOURN_SECRET") or None,
            timeout=timeout,
            public_url=public_url,
            round_trips=round_trips,
        )
    with closing(context):
        return examine(context)


def _refused(error: Exception) -> Finding | None:
    """Return the finding for an application that sojourn has refused; None for another error."""
    from sojourn.cli.doctor_checks import connection, options, secret, sqlite

    cause = error.__cause__ if isinstance(error, ConfigurationError) else error
    if isinstance(cause, StoreError):
        problem = sqlite.problem_of(cause.__cause__) or connection.FAILING
        return problem.finding(str(cause))
    if not isinstance(cause, ConfigurationError):
        return None
    text = message_without_secret(cause)
    is_weak = "an attacker could forge sessions" in text
    return (secret.WEAK if is_weak else options.REFUSED).finding(text)


def _report_of(target: Target, finding: Finding) -> Report:
    from sojourn.cli.doctor_checks import CheckResult, Report

    name = target.app_name or "the application"
    checks = (CheckResult("application", "findings"),)
    return Report(f"the store of {name}", "", "", False, None, checks, (finding,))


def print_report(report: Report, console: Console) -> None:
    """Print a report for people."""
    from rich.text import Text

    head = f"{report.store}, realm {report.realm}" if report.realm else report.store
    console.print(Text(printable_message(head), style="bold"))
    facts = [report.server] if report.server else []
    if report.round_trip is not None:
        times = report.round_trip
        facts.append(
            f"round trip {times.median:.2f} ms (median of {times.calls}, "
            f"fastest {times.minimum:.2f} ms)"
        )
    if facts:
        console.print(Text(printable_message(", ".join(facts))))
    console.print()
    _print_rows(_rows(report), console)
    for finding in report.findings:
        _print_finding(finding, console)
    console.print()
    console.print(_summary(report))


def _rows(report: Report) -> list[tuple[str, str, str]]:
    """Return state, names and style of the checks: a row for each state and reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for check in report.checks:
        groups.setdefault((check.state, check.reason), []).append(check.name)
    return [
        (state, f"{', '.join(names)}{f' ({reason})' if reason else ''}", _STATES[state])
        for (state, reason), names in groups.items()
    ]


def _print_finding(finding: Finding, console: Console) -> None:
    from rich.text import Text

    console.print()
    severity = finding.severity.value
    console.print(Text.assemble((severity.upper(), _STYLES[severity]), "  ", finding.code))
    rows = (("found", finding.found), ("expected", finding.expected), ("to do", finding.remedy))
    _print_rows([(f"  {name}", text, "dim") for name, text in rows], console)


def _print_rows(rows: list[tuple[str, str, str]], console: Console) -> None:
    """Print a column of names and a column of texts, which wraps on a terminal."""
    from rich.text import Text

    for name, text, style in rows:
        indent = max(len(each) for each, _, _ in rows) + 2
        lines = Text(printable_message(text)).wrap(console, max(console.width - indent, 20))
        for number, line in enumerate(lines):
            head = Text(name.ljust(indent) if number == 0 else " " * indent, style=style)
            line.rstrip()
            console.print(head + line, soft_wrap=True)


def _summary(report: Report) -> str:
    from sojourn.cli.doctor_checks import Severity

    parts = []
    for severity, one, many in (
        (Severity.ERROR, "error", "errors"),
        (Severity.WARNING, "warning", "warnings"),
    ):
        count = report.count(severity)
        parts.append(f"{count} {one if count == 1 else many}")
    skipped = sum(check.state == "skipped" for check in report.checks)
    if skipped:
        parts.append(f"{skipped} checks skipped")
    return ", ".join(parts)
