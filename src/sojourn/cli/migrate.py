"""``sojourn migrate``: moves every session from one store to another."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sojourn.cli.arguments import FiniteRange, confirm
from sojourn.cli.formatting import format_number, print_json
from sojourn.cli.progress import progress_bar
from sojourn.cli.target import DEFAULT_REALM, Target, TargetCommand, sqlite_path
from sojourn.cli.unused_record import unused_record
from sojourn.errors import ConfigurationError
from sojourn.store import Closeable, Store, SupportsCount

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


#: Seconds that a call may take.
_STORE_TIMEOUT: Final = 2.0

#: Milliseconds that the record lives by which two URLs of one store are detected.
_PROBE_LIFETIME: Final = 60_000


@dataclass(slots=True)
class _LatestProgress:
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
    "--max-rate", type=FiniteRange(min=0, min_open=True), help="Sessions a second, at most."
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1, max=10_000),
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
@click.option("--yes", is_flag=True, help="Confirm without a question.")
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

    realm = target.realm or DEFAULT_REALM
    _check_urls(old, new)
    total = _count(old, realm)
    if prepare:
        _count(new, realm)
        if target.is_json:
            print_json({"sessions": total, "finished": False})
        else:
            click.echo(_PREPARE)
        return
    confirm(_QUESTION, yes=yes)
    users = _read_users(users_file)
    _check_distinct(old, new, realm)
    latest = _LatestProgress()
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
                users=users,
                on_progress=show,
            )
        except KeyboardInterrupt:
            moved = latest.progress.moved if latest.progress else 0
            click.echo(
                f"\nmoved {format_number(moved)} sessions; run it again to continue", err=True
            )
            raise
    _print(target, done)


def _check_urls(old: str, new: str) -> None:
    for name, url in (("FROM", old), ("TO", new)):
        if url.startswith("memory:"):
            raise ConfigurationError(
                f"{name} expects a store outside of this process, found memory://, whose sessions "
                "end with the command"
            )
    path = sqlite_path(old)
    if path is not None and not path.exists():
        raise ConfigurationError(
            f"FROM expects a database, found none at {path.absolute()}; check the path"
        )


def _read_users(path: Path | None) -> list[str]:
    """Return the lines of a file, without empty ones."""
    if path is None:
        return []
    try:
        return [user for user in path.read_text("utf-8").splitlines() if user]
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"--users expects text in UTF-8, found other bytes in {path} at position {error.start}"
        ) from error


def _check_distinct(old: str, new: str, realm: str) -> None:
    """Refuse two URLs of one store, between which sessions would be moved endlessly.

    Raises:
        ConfigurationError: a record that was created in one is in the other.
    """
    from sojourn._core.concurrency import run

    record = unused_record(int(time.time() * 1000), _PROBE_LIFETIME)
    with _opened(old, realm) as source, _opened(new, realm) as destination:
        run(destination.create(record))
        try:
            found = run(source.load(record.id))
        finally:
            run(destination.delete(record.id))
    if found is not None:
        raise ConfigurationError("FROM and TO expect two stores, found one; check the URLs")


@contextmanager
def _opened(url: str, realm: str) -> Iterator[Store]:
    """Open a store; close it at the end."""
    from sojourn.stores.urls import open_store

    store = open_store(url, realm=realm, timeout=_STORE_TIMEOUT)
    try:
        yield store
    finally:
        if isinstance(store, Closeable):
            store.close()


def _count(url: str, realm: str) -> int | None:
    """Return the number of sessions, None if unknown; fails if the store does not answer."""
    from sojourn._core.concurrency import run

    with _opened(url, realm) as store:
        run(store.load(bytes(16)))
        if isinstance(store, SupportsCount):
            return run(store.count(int(time.time() * 1000)))
        return None


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
