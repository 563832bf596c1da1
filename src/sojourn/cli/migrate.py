"""``sojourn migrate``: moves every session from one store to another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sojourn.cli.arguments import confirm
from sojourn.cli.progress import progress_bar
from sojourn.cli.target import Target, TargetCommand, sqlite_path
from sojourn.cli.text import format_number, print_json
from sojourn.errors import ConfigurationError

if TYPE_CHECKING:
    from sojourn.stores.migration import MigrationProgress

_PREPARE: Final = """\
Both stores answer. Deploy these steps, each completely before the next one:

1. store=migrating(old, new, prepare=True)   every process
2. store=migrating(old, new)                 every process
   then: sojourn migrate FROM TO
3. store=new                                 every process, once migrate is finished

Processes with store=old must not run beside those of step 2. See docs/migration.md."""

_QUESTION: Final = (
    "Does every process use store=migrating(old, new), or is none running? Move the sessions now?"
)

_DEFAULT_REALM: Final = "default"


@dataclass(slots=True)
class _Latest:
    """The latest progress, for a run that is interrupted."""

    progress: MigrationProgress | None = None


@click.command(
    "migrate",
    cls=TargetCommand,
    shared=["is_json", "realm"],
    short_help="Move every session to another store.",
)
@click.argument("old", metavar="FROM")
@click.argument("new", metavar="TO")
@click.option(
    "--prepare", is_flag=True, help="Check both stores and print the steps; move nothing."
)
@click.option(
    "--max-rate", type=click.FloatRange(min=0, min_open=True), help="Sessions a second, at most."
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Sessions that are moved together.",
)
@click.option(
    "--users",
    "users_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with all users, one on a line; see docs/migration.md.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def migrate_command(
    target: Target,
    *,
    old: str,
    new: str,
    prepare: bool,
    max_rate: float | None,
    batch_size: int,
    users_file: Path | None,
    yes: bool,
) -> None:
    """Move every session between two stores, while the application runs.

    FROM and TO are URLs. Give --realm if the installation has one. Interrupted or failed, it loses
    nothing: run it again.
    """
    from sojourn.stores.migration import migrate

    realm = target.realm or _DEFAULT_REALM
    _check_source(old)
    total = _count(old, realm)
    if prepare:
        _count(new, realm)
        if target.is_json:
            print_json({"sessions": total, "finished": False})
        else:
            click.echo(_PREPARE)
        return
    confirm(_QUESTION, yes=yes)
    users = [] if users_file is None else users_file.read_text("utf-8").splitlines()
    latest = _Latest()
    with progress_bar(target, "moved", total) as report:

        def show(progress: MigrationProgress) -> None:
            latest.progress = progress
            report(progress.moved + progress.completed, f"pass {progress.passes + 1}")

        try:
            done = migrate(
                old,
                new,
                realm=realm,
                batch_size=batch_size,
                max_rate=max_rate,
                users=[user for user in users if user],
                on_progress=show,
            )
        except KeyboardInterrupt:
            moved = latest.progress.moved if latest.progress else 0
            click.echo(
                f"\nmoved {format_number(moved)} sessions; run it again to continue", err=True
            )
            raise
    _print(target, done)


def _check_source(url: str) -> None:
    path = sqlite_path(url)
    if path is not None and not path.exists():
        raise ConfigurationError(
            f"FROM expects a database, found none at {path.absolute()}; check the path"
        )


def _count(url: str, realm: str) -> int | None:
    """Return the number of sessions, None if unknown; fails if the store does not answer."""
    import time

    from sojourn._core.concurrency import run
    from sojourn.store import Closeable, SupportsCount
    from sojourn.stores.urls import open_store

    store = open_store(url, realm=realm, timeout=2.0)
    try:
        run(store.load(bytes(16)))
        if isinstance(store, SupportsCount):
            return run(store.count(int(time.time() * 1000)))
        return None
    finally:
        if isinstance(store, Closeable):
            store.close()


def _print(target: Target, done: MigrationProgress) -> None:
    if target.is_json:
        document: dict[str, Any] = {name: getattr(done, name) for name in done.__struct_fields__}
        print_json(document)
        return
    click.echo(f"moved {format_number(done.moved + done.completed)} sessions; finished")
    if done.cutoffs:
        click.echo(f"copied {format_number(done.cutoffs)} cutoffs of revocations")
    if done.unreadable:
        click.echo(f"{format_number(done.unreadable)} damaged records were left behind", err=True)
    if done.unnamed_cutoffs:
        click.echo(
            f"{format_number(done.unnamed_cutoffs)} cutoffs of revoked users could not be copied; "
            "give --users if you use 'remember me' cookies",
            err=True,
        )
