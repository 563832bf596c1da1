"""Purger: removes expired records in the background, for stores that do not do so by themselves.

Its daemon thread starts with the first session of a process: nothing runs at import, in a parent
that only forks, or in a program without sessions.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Final

from sojourn._core.concurrency import run
from sojourn.errors import StoreError
from sojourn.store import Store

logger: logging.Logger = logging.getLogger("sojourn")

#: Records that one call of ``purge`` removes: about a millisecond of work.
MAX_BATCH: Final = 500

#: Seconds between two such calls, so that requests are served first.
_PAUSE_BETWEEN_BATCHES: Final = 0.01

#: Two threads that have a process's first sessions start one purger.
_start_lock: Final = threading.Lock()


class Purger:
    """Purges one store every ``interval`` seconds, once ``start`` was called.

    Args:
        store: its calls must not need an event loop.
        clock: returns milliseconds since 1970 UTC.
        interval: seconds between two purges of the whole store.
        synchronize: called before each purge, so that ``clock`` is that of the server; None if the
            store has no clock.

    Attributes:
        observer: called with the number of records that a purge of the whole store removed; None
            for none.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_interval",
        "_process",
        "_stop",
        "_store",
        "_synchronize",
        "observer",
    )

    def __init__(
        self,
        store: Store,
        clock: Callable[[], int],
        interval: float,
        synchronize: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._synchronize = synchronize
        self._interval = interval
        self._process = 0
        self._stop = threading.Event()
        self.observer: Callable[[int], object] | None = None

    def start(self) -> None:
        """Start the thread unless it runs in this process; a forked child inherits none."""
        if self._process == os.getpid():
            return
        with _start_lock:
            if self._process == os.getpid():
                return
            self._process = os.getpid()
            self._stop = threading.Event()
        threading.Thread(
            target=_purge_periodically,
            args=(weakref.ref(self), self._stop, self._interval),
            name="sojourn-purger",
            daemon=True,
        ).start()

    def stop(self) -> None:
        """End the thread after its current batch."""
        self._stop.set()

    def purge_expired(self) -> int:
        """Purge the whole store once; return the number of records removed."""
        if self._synchronize is not None:
            run(self._synchronize())
        total, finished = 0, False
        while not finished and not self._stop.is_set():
            removed, finished = run(self._store.purge(self._clock(), MAX_BATCH))
            total += removed
            self._stop.wait(_PAUSE_BETWEEN_BATCHES)
        if finished and self.observer is not None:
            self.observer(total)
        return total


def _purge_periodically(
    reference: weakref.ref[Purger], stop: threading.Event, interval: float
) -> None:
    """Purge until stopped, or until the purger is collected."""
    while not stop.wait(interval):
        purger = reference()
        if purger is None:
            return
        try:
            purger.purge_expired()
        except StoreError as error:
            logger.warning("expired sessions could not be removed, will be retried: %s", error)
        except Exception:  # a thread that ended would let the store grow without bounds (B-54)
            logger.exception("expired sessions could not be removed, will be retried")
        del purger
