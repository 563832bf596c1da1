"""Live sessions as a table, as lines for a pipe, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import click

from sojourn.cli.formatting import format_instant, format_labels, iso, printable

if TYPE_CHECKING:
    from rich.table import Table

    from sojourn.cli.target import Target
    from sojourn.sessions import SessionInfo

#: Columns of the terminal from which a table has one session on a line.
NARROW: Final = 76

#: Columns from which the table also has the creation and the expiry.
_WIDE: Final = 132

NO_USER: Final = "-"


def session_document(info: SessionInfo) -> dict[str, Any]:
    """Return a session for JSON."""
    return {
        "id": info.id,
        "user": info.user,
        "labels": dict(info.labels),
        "created_at": iso(info.created_at),
        "seen_at": iso(info.seen_at),
        "expires_at": iso(info.expires_at),
        "authenticated_at": iso(info.authenticated_at),
    }


def format_user(user: str | None) -> str:
    """Return a user for display."""
    return NO_USER if user is None else printable(user)


def session_fields(info: SessionInfo) -> list[tuple[str, str]]:
    """Return the names and the values of a session, for ``show``."""
    return [
        ("session", info.id),
        ("user", format_user(info.user)),
        ("labels", format_labels(info.labels) or "-"),
        ("created", format_instant(info.created_at)),
        ("last seen", format_instant(info.seen_at)),
        ("expires", format_instant(info.expires_at)),
        ("last login", format_instant(info.authenticated_at)),
    ]


def print_sessions(target: Target, sessions: Iterable[SessionInfo], *, header: bool) -> None:
    """Print sessions: as a table on a terminal; otherwise one on a line, separated by tabs.

    Args:
        target: whose console is used.
        sessions: one page.
        header: whether to print the names of the columns.
    """
    if not target.is_terminal:
        for info in sessions:
            click.echo("\t".join(_line(info)))
        return
    console = target.console
    if console.width < NARROW:
        for info in sessions:
            print_fields(target, session_fields(info))
            click.echo()
        return
    console.print(_table(sessions, header=header, wide=console.width >= _WIDE))


def print_fields(target: Target, fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair on a line. The values are escaped already."""
    from rich.text import Text

    rows = list(fields)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        line = Text.assemble((name.ljust(width), "bold"), "  ", value)
        target.console.print(line, soft_wrap=True)


def _line(info: SessionInfo) -> list[str]:
    return [
        info.id,
        format_user(info.user),
        format_instant(info.created_at),
        format_instant(info.seen_at),
        format_instant(info.expires_at),
        format_labels(info.labels),
    ]


def _table(sessions: Iterable[SessionInfo], *, header: bool, wide: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=header, expand=True, pad_edge=False)
    table.add_column("session", width=32, no_wrap=True, style="cyan")
    table.add_column("user", ratio=1, overflow="fold", min_width=8)
    if wide:
        table.add_column("created (UTC)", width=19, no_wrap=True)
    table.add_column("last seen (UTC)", width=19, no_wrap=True)
    if wide:
        table.add_column("expires (UTC)", width=19, no_wrap=True)
    table.add_column("labels", ratio=2, overflow="fold")
    for info in sessions:
        session_id, user, created, seen, expires, labels = map(Text, _line(info))
        row = (
            [session_id, user, created, seen, expires, labels]
            if wide
            else [session_id, user, seen, labels]
        )
        table.add_row(*row)
    return table
