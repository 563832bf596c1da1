"""Purger: forgets expired records in the background, where a store does not do so by itself.

What lives here: one daemon thread for each store that ``Sweeps``. What must not: what is expired
(``_core/policy.py``) and how it is removed (each store's ``purge``).

The thread starts with the first session of a process, so that nothing runs at import, in a parent
that only forks, or in a program that never has a session.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Final

from sojourn._core.concurrency import run
from sojourn.errors import StoreError
from sojourn.store import Store

logger: logging.Logger = logging.getLogger("sojourn")

#: Records removed by one call of ``purge``: about a millisecond of work.
BATCH: Final = 500

#: Seconds between two such calls, so that requests come first.
_BREATH: Final = 0.01

#: Two first sessions at once start one thread.
_starting: Final = threading.Lock()


class Purger:
    """Calls ``purge`` of one store every ``interval`` seconds once ``start`` was called.

    Args:
        store: its calls must not need an event loop.
        clock: milliseconds since 1970 UTC.
        interval: seconds between two rounds.
    """

    __slots__ = ("__weakref__", "_clock", "_interval", "_process", "_stop", "_store")

    def __init__(self, store: Store, clock: Callable[[], int], interval: float) -> None:
        self._store = store
        self._clock = clock
        self._interval = interval
        self._process = 0
        self._stop = threading.Event()

    def start(self) -> None:
        """Start the thread unless it runs in this process already (a fork does not inherit it)."""
        if self._process == os.getpid():
            return
        with _starting:
            if self._process == os.getpid():
                return
            self._process = os.getpid()
            self._stop = threading.Event()
        threading.Thread(
            target=_sweep,
            args=(weakref.ref(self), self._stop, self._interval),
            name="sojourn-sweeper",
            daemon=True,
        ).start()

    def stop(self) -> None:
        """Let the thread end."""
        self._stop.set()

    def round(self) -> int:
        """Purge once through the whole store and return how many records went."""
        total, finished = 0, False
        while not finished and not self._stop.is_set():
            removed, finished = run(self._store.purge(self._clock(), BATCH))
            total += removed
            self._stop.wait(_BREATH)
        return total


def _sweep(reference: weakref.ref[Purger], stop: threading.Event, interval: float) -> None:
    """Run until stopped, or until nobody else has the sweeper any more."""
    while not stop.wait(interval):
        sweeper = reference()
        if sweeper is None:
            return
        try:
            sweeper.round()
        except StoreError as error:
            logger.warning("expired sessions could not be removed, trying again later: %s", error)
        except Exception:  # a thread that died would leave the store to grow without bounds (B-54)
            logger.exception("expired sessions could not be removed, trying again later")
        del sweeper
