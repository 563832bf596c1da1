"""CoreConfig and CoreContext: what the parts of one engine share, and how they report events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

import msgspec

from sojourn._core.clock import ServerClock
from sojourn._core.codec import Encoder, encode
from sojourn._core.concurrency import Deadline
from sojourn._core.connection_control import ConnectionControl
from sojourn._core.history import History
from sojourn._core.key_fingerprints import KeyFingerprintCheck
from sojourn._core.operations import Merge
from sojourn._core.policy import Policy
from sojourn._core.record_cache import RecordCache
from sojourn._core.state_upgrade import StateUpgrade
from sojourn._crypto.csrf import CsrfTokens
from sojourn._crypto.encryption import BodyCipher
from sojourn._crypto.rotation import VerifierChain
from sojourn.errors import StoreError, StoreUnavailable
from sojourn.events import Dispatcher, Read, Rejected, StoreFailed
from sojourn.record import Record, UnreadableRecord
from sojourn.store import SessionLimit, Store


class CoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The options of an installation that concern loading and committing.

    Attributes:
        policy: timeouts and intervals.
        max_bytes: the largest record body.
        store_timeout: seconds that one load, commit or claim may take, with its queue and replays.
        check_labels: labels that must not change during a session.
        session_limit: of the sessions of one user; None for no limit.
        revoke_reused: whether use of a previous ticket after its grace period revokes the session.
    """

    policy: Policy
    max_bytes: int
    store_timeout: float = 2.0
    check_labels: tuple[str, ...] = ()
    session_limit: SessionLimit | None = None
    revoke_reused: bool = True


class CoreContext(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration and the collaborators of one engine.

    Attributes:
        config: options.
        store: holds the records.
        clock: returns milliseconds since 1970 UTC; the only clock of decisions (law A22).
        dispatcher: counts events and calls listeners.
        connections: closes open connections.
        rotation: derives verifiers.
        cipher: encodes, encrypts and decrypts record bodies.
        csrf: creates and checks CSRF tokens.
        merges: the declared merge rule of each key.
        upgrade: brings data to the version of the state class; None without ``state_version``.
        server_clock: the clock, if it is that of the store's server; otherwise None.
        key_fingerprint_check: detects applications with other secrets; None if the store cannot.
        encoder: encodes the values of sessions.
        near_cache: caches recent records in memory; None without the option.
        history: adds entries for ended sessions; None without the option.
    """

    config: CoreConfig
    store: Store
    clock: Callable[[], int]
    dispatcher: Dispatcher
    connections: ConnectionControl
    rotation: VerifierChain
    cipher: BodyCipher
    csrf: CsrfTokens
    merges: Mapping[str, Merge]
    encoder: Encoder = encode
    upgrade: StateUpgrade | None = None
    server_clock: ServerClock | None = None
    key_fingerprint_check: KeyFingerprintCheck | None = None
    near_cache: RecordCache | None = None
    history: History | None = None

    async def synchronize_clock(
        self, session_id: bytes = b"", deadline: Deadline | None = None
    ) -> None:
        """Measure the offset of the server's clock if it is due; call it before a decision.

        Args:
            session_id: for the report of a failure; empty if the decision is about several.
            deadline: of the verb that decides; None if the store's own is sufficient.

        Raises:
            StoreError: the server did not answer, and no offset has been measured yet.
        """
        if self.server_clock is not None:
            try:
                measurement = self.server_clock.synchronize()
                await (measurement if deadline is None else deadline.bound(measurement))
            except StoreError as error:
                self.report_store_error("server_time", session_id, error)
                if not self.server_clock.synchronized:
                    raise

    def discard_from_memory(self, session_id: bytes) -> None:
        """Remove a session from the near cache, because this process has written or ended it."""
        if self.near_cache is not None:
            self.near_cache.discard(session_id)

    def clear_memory(self) -> None:
        """Remove every session from the near cache, because this process has ended several."""
        if self.near_cache is not None:
            self.near_cache.clear()

    async def check_keys(self, deadline: Deadline) -> None:
        """Check the keys at the first contact with the store; see ``KeyFingerprintCheck.run``."""
        if self.key_fingerprint_check is not None:
            await self.key_fingerprint_check.run(deadline)

    async def synchronize_clock_before(self, deadline: Deadline, session_id: bytes = b"") -> None:
        """Measure the offset if it is due, as ``synchronize_clock``, before another store call.

        Raises:
            StoreError: the server did not answer, and no offset has been measured yet or no time is
                left: the following call would wait as long.
        """
        await self.synchronize_clock(session_id, deadline)
        deadline.check()

    async def begin(self) -> None:
        """Check the keys and measure the clock, within ``store_timeout``; call it before a list.

        Raises:
            StoreError: the server did not answer before the deadline.
            ConfigurationError: the realm belongs to an application with other secrets.
        """
        deadline = Deadline(self.config.store_timeout)
        await self.check_keys(deadline)
        await self.synchronize_clock_before(deadline)

    def report_read(self, record: Record) -> None:
        """Report that a record was loaded for a request or a message."""
        dispatcher = self.dispatcher
        if Read in dispatcher.listeners:
            dispatcher.emit(Read(record.session_id, record.version))
        else:  # on the path of every request: no event without a listener
            dispatcher.counts[Read] += 1

    def report_rejected(self, session_id: bytes, reason: str) -> None:
        """Report a ticket that is invalid, or an open session that turned out to have ended."""
        self.dispatcher.emit(Rejected(session_id.hex(), reason))

    def report_unreadable(self, session_id: bytes, error: UnreadableRecord) -> None:
        """Report a record that cannot be read and counts as absent (law S9)."""
        self.report_rejected(session_id, f"unreadable: {error}")

    def report_store_error(self, operation: str, session_id: bytes, error: Exception) -> None:
        """Report a store call that failed."""
        self.dispatcher.emit(StoreFailed(session_id.hex(), operation, str(error)))

    def raise_store_error(self, operation: str, session_id: bytes, error: StoreError) -> NoReturn:
        """Report a store call that failed, and raise its error."""
        self.report_store_error(operation, session_id, error)
        raise error


def error_in_transit(record: Record) -> StoreUnavailable:
    """Return the error of a process that uses one of two stores between which sessions move."""
    return StoreUnavailable(
        f"session {record.session_id} is moved to or from another store, and this process uses one "
        "of the two alone. Expected store=migrating(old, new) in every process until all sessions "
        "are moved; see docs/migration.md"
    )
