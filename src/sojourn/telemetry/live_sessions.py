"""LiveSessionCounter: counts the live sessions of a store in a thread, at most every n seconds."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from sojourn.errors import ConfigurationError, SojournError
from sojourn.store import RequiresEventLoop, SupportsCount

if TYPE_CHECKING:
    from sojourn.sessions import Sessions

logger: logging.Logger = logging.getLogger("sojourn")


class LiveSessionCounter:
    """Counts once at its start and then every ``interval`` seconds; also after a fork.

    Args:
        count: returns the number of live sessions; may wait for the store.
        interval: seconds.
    """

    def __init__(self, count: Callable[[], int], interval: float) -> None:
        self._count = count
        self._interval = interval
        self._report: Callable[[int], object] | None = None
        self._stop = threading.Event()
        self._failing = False

    @classmethod
    def of(cls, sessions: Sessions[Any], interval: float | None) -> Self | None:
        """Return a counter of an installation; None without an interval.

        Raises:
            ConfigurationError: the store cannot count in a thread, or the interval is no positive
                number.
        """
        if interval is None:
            return None
        store = sessions.store
        given: object = interval  # callers without a type checker may pass anything
        if (
            isinstance(given, bool)
            or not isinstance(given, int | float)
            or not 0 < given <= threading.TIMEOUT_MAX  # also false for NaN
        ):
            raise ConfigurationError(
                f"count_interval expects seconds greater than 0, found {interval!r}"
            )
        if not isinstance(store, SupportsCount):
            raise ConfigurationError(
                f"count_interval expects a store that can count its sessions, found {store!r}; "
                "leave it out"
            )
        advice = store.requires_event_loop() if isinstance(store, RequiresEventLoop) else None
        if advice is not None:
            raise ConfigurationError(
                f"count_interval counts in a thread, and {store!r} needs an event loop: {advice}; "
                "or leave it out"
            )
        return cls(sessions.count, interval)

    def start(self, report: Callable[[int], object]) -> None:
        """Start the thread; it calls ``report`` with each number."""
        self._report = report
        _instances.add(self)
        self._start_thread()

    def stop(self) -> None:
        """End the thread after its current count. Idempotent."""
        _instances.discard(self)
        self._stop.set()

    def after_fork(self) -> None:
        """Start a thread in a child process, which has inherited none."""
        self._stop = threading.Event()
        self._start_thread()

    def _start_thread(self) -> None:
        threading.Thread(
            target=_count_periodically,
            args=(weakref.ref(self), self._stop, self._interval),
            name="sojourn-telemetry",
            daemon=True,
        ).start()

    def count_once(self) -> None:
        """Count and report; log the first of several failures."""
        try:
            number = self._count()
        except SojournError as error:
            if not self._failing:
                self._failing = True
                logger.warning("live sessions cannot be counted, will be retried: %s", error)
            return
        self._failing = False
        if self._report is not None and not self._stop.is_set():
            self._report(number)


def _count_periodically(
    reference: weakref.ref[LiveSessionCounter], stop: threading.Event, interval: float
) -> None:
    """Count until stopped, or until the counter is collected."""
    while True:
        counter = reference()
        if counter is None:
            return
        try:
            counter.count_once()
        except Exception:  # the thread continues: the next count may succeed
            logger.exception("live sessions cannot be counted, will be retried")
        del counter
        if stop.wait(interval):
            return


_instances: weakref.WeakSet[LiveSessionCounter] = weakref.WeakSet()


def _after_fork() -> None:
    for counter in list(_instances):
        counter.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
