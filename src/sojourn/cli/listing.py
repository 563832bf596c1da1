"""``sojourn list``: live sessions, page by page."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Final

import click

from sojourn.cli.arguments import Instant, Label, User
from sojourn.cli.exit_codes import ExitCode
from sojourn.cli.formatting import compact_json
from sojourn.cli.session_output import print_sessions, session_document
from sojourn.cli.target import Target, TargetCommand

if TYPE_CHECKING:
    from sojourn.sessions import SessionPage

_DEFAULT_LIMIT: Final = 50

#: Sessions of one page; the store bounds what it examines for it.
_MAX_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class _Filters:
    """What sessions are listed; None and no labels for all."""

    user: str | None
    labels: dict[str, str]
    since: datetime | None


@click.command("list", cls=TargetCommand, short_help="List live sessions.")
@click.option("--user", type=User(), help="Only sessions of this user.")
@click.option(
    "--label",
    "labels",
    type=Label(),
    multiple=True,
    metavar="NAME=VALUE",
    help="Only sessions with this label; may be repeated.",
)
@click.option(
    "--since",
    type=Instant(),
    metavar="TIME",
    help="Only sessions that were seen since: '2 hours', or '2027-01-31 18:00' in UTC.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=_DEFAULT_LIMIT,
    show_default=True,
    help="The most sessions to list.",
)
@click.option("--cursor", default="", help="Continue after a page; it printed the cursor.")
@click.option("--all", "is_all", is_flag=True, help="List every session, without a limit.")
@click.pass_obj
def list_command(
    target: Target,
    *,
    user: str | None,
    labels: tuple[tuple[str, str], ...],
    since: datetime | None,
    limit: int,
    cursor: str,
    is_all: bool,
) -> None:
    """List live sessions, ordered by ID; those of a user by their login, newest first.

    IDs are random, so the first page is a random sample. With filters, pages are read until the
    limit is reached; Ctrl-C stops. Exit code 1 if there is no session.
    """
    filters = _Filters(user, dict(labels), since)
    pages = _pages(target, filters, wanted=None if is_all else limit, cursor=cursor)
    if target.is_json:
        _print_json(pages)
    else:
        _print_text(target, pages)


def _pages(
    target: Target, filters: _Filters, *, wanted: int | None, cursor: str
) -> Iterator[SessionPage]:
    """Yield pages until so many sessions are found, or until the end."""
    sessions, left = target.sessions, wanted
    while True:
        limit = _MAX_PAGE if left is None else min(left, _MAX_PAGE)
        try:
            page = target.run(
                sessions.alist_page(
                    cursor,
                    limit,
                    user=filters.user,
                    labels=filters.labels,
                    since=filters.since,
                )
            )
        except ValueError as error:
            raise click.UsageError(f"--cursor: {error}") from error
        yield page
        cursor = page.cursor
        if left is not None:
            left -= len(page.sessions)
        if not cursor or (left is not None and left <= 0):
            return


def _print_json(pages: Iterator[SessionPage]) -> None:
    """Print one document, a session on each line, as the pages arrive."""
    first = next(pages)  # an error of the store leaves the output empty
    page, count, examined, unreadable = first, 0, 0, 0
    click.echo('{"sessions": [', nl=False)
    for page in chain([first], pages):
        for info in page.sessions:
            click.echo(
                ("," if count else "") + "\n  " + compact_json(session_document(info)), nl=False
            )
            count += 1
        examined += page.examined
        unreadable += page.unreadable
    tail = {"cursor": page.cursor, "examined": examined, "unreadable": unreadable}
    click.echo("\n], " + compact_json(tail)[1:])
    if not count:
        click.get_current_context().exit(ExitCode.NOT_FOUND)


def _clear_note() -> None:
    """Remove the number of examined sessions from the line of the terminal."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)


def _print_text(target: Target, pages: Iterator[SessionPage]) -> None:
    count, examined, unreadable, cursor = 0, 0, 0, ""
    try:
        for page in pages:
            _clear_note()
            if page.sessions:
                print_sessions(target, page.sessions, header=not count)
            count += len(page.sessions)
            examined += page.examined
            unreadable += page.unreadable
            cursor = page.cursor
            if sys.stderr.isatty() and not page.sessions:
                click.echo(f"{examined:,} sessions examined", err=True, nl=False)
    except KeyboardInterrupt:
        if cursor:
            click.echo(f"\nTo continue: --cursor {cursor}", err=True)
        raise
    _clear_note()
    if unreadable:
        click.echo(f"{unreadable:,} records are damaged or of a newer format", err=True)
    if cursor:
        click.echo(f"More sessions follow: --cursor {cursor}", err=True)
    if not count:
        click.echo("No session was found.", err=True)
        click.get_current_context().exit(ExitCode.NOT_FOUND)
