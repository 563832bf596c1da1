"""``sojourn schema``: the SQL that creates the tables of a store."""

from __future__ import annotations

import click

from sojourn.cli.formatting import print_json
from sojourn.cli.target import Target, TargetCommand


@click.command(cls=TargetCommand, shared=["is_json"], short_help="Print the SQL of the tables.")
@click.argument("name", type=click.Choice(["postgresql"]))
@click.option("--schema", "schema_name", help="The schema; the first of search_path if not given.")
@click.pass_obj
def schema(target: Target, *, name: str, schema_name: str | None) -> None:  # noqa: ARG001 - one choice
    """Print the SQL that creates the tables, for a user who may; it may be executed again.

    \b
      sojourn schema postgresql | psql "$ADMIN_URL"
    """  # noqa: D301 - the character by which click keeps the lines of a paragraph
    from sojourn.stores.postgresql.schema import schema_sql

    sql = schema_sql(schema_name)
    if target.is_json:
        print_json({"sql": sql})
    else:
        click.echo(sql, nl=False)
