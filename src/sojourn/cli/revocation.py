"""``sojourn revoke``, ``revoke-user`` and ``revoke-all``."""

from __future__ import annotations

import click

from sojourn.cli.arguments import ID_ARGUMENT, SessionID, User, confirm, with_revocation_options
from sojourn.cli.exit_codes import ExitCode, Failure
from sojourn.cli.formatting import print_json, printable
from sojourn.cli.target import Target, TargetCommand
from sojourn.errors import StoreError


@click.command(cls=TargetCommand, short_help="Revoke sessions by ID.", context_settings=ID_ARGUMENT)
@click.argument("session_ids", metavar="ID...", type=SessionID(), nargs=-1, required=True)
@with_revocation_options
@click.pass_obj
def revoke(
    target: Target, *, session_ids: tuple[str, ...], reason: str, actor: str | None, yes: bool
) -> None:
    """Revoke sessions by their public IDs.

    Requires a confirmation if there are several. Exit code 1 if one of them does not exist.
    """
    ids = list(dict.fromkeys(session_ids))
    sessions = target.sessions
    if len(ids) > 1:
        confirm(f"Revoke {len(ids)} sessions in {target.store_url}?", yes=yes)
    revoked: list[str] = []
    missing: list[str] = []
    target.run(sessions.aping())  # another application's secret is an error, not an empty answer
    failed: StoreError | None = None
    for session_id in ids:
        try:
            existed = target.run(sessions.arevoke(session_id, reason=reason, actor=actor))
        except StoreError as error:
            failed = error
            break
        (revoked if existed else missing).append(session_id)
    remaining = ids[len(revoked) + len(missing) :]
    if target.is_json:
        print_json({"revoked": revoked, "not_found": missing, "remaining": remaining})
    else:
        for session_id in revoked:
            click.echo(f"revoked {session_id}")
        for session_id in missing:
            click.echo(f"There is no session {session_id}.", err=True)
    if failed is not None:
        raise Failure(
            f"{len(revoked)} of {len(ids)} sessions were revoked, then the store failed: {failed}. "
            "Revoke the remaining ones again",
            ExitCode.REVOCATION_INCOMPLETE,
        ) from failed
    if missing:
        click.get_current_context().exit(ExitCode.NOT_FOUND)


@click.command("revoke-user", cls=TargetCommand, short_help="Revoke every session of a user.")
@click.argument("user", type=User())
@click.option("--keep", type=SessionID(), metavar="ID", help="A session to keep.")
@with_revocation_options
@click.pass_obj
def revoke_user(
    target: Target, *, user: str, keep: str | None, reason: str, actor: str | None, yes: bool
) -> None:
    """Revoke every session of a user, also those whose login is in progress.

    Requires a confirmation if the user has several. Exit code 1 if there was none.
    """
    sessions = target.sessions
    if not yes:
        found = [info.id for info in target.run(sessions.alist_user(user)) if info.id != keep]
        if len(found) > 1:
            name = printable(user)
            confirm(f"Revoke {len(found)} sessions of {name} in {target.store_url}?", yes=False)
    count = target.run(sessions.arevoke_user(user, keep=keep, reason=reason, actor=actor))
    if target.is_json:
        print_json({"user": user, "revoked": count})
    else:
        click.echo(f"revoked {count} session{'' if count == 1 else 's'} of {printable(user)}")
    if not count:
        click.get_current_context().exit(ExitCode.NOT_FOUND)


@click.command("revoke-all", cls=TargetCommand, short_help="Revoke every session of all users.")
@with_revocation_options
@click.pass_obj
def revoke_all(target: Target, *, reason: str, actor: str | None, yes: bool) -> None:
    """Revoke every session of the installation with one write. Requires a confirmation."""
    sessions = target.sessions
    confirm(
        f"Revoke every session of realm {sessions.config.realm!r} in {target.store_url}?", yes=yes
    )
    target.run(sessions.arevoke_all(reason=reason, actor=actor))
    if target.is_json:
        print_json({"revoked": "all"})
    else:
        click.echo("revoked every session; the records are removed by a purge, or expire")
