"""EventLog: log lines about security events (ASVS 16.3), and one for each outage of the store."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from sojourn.errors import StoreError
from sojourn.events import (
    Authenticated,
    Created,
    Dispatcher,
    Event,
    Expired,
    Read,
    Rejected,
    Reused,
    Revoked,
    StoreFailed,
    Touched,
    Written,
)
from sojourn.stores.urls import without_password

logger: logging.Logger = logging.getLogger("sojourn")

#: Seconds between two lines about the same thing that visitors can cause at will.
_LINE_INTERVAL: Final = 60.0

#: Seconds without a failure after which an outage is over. A store that fails now and then has one
#: outage, not one for each failure.
_QUIET_TIME: Final = 5.0

#: Subjects that one ``RateLimit`` distinguishes; visitors can invent origins.
_MAX_SUBJECTS: Final = 100

#: Characters of a text from outside in a line.
_MAX_TEXT: Final = 500

#: Operations that only read. Any other one has recovered when something was written.
_READ_OPERATIONS: Final = frozenset({"load", "ping", "server_time"})

#: Events of a store that answered, by what they prove. Their listeners are registered during an
#: outage only, because the first two belong to the ordinary request.
_READ_EVENTS: Final[tuple[type[Event], ...]] = (Read,)
_WRITE_EVENTS: Final[tuple[type[Event], ...]] = (Written, Created, Touched)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: The last millisecond of the year 9999, the end of ``datetime``'s range.
_MAX_INSTANT: Final = 253_402_300_799_999


class RateLimit:
    """Admits one line for each subject and interval, and counts the others.

    Args:
        clock: seconds; monotonic.
    """

    __slots__ = ("_clock", "_lock", "_missed", "_next_line_at", "_process_id")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reset()

    def _reset(self) -> None:
        """Start with no subject: at first, and in a child after a fork, whose lock may be held."""
        self._process_id = os.getpid()
        self._lock = threading.Lock()
        self._next_line_at: dict[str, float] = {}
        self._missed: Counter[str] = Counter()

    def admit(self, subject: str) -> int:
        """Count an occurrence.

        Args:
            subject: what the line would be about.

        Returns:
            How many occurrences the line has to report, with this one; 0 for no line.
        """
        if self._process_id != os.getpid():
            self._reset()
        now = self._clock()
        with self._lock:
            due_at = self._next_line_at.get(subject)
            if due_at is None and len(self._next_line_at) >= _MAX_SUBJECTS:
                self._discard_old(now)
                if len(self._next_line_at) >= _MAX_SUBJECTS:
                    subject = ""  # all further subjects share one line
                    due_at = self._next_line_at.get(subject)
            if due_at is not None and now < due_at:
                self._missed[subject] += 1
                return 0
            self._next_line_at[subject] = now + _LINE_INTERVAL
            return 1 + self._missed.pop(subject, 0)

    def pop_due(self, *, everything: bool = False) -> list[tuple[str, int]]:
        """Return the subjects whose line is due, with their counts, and reset these.

        Args:
            everything: also those whose interval has not passed.
        """
        if not self._missed or self._process_id != os.getpid():
            return []
        now = self._clock()
        with self._lock:
            due = [
                (subject, count)
                for subject, count in self._missed.items()
                if everything or now >= self._next_line_at[subject]
            ]
            for subject, _ in due:
                del self._missed[subject]
                self._next_line_at[subject] = now + _LINE_INTERVAL
        return due

    def _discard_old(self, now: float) -> None:
        for subject, due_at in list(self._next_line_at.items()):
            if now >= due_at and not self._missed[subject]:
                del self._next_line_at[subject]


class _Outage:
    """An outage that has not ended.

    Attributes:
        failures: failed calls by operation.
        tracebacks: types of the application's errors whose traceback was logged.
        writing_failed: no later call that writes has succeeded.
        recovered_at: when the store answered again; None until then.
    """

    __slots__ = (
        "failed_at",
        "failures",
        "recovered_at",
        "started_at",
        "tracebacks",
        "writing_failed",
    )

    def __init__(self, now: float) -> None:
        self.started_at = now
        self.failed_at = now
        self.failures: Counter[str] = Counter()
        self.tracebacks: set[str] = set()
        self.writing_failed = False
        self.recovered_at: float | None = None

    def fail(self, operation: str, now: float) -> None:
        self.failures[operation] += 1
        self.failed_at = now
        self.recovered_at = None
        if operation not in _READ_OPERATIONS:
            self.writing_failed = True

    def succeed(self, now: float, *, wrote: bool) -> bool:
        """Return whether the outage is over."""
        self.writing_failed = self.writing_failed and not wrote
        if self.writing_failed:
            return False
        if self.recovered_at is None:
            self.recovered_at = now
        return now - self.failed_at >= _QUIET_TIME


class EventLog:
    """Logs security events and outages of one installation.

    It listens to no event of the ordinary request, except while an outage lasts. Lines name
    sessions by their public ID, and no user, label, ticket or actor. Fields for formatters are in
    ``extra``, with the prefix ``sojourn_``, so that they replace no field of the application.

    Args:
        dispatcher: of the installation.
        clock: seconds; monotonic.

    Attributes:
        refused_origins: limits the lines about requests of other origins.
    """

    __slots__ = (
        "_clock",
        "_dispatcher",
        "_lock",
        "_outage",
        "_process_id",
        "_rejections",
        "_reuses",
        "refused_origins",
    )

    def __init__(
        self, dispatcher: Dispatcher, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._rejections = RateLimit(clock)
        self._reuses = RateLimit(clock)
        self.refused_origins: RateLimit = RateLimit(clock)
        self._outage: _Outage | None = None
        self._reset()
        dispatcher.on(Authenticated, self._on_authenticated)
        dispatcher.on(Revoked, self._on_revoked)
        dispatcher.on(Expired, self._on_expired)
        dispatcher.on(Reused, self._on_reused)
        dispatcher.on(Rejected, self._on_rejected)
        dispatcher.on(StoreFailed, self._on_store_failed)

    def _reset(self) -> None:
        """Start without an outage: at first, and in a child after a fork."""
        self._process_id = os.getpid()
        self._lock = threading.Lock()
        if self._outage is not None:
            self._outage = None
            self._ignore_success()

    def close(self) -> None:
        """Log the counts of rejected tickets that wait for their line."""
        for reason, count in self._rejections.pop_due(everything=True):
            _log_rejected(reason, count, "")

    # Security events

    def _on_authenticated(self, event: Authenticated) -> None:
        self._succeeded(wrote=True)
        if logger.isEnabledFor(logging.INFO):
            logger.info(
                "session %s: a user logged in by %s",
                event.session_id,
                escape(", ".join(event.methods)) or "an unstated method",
                extra=_fields(event, sojourn_methods=list(event.methods)),
            )

    def _on_revoked(self, event: Revoked) -> None:
        self._succeeded(wrote=True)
        if not logger.isEnabledFor(logging.INFO):
            return
        reason = escape(event.reason)
        fields = _fields(event, sojourn_reason=reason)
        if not event.session_id:
            until = _EPOCH + timedelta(milliseconds=min(event.instant, _MAX_INSTANT))
            logger.info(
                "every session that was created before %s was revoked: %s",
                until.isoformat(timespec="milliseconds"),
                reason,
                extra=fields,
            )
        elif event.reason in ("destroyed", "logout") and event.actor is None:
            logger.info("session %s was ended by its visitor", event.session_id, extra=fields)
        elif event.reason == "limit":
            logger.info(
                "session %s was revoked, because its user has more than max_sessions",
                event.session_id,
                extra=fields,
            )
        else:
            logger.info("session %s was revoked: %s", event.session_id, reason, extra=fields)

    def _on_expired(self, event: Expired) -> None:
        self._succeeded(wrote=True)
        if logger.isEnabledFor(logging.INFO):
            logger.info(
                "session %s has expired: %s",
                event.session_id,
                event.limit,
                extra=_fields(event, sojourn_reason=event.limit),
            )

    def _on_reused(self, event: Reused) -> None:
        count = self._reuses.admit(event.session_id)
        if count:
            logger.warning(
                "session %s: a former ticket was used again, which indicates that it was stolen; "
                "occurrences since the last line: %d",
                event.session_id,
                count,
                extra=_fields(event, sojourn_count=count),
            )

    def _on_rejected(self, event: Rejected) -> None:
        if event.session_id:  # a record was requested
            self._succeeded(wrote=False)
        # An error text follows "unreadable"; it must not make another subject.
        reason = event.reason.partition(":")[0]
        count = self._rejections.admit(reason)
        for other, missed in self._rejections.pop_due():
            _log_rejected(other, missed, "")
        if count:
            _log_rejected(reason, count, event.session_id)

    # Outages

    def _on_store_failed(self, event: StoreFailed) -> None:
        if self._process_id != os.getpid():
            self._reset()
        now = self._clock()
        with self._lock:
            outage = self._outage
            is_new = outage is None
            if outage is None:
                outage = self._outage = _Outage(now)
            outage.fail(event.operation, now)
            if is_new:
                for kind in _READ_EVENTS:
                    self._dispatcher.on(kind, self._on_read)
                for kind in _WRITE_EVENTS:
                    self._dispatcher.on(kind, self._on_written)
        if is_new and logger.isEnabledFor(logging.WARNING):
            error = escape(without_password(event.error))
            logger.warning(
                "the session store failed (%s): %s. Further failures are counted until it answers",
                event.operation,
                error,
                extra={
                    "sojourn_event": "StoreFailed",
                    "sojourn_operation": event.operation,
                    "sojourn_error": error,
                },
            )

    def store_answered(self) -> None:
        """Record a call that succeeded and has no event, such as a ping."""
        self._succeeded(wrote=False)

    def _on_read(self, _: Event) -> None:
        self._succeeded(wrote=False)

    def _on_written(self, _: Event) -> None:
        self._succeeded(wrote=True)

    def _succeeded(self, *, wrote: bool) -> None:
        outage = self._outage
        if outage is None:
            return
        if self._process_id != os.getpid():
            self._reset()
            return
        now = self._clock()
        with self._lock:
            if self._outage is not outage or not outage.succeed(now, wrote=wrote):
                return
            self._outage = None
            self._ignore_success()
        _log_recovered(outage)

    def _ignore_success(self) -> None:
        for kind in _READ_EVENTS:
            self._dispatcher.off(kind, self._on_read)
        for kind in _WRITE_EVENTS:
            self._dispatcher.off(kind, self._on_written)

    def log_failure(self, message: str, error: StoreError) -> None:
        """Log that a store error has failed one request or socket.

        Args:
            message: with ``%s`` for the error.
            error: of the store; ``level`` decides on the level.
        """
        logger.log(self.level(error), message, error, exc_info=error.application_error)

    def level(self, error: StoreError) -> int:
        """Return the level of a line about one request or socket that a store error has failed.

        An outage has such a line for each request. It adds nothing to the line of the outage, but
        for the traceback of an error of the application's own functions.

        Args:
            error: of the store.

        Returns:
            DEBUG if an outage is logged and, for an error of the application, its type too;
            otherwise ERROR.
        """
        if self._process_id != os.getpid():
            self._reset()
        with self._lock:
            outage = self._outage
            if outage is None:
                return logging.ERROR
            if error.application_error is None:
                return logging.DEBUG
            kind = type(error.application_error).__qualname__
            if kind in outage.tracebacks:
                return logging.DEBUG
            outage.tracebacks.add(kind)
            return logging.ERROR


def _log_rejected(reason: str, count: int, session_id: str) -> None:
    """Log that tickets were rejected.

    Args:
        reason: of all of them.
        count: of tickets.
        session_id: of one of them; empty if unknown.
    """
    level = logging.WARNING if reason in ("forged", "unreadable") else logging.INFO
    if not logger.isEnabledFor(level):
        return
    reason = escape(reason)
    fields: dict[str, object] = {
        "sojourn_event": "Rejected",
        "sojourn_session": session_id or None,
        "sojourn_reason": reason,
        "sojourn_count": count,
    }
    tickets = "1 ticket was" if count == 1 else f"{count} tickets were"
    if reason == "forged":
        logger.warning(
            "%s sealed with a secret that is not in the key ring, or forged. After a change of "
            "the secret, keep the former one: secret=[new, former]",
            tickets,
            extra=fields,
        )
    elif reason == "unreadable":
        logger.warning(
            "%s rejected, because the record cannot be read; the latest is session %s. It is "
            "damaged, of a newer release, or encrypted with another secret",
            tickets,
            session_id or "unknown",
            extra=fields,
        )
    elif session_id:
        logger.info(
            "%s rejected: %s; the latest is of session %s",
            tickets,
            reason,
            session_id,
            extra=fields,
        )
    else:
        logger.info("%s rejected: %s", tickets, reason, extra=fields)


def _log_recovered(outage: _Outage) -> None:
    if not logger.isEnabledFor(logging.WARNING):
        return
    recovered_at = outage.failed_at if outage.recovered_at is None else outage.recovered_at
    seconds = round(recovered_at - outage.started_at, 1)
    total = outage.failures.total()
    logger.warning(
        "the session store answers again after %.1f seconds; failed calls: %d (%s)",
        seconds,
        total,
        ", ".join(f"{name} {count}" for name, count in sorted(outage.failures.items())),
        extra={
            "sojourn_event": "StoreRecovered",
            "sojourn_seconds": seconds,
            "sojourn_count": total,
            "sojourn_operations": dict(outage.failures),
        },
    )


def _fields(event: Event, **others: object) -> dict[str, object]:
    """Return the fields of a line for formatters, such as those that write JSON."""
    return {
        "sojourn_event": type(event).__name__,
        "sojourn_session": event.session_id or None,
        **others,
    }


def escape(text: str) -> str:
    r"""Return a text from outside as a part of one line: control characters as ``\n``, shortened.

    A reason or an origin with a line break would forge an entry of the log (ASVS 16.4.1).
    """
    if len(text) > _MAX_TEXT:
        text = text[:_MAX_TEXT] + "…"
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )
