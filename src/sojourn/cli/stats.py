"""``sojourn stats``: records by state, and their sizes."""

from __future__ import annotations

import statistics
from typing import Any, Final

import click

from sojourn.cli.formatting import format_bytes, format_number, print_json
from sojourn.cli.sample import Sample, extrapolate, take_sample
from sojourn.cli.session_output import print_fields
from sojourn.cli.target import Target, TargetCommand

_DEFAULT_SAMPLE: Final = 10_000


@click.command(cls=TargetCommand, short_help="Print numbers by state, and sizes.")
@click.option(
    "--sample",
    "limit",
    type=click.IntRange(min=1),
    default=_DEFAULT_SAMPLE,
    show_default=True,
    help="The most records to read; with more in the store, the numbers are estimates (~).",
)
@click.pass_obj
def stats(target: Target, *, limit: int) -> None:
    """Print the number of records by state, and their sizes.

    IDs are random and records are read in their order: the first ones are a random sample.
    """
    sessions = target.sessions
    sample = target.run(take_sample(sessions, limit))
    live, factor = target.run(extrapolate(sessions, sample))
    document = _document(sample, live, factor)
    if target.is_json:
        print_json(document)
    else:
        _print_text(target, document)


def _document(sample: Sample, live: int, factor: float) -> dict[str, Any]:
    sizes = sorted(sample.sizes) or [0]

    def total(number: float) -> int:
        return round(number * factor)

    return {
        "live": live,
        "logged_in": total(sample.logged_in),
        "anonymous": total(sample.anonymous),
        "expired": total(sample.expired),
        "tombstones": total(sample.tombstones),
        "unreadable": total(sample.unreadable),
        "bytes": {
            "total": total(sum(sizes)),
            "median": round(statistics.median(sizes)),
            "p99": sizes[(len(sizes) - 1) * 99 // 100],
            "max": sizes[-1],
        },
        "estimated": not sample.is_complete,
        "examined": sample.examined,
    }


def _print_text(target: Target, document: dict[str, Any]) -> None:
    estimated: bool = document["estimated"]

    def number(name: str) -> str:
        return format_number(document[name], estimated=estimated)

    sizes = document["bytes"]
    mark = "~" if estimated else ""
    fields = [
        ("live sessions", number("live")),
        ("  logged in", number("logged_in")),
        ("  anonymous", number("anonymous")),
        ("expired", number("expired")),
        ("tombstones", number("tombstones")),
        ("unreadable", number("unreadable")),
        ("size of all records", mark + format_bytes(sizes["total"])),
        (
            "size of a record",
            "median {median}, p99 {p99}, largest {max}".format_map(
                {name: format_bytes(size) for name, size in sizes.items()}
            ),
        ),
    ]
    print_fields(target, fields)
    if estimated:
        examined = format_number(document["examined"])
        click.echo(f"~ estimated from {examined} records; read more with --sample", err=True)
