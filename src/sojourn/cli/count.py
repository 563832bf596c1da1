"""``sojourn count``: the number of live sessions."""

from __future__ import annotations

import click

from sojourn.cli.formatting import format_number, print_json
from sojourn.cli.sample import count_sessions
from sojourn.cli.target import Target, TargetCommand


@click.command(cls=TargetCommand, short_help="Print the number of live sessions.")
@click.pass_obj
def count(target: Target) -> None:
    """Print the number of live sessions; ~ marks an estimate."""
    found, estimated = target.run(count_sessions(target.sessions))
    if target.is_json:
        print_json({"sessions": found, "estimated": estimated})
    else:
        click.echo(format_number(found, estimated=estimated))
