"""Lists: the verbs about sessions that are asked from outside a request.

What lives here: what is known of a session, finding sessions by user, and ending them. What must
not: building an installation (``sessions.py``). Each verb that reaches the store has its ``a``
twin, one line.

Whoever may call these is for the application to decide: a public ID alone ends nothing here that
the caller did not ask to end, and opens nothing at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from sojourn._core.concurrency import run
from sojourn._core.engine import Engine
from sojourn._core.policy import expired
from sojourn._core.revocation import MARK
from sojourn._core.session import Session
from sojourn._crypto.tickets import ID_BYTES
from sojourn.live.connections import Registry
from sojourn.record import (
    INDEXED_LABELS,
    NO_VERIFIER,
    Record,
    UnreadableRecord,
    check_user,
    plain_text,
    user_index_name,
)

#: The last second that a ``datetime`` can name.
_YEAR_9999: Final = 253_402_300_799


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as lists and administrators see it; never its ticket, verifier or data.

    Attributes:
        id: the public ID, 32 hex digits.
        user: who has logged in, None while nobody has.
        labels: browser and address, noted when it began or at the login.
        created_at, seen_at, expires_at: UTC.
        authenticated_at: the last login, UTC; None if there was none.
        connections: how many sockets of it are open in this process.
    """

    id: str
    user: str | None
    labels: MappingProxyType[str, str]
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    authenticated_at: datetime | None
    connections: int


class Lists:
    """The part of ``Sessions`` that knows and ends sessions of others."""

    engine: Engine
    live: Registry

    # One session

    def get(self, session_id: str) -> SessionInfo | None:
        """Return what is known of a session, None if there is none (any more)."""
        return run(self.aget(session_id), instead="sessions.aget()")

    async def aget(self, session_id: str) -> SessionInfo | None:
        """Return what is known of a session; see ``get``."""
        raw = _parse_id(session_id)
        try:
            record = None if raw is None else await self.engine.store.load(raw)
        except UnreadableRecord:
            return None
        return None if record is None or record.version == MARK else self._info(record)

    def revoke(self, session_id: str, *, reason: str = "revoked", actor: str | None = None) -> bool:
        """End somebody's session for good: no door opens again once this has returned.

        Args:
            session_id: the public ID.
            reason: for the event, for whatever is closed, and for the visitor's next request
                (``session.ended_reason``).
            actor: who gives the order, for the event.

        Returns:
            False if there was no such session.
        """
        return run(
            self.arevoke(session_id, reason=reason, actor=actor), instead="sessions.arevoke()"
        )

    async def arevoke(
        self, session_id: str, *, reason: str = "revoked", actor: str | None = None
    ) -> bool:
        """End somebody's session for good; see ``revoke``."""
        raw = _parse_id(session_id)
        return raw is not None and await self.engine.ender.end(raw, reason, actor=actor)

    # Those of a user

    def list_user(self, user: str) -> list[SessionInfo]:
        """Return a user's sessions, newest login first.

        Raises:
            ConfigurationError: the store keeps no lists.
            TypeError: that is no user, such as None where nobody has logged in.
        """
        return run(self.alist_user(user), instead="sessions.alist_user()")

    async def alist_user(self, user: str) -> list[SessionInfo]:
        """Return a user's sessions, newest login first; see ``list_user``."""
        records = await self.engine.ender.lists().list_by_index(user_index_name(check_user(user)))
        return [info for record in records if (info := self._info(record)) is not None]

    def revoke_user(
        self,
        user: str,
        *,
        keep: str | None = None,
        reason: str = "revoked",
        actor: str | None = None,
    ) -> int:
        """End every session of a user, also those that are just logging in.

        Args:
            user: as given to ``session.login``.
            keep: the public ID of one that stays, such as the caller's own.
            reason: as for ``revoke``.
            actor: as for ``revoke``.

        Returns:
            How many there were.

        Raises:
            ConfigurationError: the store keeps no lists.
            TypeError: that is no user, such as None where nobody has logged in.
            ValueError: ``keep`` is no public ID; nothing was ended.
        """
        return run(
            self.arevoke_user(user, keep=keep, reason=reason, actor=actor),
            instead="sessions.arevoke_user()",
        )

    async def arevoke_user(
        self,
        user: str,
        *,
        keep: str | None = None,
        reason: str = "revoked",
        actor: str | None = None,
    ) -> int:
        """End every session of a user; see ``revoke_user``."""
        name = user_index_name(check_user(user))
        kept = None if keep is None else _parse_id(keep)
        if keep is not None and kept is None:
            raise ValueError(f"keep expects the public ID of a session, found {keep!r}")
        return await self.engine.ender.end_named(name, reason, keep=kept, actor=actor)

    def revoke_where(
        self, *, reason: str = "revoked", actor: str | None = None, **label: str
    ) -> int:
        """End every session that logged in with a label, such as ``idp_sid="..."``.

        For the back-channel logout of an identity provider. Labels that can be asked for:
        ``idp_sid``.

        Returns:
            How many there were.

        Raises:
            ConfigurationError: the store keeps no lists.
            TypeError: not exactly one of those labels, or no text to look for.
        """
        return run(
            self.arevoke_where(reason=reason, actor=actor, **label),
            instead="sessions.arevoke_where()",
        )

    async def arevoke_where(
        self, *, reason: str = "revoked", actor: str | None = None, **label: str
    ) -> int:
        """End every session that logged in with a label; see ``revoke_where``."""
        if len(label) != 1 or not set(label) <= set(INDEXED_LABELS):
            raise TypeError(
                f"revoke_where expects exactly one of {', '.join(INDEXED_LABELS)}, found "
                f"{', '.join(label) or 'none'}"
            )
        ((name, value),) = label.items()
        if not plain_text(value):  # or a logout token without it would end nothing, and say so
            raise TypeError(f"{name} expects a text, found {value!r}")
        return await self.engine.ender.end_named(f"{name}:{value}", reason, keep=None, actor=actor)

    def credentials_changed(
        self, user: str, *, keep: Session[Any] | None = None, actor: str | None = None
    ) -> int:
        """End a user's sessions after a change of password or factors (ASVS 7.4.3).

        Args:
            user: as given to ``session.login``.
            keep: the session in which the change was made. It goes on with a new ticket, as after
                a login: to change credentials one has to prove who one is.
            actor: as for ``revoke``.

        Returns:
            How many were ended.
        """
        return run(
            self.acredentials_changed(user, keep=keep, actor=actor),
            instead="sessions.acredentials_changed()",
        )

    async def acredentials_changed(
        self, user: str, *, keep: Session[Any] | None = None, actor: str | None = None
    ) -> int:
        """End a user's sessions after a change of credentials; see ``credentials_changed``."""
        if keep is not None and keep.user != user:
            raise ValueError(f"the session to keep is not one of {user!r}")
        ended = await self.arevoke_user(
            user,
            keep=None if keep is None else keep.id,
            reason="credentials changed",
            actor=actor,
        )
        if keep is not None:
            labels = {**keep.labels, **keep._labels()}
            keep.login(user, methods=keep.methods, labels=labels, remember=keep._persistent)
        return ended

    # All of them

    def revoke_all(self, *, reason: str = "revoked", actor: str | None = None) -> None:
        """End every session of the installation, at the cost of one write.

        Raises:
            ConfigurationError: the store cannot.
        """
        run(self.arevoke_all(reason=reason, actor=actor), instead="sessions.arevoke_all()")

    async def arevoke_all(self, *, reason: str = "revoked", actor: str | None = None) -> None:
        """End every session of the installation; see ``revoke_all``."""
        await self.engine.ender.end_all(reason, actor=actor)

    # Forms

    def check_csrf(self, value: object, session: Session[Any]) -> bool:
        """Tell whether a form came from a page of this session (``session.csrf_token``).

        Args:
            value: what the request brought, None if nothing.
            session: of the request. A form that was opened before a rotation is still good.
        """
        record = session._record
        hashes: Sequence[bytes] = (
            () if record is None else (record.verifier, record.previous_verifier)
        )
        session._look()
        return any(known != NO_VERIFIER for known in hashes) and self.engine.csrf.check(
            value, hashes
        )

    def _info(self, record: Record) -> SessionInfo | None:
        if expired(record, self.engine.clock()):
            return None
        try:
            metadata = record.metadata()
        except UnreadableRecord:
            return None
        login = record.authenticated_at
        return SessionInfo(
            record.session_id,
            metadata.user,
            MappingProxyType(metadata.labels),
            _instant(record.created_at),
            _instant(record.seen_at),
            _instant(record.expires_at),
            _instant(login) if login else None,
            self.live.count(record.session_id),
        )


def _parse_id(session_id: object) -> bytes | None:
    """Return the 16 bytes of a public ID; None for anything else, which no store ever sees."""
    if (
        not isinstance(session_id, str)
        or len(session_id) != 2 * ID_BYTES
        or not all(c in "0123456789abcdef" for c in session_id)
    ):
        return None
    return bytes.fromhex(session_id)


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(min(milliseconds / 1000, _YEAR_9999), UTC)
