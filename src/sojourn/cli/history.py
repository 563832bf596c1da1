"""``sojourn history``: sessions that have ended, with reason and actor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from sojourn.cli.arguments import User
from sojourn.cli.exit_codes import ExitCode
from sojourn.cli.formatting import format_instant, format_labels, iso, print_json, printable
from sojourn.cli.session_output import format_user
from sojourn.cli.target import Target, TargetCommand

if TYPE_CHECKING:
    from sojourn.sessions import EndedSession

_MAX_PAGE: Final = 1000

#: Columns of the terminal from which a table is printed.
_NARROW: Final = 100


@click.command(cls=TargetCommand, short_help="List ended sessions: when, why, by whom.")
@click.option("--user", type=User(), help="Only sessions of this user.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The most to list."
)
@click.option("--cursor", default="", help="Continue after a page; it printed the cursor.")
@click.pass_obj
def history(target: Target, *, user: str | None, limit: int, cursor: str) -> None:
    """List sessions that have ended, newest first: when, why and by whom.

    Applications write it with the option history. Exit code 1 if there is none.
    """
    ended: list[EndedSession] = []
    examined = unreadable = 0
    while True:
        wanted = min(limit - len(ended), _MAX_PAGE)
        try:
            page = target.run(target.sessions.ahistory(cursor, wanted, user=user))
        except ValueError as error:
            raise click.UsageError(f"--cursor: {error}") from error
        ended += page.sessions
        examined += page.examined
        unreadable += page.unreadable
        cursor = page.cursor
        if not cursor or len(ended) >= limit:
            break
    if target.is_json:
        print_json(
            {
                "sessions": [_document(each) for each in ended],
                "cursor": cursor,
                "examined": examined,
                "unreadable": unreadable,
            }
        )
    else:
        _print_text(target, ended, cursor, unreadable)
    if not ended:
        click.get_current_context().exit(ExitCode.NOT_FOUND)


def _document(ended: EndedSession) -> dict[str, Any]:
    return {
        "id": ended.id,
        "user": ended.user,
        "labels": dict(ended.labels),
        "created_at": iso(ended.created_at),
        "ended_at": iso(ended.ended_at),
        "reason": ended.reason,
        "actor": ended.actor,
    }


def _line(ended: EndedSession) -> list[str]:
    return [
        format_instant(ended.ended_at),
        ended.id or "every session",
        format_user(ended.user),
        printable(ended.reason),
        "-" if ended.actor is None else printable(ended.actor),
        format_labels(ended.labels),
    ]


def _print_text(target: Target, ended: list[EndedSession], cursor: str, unreadable: int) -> None:
    if not ended:
        click.echo("No ended session is known.", err=True)
    elif target.is_terminal and target.console.width >= _NARROW:
        _print_table(target, ended)
    else:
        for each in ended:
            click.echo("\t".join(_line(each)))
    if unreadable:
        click.echo(f"{unreadable:,} entries are damaged or of a newer format", err=True)
    if cursor:
        click.echo(f"More entries follow: --cursor {cursor}", err=True)


def _print_table(target: Target, ended: list[EndedSession]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, expand=True, pad_edge=False)
    table.add_column("ended (UTC)", width=19, no_wrap=True)
    table.add_column("session", width=32, no_wrap=True, style="cyan")
    for name in ("user", "reason", "actor", "labels"):
        table.add_column(name, ratio=1, overflow="fold")
    for each in ended:
        table.add_row(*map(Text, _line(each)))
    target.console.print(table)
