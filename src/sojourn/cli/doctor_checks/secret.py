"""Checks of the secret: strength, who can read it, and whether the realm uses another one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from sojourn._crypto.secret_key import check_secrets, split_secrets
from sojourn._crypto.tickets import key_fingerprint
from sojourn.cli.doctor_checks.context import CheckContext
from sojourn.cli.doctor_checks.findings import Finding, error, info
from sojourn.cli.target import MAX_SECRET_FILE_BYTES
from sojourn.errors import ConfigurationError
from sojourn.store import LocalStore

WEAK: Final = error(
    "secret-weak",
    "a secret of at least 16 random bytes: an attacker who guesses it can forge tickets",
    "create one with `sojourn secret new` and replace the current one in every process; all "
    "sessions end",
)
READABLE: Final = error(
    "secret-readable",
    "a regular secret file that only its owner can read (mode 600 or 400)",
    "run `chmod 600` on the file; if others may have read it, replace the secret",
)
UNUSABLE: Final = error(
    "secret-unusable",
    "a secret file that this user can read, with one secret in each line",
    "correct the path, or run the doctor as the user of the application",
)
OTHER: Final = error(
    "secret-other",
    "one of the secrets whose key fingerprints the realm has: processes with other secrets reject "
    "each other's visitors",
    "give every process the same secret; while you replace one, give both: the new one and the "
    "former one; give another application a realm of its own",
)
UNKNOWN: Final = info(
    "secret-unknown",
    "the secret of the application, to compare it with the key fingerprints of the realm",
    "set SOJOURN_SECRET, or give --secret-file or --app",
)

UNUSED: Final = info(
    "realm-unused",
    "a realm that an application has used",
    "correct --realm, or the address of the store, if it is misspelt; before the first start of "
    "the application nothing is wrong",
)

PROBLEMS: Final = (WEAK, READABLE, UNUSABLE, OTHER, UNKNOWN, UNUSED)

#: Permissions of users other than the owner.
_OTHERS_PERMISSIONS: Final = 0o077


def check_secret(context: CheckContext) -> Iterator[Finding]:
    """Examine the secrets that are given, and the file they are in."""
    if context.config is not None and context.config.secrets is not None:
        context.secrets = context.config.secrets  # were checked when the application was built
        return
    path = _path(context)
    if path is not None:
        yield from _check_file(context, path)
    elif context.secret_text is not None:
        data = split_secrets(context.secret_text.encode(errors="surrogateescape"))
        yield from _check_strength(context, data, "SOJOURN_SECRET")
    else:
        yield UNKNOWN.finding("no secret was given, so fingerprints are not compared")


def _path(context: CheckContext) -> Path | None:
    """Return the secret file that was given, or that of a local store; None if there is none."""
    if context.secret_file is not None:
        return context.secret_file
    if context.secret_text is not None and context.config is None:
        return None
    if isinstance(context.store, LocalStore):
        return context.store.secret_path()
    database = context.database
    if database is None:
        return None
    beside = database.with_name(f"{database.name}.secret")
    return beside if beside.exists() else None


def _check_file(context: CheckContext, path: Path) -> Iterator[Finding]:
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_FILE_BYTES + 1)
    except OSError as failure:
        yield UNUSABLE.finding(f"{path}: {failure.strerror}")
        return
    if len(data) > MAX_SECRET_FILE_BYTES:
        yield UNUSABLE.finding(f"{path} has more than {MAX_SECRET_FILE_BYTES:,} bytes")
        return
    generated = context.secret_file is None
    if os.name == "posix" and mode & _OTHERS_PERMISSIONS:
        yield READABLE.finding(f"{path} has mode {mode & 0o777:03o}")
    elif generated and path.is_symlink():
        yield READABLE.finding(f"{path} is a symbolic link")
    yield from _check_strength(context, split_secrets(data), str(path))


def _check_strength(
    context: CheckContext, secrets: Sequence[bytes], source: str
) -> Iterator[Finding]:
    usable: list[bytes] = []
    if not secrets:
        yield UNUSABLE.finding(f"{source} is empty")
    for number, secret in enumerate(secrets, 1):
        try:
            usable += check_secrets(secret, source="the secret")
        except ConfigurationError as failure:
            which = f"secret {number} of {len(secrets)}" if len(secrets) > 1 else "the secret"
            # The rest of the message contains a new secret to copy.
            reason = str(failure).partition(";")[0].removeprefix("the secret ")
            yield WEAK.finding(f"{source}: {which} {reason}")
    context.secrets = usable or None


def check_fingerprints(context: CheckContext) -> Iterator[Finding]:
    """Compare the secrets with the key fingerprints of the realm; nothing is registered."""
    known = context.fingerprints
    if known is not None and not known:  # an application registers its keys at its first contact
        yield UNUSED.finding(f"no application has used realm {context.realm!r} of this store")
    if not known or context.secrets is None:
        return
    own = {key_fingerprint(secret, context.realm) for secret in context.secrets}
    if known.isdisjoint(own):
        yield OTHER.finding(
            f"realm {context.realm!r} is used with {len(known)} other "
            f"secret{'s' if len(known) > 1 else ''}"
        )
