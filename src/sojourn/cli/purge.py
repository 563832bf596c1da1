"""``sojourn purge``: removes expired records."""

from __future__ import annotations

import click

from sojourn.cli.formatting import format_number, print_json
from sojourn.cli.progress import progress_bar
from sojourn.cli.target import Target, TargetCommand


@click.command(cls=TargetCommand, short_help="Remove expired records.")
@click.pass_obj
def purge(target: Target) -> None:
    """Remove every expired record now, in small steps.

    Applications do so in the background. Interrupted, it loses nothing: run it again.
    """
    sessions = target.sessions
    target.run(sessions.aping())
    with progress_bar(target, "removed") as report:
        removed = target.run(sessions.apurge(on_progress=lambda done: report(done, "")))
    if target.is_json:
        print_json({"removed": removed})
    else:
        click.echo(f"removed {format_number(removed)} records")
