"""Secrets: their quality, and the file in which a generated one is kept.

What lives here: checks that refuse weak secrets, and ``read_or_create``. What must not: what is
derived from a secret (``_crypto/tickets.py``). A secret appears in no message, except one that was just
made for the developer to copy.

ASVS 11.2, security.md B-16: there is no default secret; placeholders and guessable ones are
refused.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sojourn.errors import ConfigurationError

#: NIST SP 800-131A: at least 112 bits of strength; 16 random bytes have 128.
MIN_BYTES: Final = 16

#: Bits, by the letters' own frequencies: 16 random bytes in hex have about 100 or more.
_MIN_ENTROPY: Final = 48.0

_PLACEHOLDERS: Final = (
    "changeme", "change-me", "change_me", "change this", "changethis", "secret", "password",
    "passwd", "insecure", "example", "placeholder", "your-", "your_", "yoursecret", "todo",
    "replace", "default", "letmein", "qwerty", "123456", "abcdef", "sojourn", "development",
    "super", "mysecret", "secretkey", "not-so", "testing",
)  # fmt: skip


def generate() -> str:
    """Return a new secret: 43 characters from 32 random bytes."""
    return secrets.token_urlsafe(32)


def check(secret: str | bytes | Sequence[str | bytes], *, source: str) -> tuple[bytes, ...]:
    """Return the secrets as bytes, newest first.

    Args:
        secret: one or a list.
        source: where it came from (``secret=`` or ``SOJOURN_SECRET``), for the message.

    Raises:
        ConfigurationError: one is short, guessable or a well-known placeholder.
    """
    one = isinstance(secret, str | bytes) or not isinstance(secret, Sequence)
    ring: Sequence[object] = [secret] if one else secret
    if not ring:
        raise ConfigurationError(f"{source} is an empty list; expected at least one secret")
    return tuple(_check_one(each, source) for each in ring)


def _check_one(secret: object, source: str) -> bytes:
    if not isinstance(secret, str | bytes):
        raise ConfigurationError(
            f"{source} expects text or bytes, found {type(secret).__qualname__}"
        )
    # Any text will do, also bytes of the environment that are no UTF-8.
    data = secret.encode(errors="surrogatepass") if isinstance(secret, str) else secret
    if len(data) < MIN_BYTES:
        raise _weak(source, f"has {len(data)} bytes, fewer than {MIN_BYTES}")
    if _entropy(data) < _MIN_ENTROPY:
        raise _weak(source, "repeats itself so much that it can be guessed")
    text = data.decode("latin-1").lower()
    # A long random text may contain a short word by chance; one that is mostly words may not.
    words = sum(len(word) * text.count(word) for word in _PLACEHOLDERS)
    if words * 3 >= len(text):
        raise _weak(source, "looks like a placeholder from an example")
    return data


def _weak(source: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{source} {why}; anybody could forge sessions. Expected at least {MIN_BYTES} random "
        f"bytes. Here is a fresh one: {generate()}"
    )


def _entropy(data: bytes) -> float:
    """Return the bits in ``data`` if its letters were drawn independently (Shannon).

    Of what is one piece over and over, only the piece counts.
    """
    piece = data[: (data + data).find(data, 1)]
    return -sum(n * math.log2(n / len(piece)) for n in Counter(piece).values())


def missing(store: str) -> ConfigurationError:
    """Return the error for a shared store without a secret, with a fresh one to copy."""
    return ConfigurationError(
        f"{store} may be shared by several machines, which must have the same secret, and none "
        "was given. Pass secret=... or set the environment variable:\n\n"
        f"    SOJOURN_SECRET={generate()}\n\n"
        "(made just now for you; keep it out of the repository)"
    )


def read_or_create(path: Path) -> bytes:
    """Return the secret kept in a file; make it, readable by its owner only, if it is absent.

    All workers that start at once get the same one.

    Raises:
        ConfigurationError: the file cannot be read or written, belongs to everybody, or is weak.
    """
    try:
        if not path.exists():
            _create(path)
        if path.is_symlink() or (os.name == "posix" and path.stat().st_mode & 0o077):
            raise ConfigurationError(
                f"the secret file {path} must be a regular file that only its owner can read; "
                f"run `chmod 600 {path}`, or delete it to get a new one (all sessions end)"
            )
        data = path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(
            f"the secret file {path} cannot be used: {error.strerror}. Make its folder writable, "
            "or pass secret=..."
        ) from error
    return check(data, source=f"the secret file {path}")[0]


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(generate() + "\n")
        # A link appears whole or not at all, and never over the one of a faster worker.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
