"""Secrets: reject weak ones; store a generated one in a file.

There is no default secret; placeholders and guessable ones are rejected (ASVS 11.2, B-16). A
message shows no secret, except a new one for the developer to copy.
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

from sojourn._folder import create_private_folder
from sojourn.errors import ConfigurationError

#: NIST SP 800-131A: at least 112 bits of strength; 16 random bytes have 128.
MIN_BYTES: Final = 16

#: Bits, by the frequencies of the characters: 16 random bytes in hex have about 100 or more.
_MIN_ENTROPY: Final = 48.0

_PLACEHOLDERS: Final = (
    "changeme", "change-me", "change_me", "change this", "changethis", "secret", "password",
    "passwd", "insecure", "example", "placeholder", "your-", "your_", "yoursecret", "todo",
    "replace", "default", "letmein", "qwerty", "123456", "abcdef", "sojourn", "development",
    "super", "mysecret", "secretkey", "not-so", "testing",
)  # fmt: skip


def generate_secret() -> str:
    """Return a new secret: 43 characters, from 32 random bytes."""
    return secrets.token_urlsafe(32)


def check_secrets(secret: str | bytes | Sequence[str | bytes], *, source: str) -> tuple[bytes, ...]:
    """Return secrets as bytes, newest first.

    White space around a text is not part of it: a file that holds a secret ends with a newline,
    which an environment variable and ``split_secrets`` do not have.

    Args:
        secret: one or a list.
        source: the option, environment variable or file, for the message.

    Raises:
        ConfigurationError: one is short, guessable or a well-known placeholder.
    """
    single = isinstance(secret, str | bytes) or not isinstance(secret, Sequence)
    candidates: Sequence[object] = [secret] if single else secret
    if not candidates:
        raise ConfigurationError(
            f"{source} expects at least one secret, found an empty list; here is a new one: "
            f"{generate_secret()}"
        )
    return tuple(_check_secret(each, source) for each in candidates)


def _check_secret(secret: object, source: str) -> bytes:
    if not isinstance(secret, str | bytes):
        raise ConfigurationError(
            f"{source} expects text or bytes, or a list of them, found "
            f"{type(secret).__qualname__}; here is a new one: {generate_secret()}"
        )
    # Environment variables may hold bytes that are not UTF-8; Python keeps them as surrogates.
    data = secret.strip().encode(errors="surrogatepass") if isinstance(secret, str) else secret
    if len(data) < MIN_BYTES:
        raise _weak_secret(source, f"has {len(data)} bytes, fewer than {MIN_BYTES}")
    if _entropy(data) < _MIN_ENTROPY:
        raise _weak_secret(source, "repeats itself so much that it can be guessed")
    text = data.decode("latin-1").lower()
    # Random text may contain a short word by chance; text that is mostly words is a placeholder.
    words = sum(len(word) * text.count(word) for word in _PLACEHOLDERS)
    if words * 3 >= len(text):
        raise _weak_secret(source, "looks like a placeholder from an example")
    return data


def _weak_secret(source: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{source} {why}; an attacker could forge sessions. Expected at least {MIN_BYTES} random "
        f"bytes. Here is a new one: {generate_secret()}"
    )


def _entropy(data: bytes) -> float:
    """Return the Shannon entropy of ``data`` in bits, as if its bytes were independent.

    Data that repeats one piece counts as that piece.
    """
    piece = data[: (data + data).find(data, 1)]
    return -sum(n * math.log2(n / len(piece)) for n in Counter(piece).values())


def split_secrets(data: bytes) -> list[bytes]:
    """Return the secrets in a file or a variable: commas or lines separate them."""
    return [part.strip() for part in data.replace(b"\n", b",").split(b",") if part.strip()]


def missing_secret(store: str) -> ConfigurationError:
    """Return the error for a shared store without a secret, with a new secret to copy."""
    return ConfigurationError(
        f"{store} expects a secret, because several machines may share the store and must use the "
        "same one; found none. Pass secret=... or set the environment variable:\n\n"
        f"    SOJOURN_SECRET={generate_secret()}\n\n"
        "(generated just now; keep it out of the repository)"
    )


def read_or_create_secrets(path: Path) -> tuple[bytes, ...]:
    """Return the secrets in a file, newest first; create it with one secret if it is absent.

    It is readable by its owner only. Workers that start at the same time get the same secret.

    Raises:
        ConfigurationError: the file cannot be read or written, other users can read it, or its
            secret is weak.
    """
    try:
        if not path.exists():
            _create_secret(path)
        if path.is_symlink() or (os.name == "posix" and path.stat().st_mode & 0o077):
            raise ConfigurationError(
                f"the secret file {path} must be a regular file that only its owner can read, "
                "found a symbolic link or wider permissions; "
                f"run `chmod 600 {path}`, or delete it to get a new one (all sessions end)"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"the secret file {path} cannot be used: {error.strerror}. Make its folder writable, "
            "or pass secret=..."
        ) from error
    return check_secrets(split_secrets(data), source=f"the secret file {path}")


def _create_secret(path: Path) -> None:
    create_private_folder(path.parent)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(generate_secret() + "\n")
        # os.link is atomic and fails if a faster worker has created the file.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
