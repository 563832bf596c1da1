"""``sojourn secret``: new secrets, and their rotation."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

import click

from sojourn._crypto.secret_key import check_secrets, generate_secret
from sojourn.cli.exit_codes import ExitCode, Failure
from sojourn.cli.formatting import print_json
from sojourn.cli.target import Target, TargetCommand

_ROTATION_STEPS: Final = """\
This is a new secret. Replace the secret without ending a session:

1. Append the new secret, and restart every process: all unseal its tickets, none seals with it.
     SOJOURN_SECRET=<old>,<new>
2. Put it first, and restart every process: new tickets are sealed with it.
     SOJOURN_SECRET=<new>,<old>
3. Once no session is left that is older than step 2 (the absolute timeout, and that of "remember
   me"), remove the old secret.
     SOJOURN_SECRET=<new>

With one process, begin with step 2. If the old secret is known to an attacker, set the new one
alone, in a new realm: every session ends."""


@click.group()
def secret() -> None:
    """Generate a secret, or replace the current one."""


@secret.command(cls=TargetCommand, shared=["is_json"], short_help="Print a new secret.")
@click.pass_obj
def new(target: Target) -> None:
    """Print a new secret: 43 characters, from 32 random bytes."""
    value = generate_secret()
    if target.is_json:
        print_json({"secret": value})
    else:
        click.echo(value)


@secret.command(
    cls=TargetCommand,
    shared=["is_json", "secret_file"],
    short_help="Replace the secret without ending a session.",
)
@click.option(
    "--write",
    is_flag=True,
    help="Write the new secret and the current ones into --secret-file; print no secret.",
)
@click.option(
    "--append",
    is_flag=True,
    help="With --write: put the new secret last, so that it unseals tickets and seals none yet.",
)
@click.option(
    "--promote",
    is_flag=True,
    help="With --write: put the last secret first instead of generating one (after --append).",
)
@click.pass_obj
def rotate(target: Target, *, write: bool, append: bool, promote: bool) -> None:
    """Print a new secret, and how to replace the current one without ending a session.

    With --secret-file and --write, the file gets the new secret before the current ones, readable
    by its owner only. A process that reads it gets the old content or the new one.
    """
    if (append or promote) and not write:
        raise click.UsageError("--append and --promote need --write and --secret-file")
    if append and promote:
        raise click.UsageError("--append and --promote are two steps; give one of them")
    if write:
        _rotate_file(target, append=append, promote=promote)
        return
    value = generate_secret()
    if target.is_json:
        print_json({"secret": value})
    else:
        click.echo(value)
        click.echo(f"\n{_ROTATION_STEPS}", err=True)


def _rotate_file(target: Target, *, append: bool, promote: bool) -> None:
    path = target.secret_file
    if path is None:
        raise click.UsageError("--write needs --secret-file, the file to write")
    current = list(target.secret or ())
    fresh = generate_secret().encode()
    if promote and len(current) == 1:
        raise click.UsageError(
            f"--promote expects the new secret behind the current one in {path}, found one secret; "
            "run it with --append first"
        )
    if promote:
        ring = [current[-1], *current[:-1]]
    elif append:
        ring = [*current, fresh]
    else:
        ring = [fresh, *current]
    check_secrets(ring, source=str(path))
    try:
        _write_private(path, b",".join(ring) + b"\n")
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}", ExitCode.USAGE) from error
    if target.is_json:
        print_json({"secret_file": str(path), "secrets": len(ring)})
        return
    click.echo(f"{path} has {len(ring)} secrets; restart every process")
    if append:
        click.echo("Then run it again with --promote instead of --append.", err=True)
    else:
        click.echo(
            "Remove the last secret from the file once no session is older than this change.",
            err=True,
        )


def _write_private(path: Path, data: bytes) -> None:
    """Replace a file atomically by one that only its owner can read; the owner stays."""
    real = path.resolve()  # a symbolic link stays one
    status = real.stat()
    handle, draft = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")  # with mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            # An administrator rotates the secret of the user that runs the application.
            if os.name == "posix" and status.st_uid != os.geteuid():
                os.fchown(handle, status.st_uid, status.st_gid)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(real)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
