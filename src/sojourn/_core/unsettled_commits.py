"""UnsettledCommits: the operations of commits whose outcome is unknown (law A21)."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from sojourn._core.login import Login, Rotation
from sojourn._core.operations import Default, OperationLog
from sojourn.record import Record


class Attempt(NamedTuple):
    """A store call that was started.

    Attributes:
        commit_id: 4 random bytes.
        version: that the call writes.
    """

    commit_id: bytes
    version: int

    def applied(self, record: Record) -> bool | None:
        """Return whether ``record`` contains the write; None if it is too new for that."""
        if record.version < self.version:
            return False
        found = record.commit_id(self.version)
        return None if found is None else found == self.commit_id


class Operations(msgspec.Struct, eq=False):
    """The operations of one commit whose outcome is unknown.

    Attributes:
        log: the operations.
        attempts: the store calls that may have applied them.
        renewal: the login or the rotation that these calls carry out; None for none.
        created: the record that these calls insert; None if they save.
        verifier: of ``created``.
        kept_on_failure: a failing request carries them out, too: they put a claimed value back.
    """

    log: OperationLog
    attempts: list[Attempt]
    renewal: Login | Rotation | None = None
    created: Record | None = None
    verifier: bytes = b""
    kept_on_failure: bool = False

    def applied(self, record: Record) -> bool | None:
        """Return whether ``record`` contains the operations; None if it is too new for that."""
        outcomes = [attempt.applied(record) for attempt in self.attempts]
        if True in outcomes:
            return True
        return None if None in outcomes else False


class Claim(msgspec.Struct, eq=False):
    """A claim whose outcome is unknown.

    Attributes:
        attempt: the store call that removes the key.
        value: the encoded value, which no caller has received.
    """

    attempt: Attempt
    value: bytes


class UnsettledCommits(msgspec.Struct, eq=False):
    """What the commits and claims of one working copy may have written.

    The store call of a commit was cancelled, timed out or lost its connection. Each commit has a
    random ID, and a record contains the IDs of its last four commits. So the next record that is
    read shows whether the commit was applied.

    Attributes:
        operations: in the order of the commits.
        claims: by key.
    """

    operations: list[Operations] = []
    claims: dict[str, Claim] = {}

    def add_attempt(self, attempt: Attempt, *, failed: bool = False) -> None:
        """Record an interrupted call that contained the operations.

        Args:
            attempt: the call.
            failed: of a failing request; see ``apply``.
        """
        for operations in self.operations:
            if operations.kept_on_failure or not failed:
                operations.attempts.append(attempt)

    def created(self) -> Record | None:
        """Return the record that an interrupted call may have inserted; None if there is none."""
        return next((each.created for each in self.operations), None)

    def verifier_of(self, record: Record) -> bytes:
        """Return the verifier of a record that an interrupted call inserted.

        Empty if no such call inserted it.
        """
        for operations in self.operations:
            if operations.created is not None and operations.applied(record):
                return operations.verifier
        return b""

    def apply(self, data: dict[str, bytes], *, failed: bool = False) -> dict[str, bytes]:
        """Return ``data`` with the unsettled operations applied.

        Args:
            data: of the newest known record.
            failed: the request fails; only the values of claims are put back (law A10).
        """
        for operations in self.operations:
            if operations.kept_on_failure or not failed:
                data = operations.log.replay(data)
        return data

    def changes_failing_request(self) -> bool:
        """Return whether a failing request has to commit."""
        return bool(self.claims) or any(each.kept_on_failure for each in self.operations)

    def settle(self, record: Record) -> tuple[list[Operations], list[str]]:
        """Remove what ``record`` shows to be applied, or is too new to show.

        Args:
            record: newer than the record that the commits were based on.

        Returns:
            The operations that are applied, and the keys whose outcome stays unknown.
        """
        applied: list[Operations] = []
        unknown: list[str] = []
        kept: list[Operations] = []
        for operations in self.operations:
            outcome = operations.applied(record)
            if outcome:
                applied.append(operations)
            elif outcome is None:
                unknown += operations.log.keys
            else:
                kept.append(operations)
        self.operations = kept
        for key, claim in list(self.claims.items()):
            outcome = claim.attempt.applied(record)
            if outcome is False and record.version < claim.attempt.version:
                continue  # it may still arrive
            del self.claims[key]
            if outcome:  # no caller received the value: put it back
                log = OperationLog(keys={key: [Default(claim.value)]})
                self.operations.append(Operations(log, [], kept_on_failure=True))
            elif outcome is None:
                unknown.append(key)
        return applied, unknown
