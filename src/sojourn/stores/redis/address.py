"""Address: where one server is and who we are there, from a URL.

What lives here: reading ``redis://``, ``valkey://``, ``rediss://`` and ``unix://`` URLs. What must
not: connecting (``wires.py``, ``pools.py``) and addresses of several servers (``openers.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote

from sojourn.errors import ConfigurationError

DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True)
class Address:
    """One server, and our place in it.

    Attributes:
        host, port: of a TCP server; ignored where there is a path.
        path: of a Unix socket.
        database: its number.
        user: of the ACL; None for the default one.
        password: None where the server, or the user, wants none.
        tls: whether to speak TLS.
        ca: file with the certificates of who vouches for the server; None for the system's.
    """

    host: str = "localhost"
    port: int = DEFAULT_PORT
    path: str | None = None
    database: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca: str | None = None

    def __str__(self) -> str:
        """Show the place, for messages."""
        return self.path if self.path is not None else f"{self.host}:{self.port}"


def parse(
    parts: SplitResult, text: str, *, database: int | None = None, ca: str | None = None
) -> Address:
    """Return the address that a URL names.

    Args:
        parts: of the URL.
        text: the URL without its password, for messages.
        database: given as an option, where the path is taken by something else.
        ca: given as an option.
    """
    if ca is not None and not parts.scheme.startswith("rediss"):
        raise ConfigurationError(f"{text}: ca= is for TLS; write rediss:// for that")
    if ca is not None and not Path(ca).is_file():
        raise ConfigurationError(f"{text}: ca= expects a file with certificates; {ca!r} is none")
    if database is not None and parts.scheme != "unix" and parts.path.strip("/"):
        raise ConfigurationError(f"{text}: names the database twice, in its path and as db=")
    user = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if parts.scheme == "unix":
        if parts.hostname or not parts.path.strip("/"):
            raise ConfigurationError(
                f"{text}: unix:// expects the path of a socket, such as 'unix:///run/valkey.sock'"
            )
        return Address(
            path=unquote(parts.path), database=database or 0, user=user, password=password
        )
    return Address(
        host=parts.hostname or "localhost",
        port=port(parts, text),
        database=number(parts.path.strip("/"), text) if database is None else database,
        user=user,
        password=password,
        tls=parts.scheme == "rediss",
        ca=ca,
    )


def port(parts: SplitResult, text: str) -> int:
    """Return the port of a URL."""
    try:
        return parts.port or DEFAULT_PORT
    except ValueError as error:
        raise ConfigurationError(f"{text}: {error}") from None


def number(path: str, text: str) -> int:
    """Return the number of a database."""
    if (path and not path.isascii()) or (path and not path.isdigit()):
        raise ConfigurationError(
            f"{text}: expected the number of a database after the last '/' or as db=, "
            f"found {path!r}"
        )
    return int(path or 0)
