"""``sojourn top``: a live view of the numbers and of the sessions that were seen last."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from sojourn._core.clock import to_datetime
from sojourn.cli.arguments import FiniteRange
from sojourn.cli.exit_codes import failure_of
from sojourn.cli.formatting import format_instant, format_labels, format_number, iso, print_json
from sojourn.cli.sample import Sample, extrapolate, take_sample
from sojourn.cli.session_output import NARROW, format_user
from sojourn.cli.target import Target, TargetCommand
from sojourn.errors import StoreError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sojourn.record import Record

_DEFAULT_SAMPLE: Final = 2_000

#: Sessions that a snapshot names.
_RECENT: Final = 10

#: Calls whose fastest one is shown.
_ROUND_TRIPS: Final = 5

#: Columns of the terminal from which the table of sessions has labels.
_WIDE: Final = 100


@click.command(cls=TargetCommand, short_help="Watch numbers and activity.")
@click.option(
    "--interval",
    type=FiniteRange(min=0.1, max=3600),
    default=2.0,
    show_default=True,
    help="Seconds between two snapshots.",
)
@click.option(
    "--sample",
    "limit",
    type=click.IntRange(min=1),
    default=_DEFAULT_SAMPLE,
    show_default=True,
    help="Records that a snapshot reads; with more in the store, numbers are estimates (~).",
)
@click.option("--once", is_flag=True, help="Print one snapshot, as in a pipe.")
@click.pass_obj
def top(target: Target, *, interval: float, limit: int, once: bool) -> None:
    """Show live sessions, activity, new sessions and logins a minute; Ctrl-C ends it.

    The numbers are those of the store: they cover the processes of all machines. With --json, one
    snapshot.
    """
    if target.is_json:
        print_json(_snapshot(target, limit))
    elif once or not target.is_terminal or target.console.is_dumb_terminal:
        target.console.print(_render(target, _snapshot(target, limit)))
    else:
        _watch(target, interval, limit)


def _watch(target: Target, interval: float, limit: int) -> None:
    """Show snapshots until Ctrl-C; an outage of the store is shown, too."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    view: RenderableType = _render(target, _snapshot(target, limit))
    try:
        with Live(view, console=target.console, screen=True, auto_refresh=False) as live:
            while True:
                live.refresh()
                time.sleep(interval)  # the interval between two snapshots that the user chose
                try:
                    view = _render(target, _snapshot(target, limit))
                    live.update(view)
                except StoreError as error:
                    live.update(Group(Text(failure_of(error).message, "bold red"), view))
    except KeyboardInterrupt:
        return


def _snapshot(target: Target, limit: int) -> dict[str, Any]:
    sessions = target.sessions
    # The first calls open connections and prepare statements: PostgreSQL needs 10 ms for it.
    round_trip = min(target.run(sessions.aping()) for _ in range(_ROUND_TRIPS))
    sample = target.run(take_sample(sessions, limit))
    live, factor = target.run(extrapolate(sessions, sample))
    return {
        "at": iso(to_datetime(sample.now)),
        "store": target.store_url,
        "round_trip_ms": round(round_trip * 1000, 3),
        "live": live,
        "logged_in": round(sample.logged_in * factor),
        "anonymous": round(sample.anonymous * factor),
        "seen_within_minutes": {
            str(minutes): round(found * factor) for minutes, found in sample.seen.items()
        },
        "created_per_minute": round(sample.created * factor),
        "logins_per_minute": round(sample.logins * factor),
        "estimated": not sample.is_complete,
        "examined": sample.examined,
        "recent": _recent(sample),
    }


def _recent(sample: Sample) -> list[dict[str, Any]]:
    """Return the sessions of the sample that were seen last."""
    newest = sorted(sample.live_records, key=_seen_at, reverse=True)[:_RECENT]
    return [_recent_document(record) for record in newest]


def _seen_at(record: Record) -> int:
    return record.seen_at


def _recent_document(record: Record) -> dict[str, Any]:
    metadata = record.metadata()
    return {
        "id": record.session_id,
        "user": metadata.user,
        "labels": metadata.labels,
        "seen_at": iso(to_datetime(record.seen_at)),
    }


def _render(target: Target, snapshot: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    estimated: bool = snapshot["estimated"]

    def number(value: float) -> str:
        return format_number(value, estimated=estimated)

    at = format_instant(datetime.fromisoformat(snapshot["at"]))
    head = Text.assemble((snapshot["store"], "bold"), f"  {at} UTC")
    seen = snapshot["seen_within_minutes"]
    numbers = Table(box=None, show_header=False, pad_edge=False)
    numbers.add_column(style="bold")
    numbers.add_column()
    for name, text in (
        ("live sessions", number(snapshot["live"])),
        ("logged in", number(snapshot["logged_in"])),
        ("anonymous", number(snapshot["anonymous"])),
        ("seen within 1 / 5 / 60 min", " / ".join(number(each) for each in seen.values())),
        ("new sessions a minute", number(snapshot["created_per_minute"])),
        ("logins a minute", number(snapshot["logins_per_minute"])),
        ("round trip", f"{snapshot['round_trip_ms']:.2f} ms"),
    ):
        numbers.add_row(name, Text(text))
    parts: list[RenderableType] = [head, Text(), numbers, Text()]
    if estimated:
        parts.append(Text(f"~ estimated from {format_number(snapshot['examined'])} records"))
    return Group(*parts, _render_recent(target, snapshot["recent"]))


def _render_recent(target: Target, recent: list[dict[str, Any]]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    if target.console.width < NARROW:  # an ID is copied into the next command: it is never cut
        lines = [
            (format_instant(datetime.fromisoformat(each["seen_at"])), each["id"], each["user"])
            for each in recent
        ]
        return Group(*(Text(f"{seen}  {format_user(user)}\n{name}") for seen, name, user in lines))
    is_wide = target.console.width >= _WIDE
    table = Table(box=None, pad_edge=False)
    table.add_column("seen last (UTC)", no_wrap=True)
    table.add_column("session", no_wrap=True, style="cyan")
    table.add_column("user", overflow="fold")
    if is_wide:
        table.add_column("labels", overflow="fold")
    for each in recent:
        row = [
            format_instant(datetime.fromisoformat(each["seen_at"])),
            each["id"],
            format_user(each["user"]),
        ]
        if is_wide:
            row.append(format_labels(each["labels"]))
        table.add_row(*map(Text, row))
    return table
