"""Instrumentation: places the hooks in an installation, and removes them with the last recorder."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self, cast

from sojourn.errors import ConfigurationError
from sojourn.events import Event
from sojourn.store import NeedsPurge, SupportsBatchObservers
from sojourn.telemetry.failure_log import FailureLog
from sojourn.telemetry.instrumented_store import InstrumentedStore
from sojourn.telemetry.live_sessions import LiveSessionCounter
from sojourn.telemetry.recorder import COUNTED, Recorder

if TYPE_CHECKING:
    from sojourn._core.observer import EngineObserver
    from sojourn.sessions import Sessions

#: Telemetry is switched on and off by one thread at a time.
_lock: Final = threading.Lock()


class Instrumentation:
    """The hooks of one installation.

    Args:
        sessions: the installation.

    Attributes:
        recorders: take each measurement.
        observer: records the spans; None for none.
        counters: count the live sessions; kept here, because callers may discard ``Telemetry``.
    """

    def __init__(self, sessions: Sessions[Any]) -> None:
        self._sessions = sessions
        self._store = sessions.engine.store
        self._failures = FailureLog()
        self.recorders: tuple[Recorder, ...] = ()
        self.observer: EngineObserver | None = None
        self.counters: set[LiveSessionCounter] = set()

    @classmethod
    def of(cls, sessions: Sessions[Any]) -> Instrumentation:
        """Return the instrumentation of an installation; a new one if it has none."""
        store = sessions.engine.store
        if isinstance(store, InstrumentedStore):
            return cast("Instrumentation", store.owner)
        return cls(sessions)

    def add(self, recorder: Recorder) -> None:
        """Record to a recorder from now on."""
        is_first = not self.recorders
        self._use_recorders((*self.recorders, recorder))
        if is_first:
            self._install_hooks()
        recorder.connections(self._sessions.connections.total())
        if isinstance(self._sessions.store, NeedsPurge):
            recorder.purged(None)

    def remove(self, recorder: Recorder) -> None:
        """Stop recording to a recorder."""
        self._use_recorders(tuple(each for each in self.recorders if each is not recorder))
        recorder.connections(-self._sessions.connections.total())
        recorder.close()
        if not self.recorders:
            self._remove_hooks()

    def observe(self, observer: EngineObserver | None) -> None:
        """Record the spans of loads and commits with an observer; None for none."""
        self.observer = observer
        self._sessions.engine.observe(observer)

    def _use_recorders(self, recorders: tuple[Recorder, ...]) -> None:
        """Measure the calls of the store for these recorders; without any, do not measure them."""
        self.recorders = recorders
        store = InstrumentedStore(self._store, self) if recorders else self._store
        self._sessions.engine.use_store(store)

    def call_observer(
        self, operation: str, result: str, error: str | None
    ) -> Callable[[float], object]:
        """Return a function that records a store call with every recorder."""
        observers = [each.call_observer(operation, result, error) for each in self.recorders]
        if len(observers) == 1:
            return observers[0]

        def observe(seconds: float) -> None:
            for observer in observers:
                try:
                    observer(seconds)
                except Exception as failure:  # noqa: BLE001 - the next recorder may work
                    self.observation_failed(failure)

        return observe

    def _install_hooks(self) -> None:
        sessions = self._sessions
        for kind in COUNTED:
            sessions.dispatcher.on(kind, self._event)
        store = sessions.store
        if isinstance(store, SupportsBatchObservers):
            store.add_batch_observer(self._batch)
        sessions.connections.count_observer = self._connections
        for receiver in (sessions.broadcaster, sessions.near_cache_subscriber):
            if receiver is not None:
                receiver.gap_observer = self._broadcast_gap
        if sessions.purger is not None:
            sessions.purger.observer = self._purged

    def _remove_hooks(self) -> None:
        sessions = self._sessions
        for kind in COUNTED:
            sessions.dispatcher.off(kind, self._event)
        store = sessions.store
        if isinstance(store, SupportsBatchObservers):
            store.remove_batch_observer(self._batch)
        sessions.connections.count_observer = None
        for receiver in (sessions.broadcaster, sessions.near_cache_subscriber):
            if receiver is not None:
                receiver.gap_observer = None
        if sessions.purger is not None:
            sessions.purger.observer = None

    # Measurements. An error of an exporter must not fail a request (security.md B-34).

    def _batch(self, size: int, seconds: float, /, *, failed: bool) -> None:
        self._record(lambda recorder: recorder.batch(size, seconds, failed=failed))

    def _event(self, event: Event) -> None:
        self._record(lambda recorder: recorder.event(event))

    def _connections(self, change: int) -> None:
        self._record(lambda recorder: recorder.connections(change))

    def _broadcast_gap(self) -> None:
        self._record(lambda recorder: recorder.broadcast_gap())

    def _purged(self, removed: int) -> None:
        self._record(lambda recorder: recorder.purged(removed))

    def _record(self, record: Callable[[Recorder], None]) -> None:
        for recorder in self.recorders:
            try:
                record(recorder)
            except Exception as failure:  # noqa: BLE001 - logged by the method
                self.observation_failed(failure)

    def observation_failed(self, error: Exception) -> None:
        """Log the first error of an exporter."""
        self._failures.report(error)


class Telemetry:
    """Telemetry that is switched on; ``close`` switches it off. Also a context manager.

    ``telemetry.prometheus`` and ``telemetry.opentelemetry`` return it.
    """

    def __init__(
        self,
        instrumentation: Instrumentation,
        recorder: Recorder | None,
        observer: EngineObserver | None,
        counter: LiveSessionCounter | None,
    ) -> None:
        self._instrumentation = instrumentation
        self._recorder = recorder
        self._observer = observer
        self._counter = counter

    def close(self) -> None:
        """Stop recording, and remove what was placed in the installation. Idempotent.

        Counters and histograms keep their values.
        """
        with _lock:
            recorder, observer, counter = self._recorder, self._observer, self._counter
            self._recorder = self._observer = self._counter = None
            if counter is not None:
                self._instrumentation.counters.discard(counter)
                counter.stop()
            if recorder is not None:
                self._instrumentation.remove(recorder)
            if observer is not None:
                self._instrumentation.observe(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def attach(
    sessions: Sessions[Any],
    *,
    recorder: Recorder | None = None,
    observer: EngineObserver | None = None,
    counter: LiveSessionCounter | None = None,
) -> Telemetry:
    """Record the measurements and spans of an installation.

    Raises:
        ConfigurationError: it already records to this target, or has spans.
    """
    with _lock:
        instrumentation = Instrumentation.of(sessions)
        if recorder is not None and any(
            each.target is recorder.target for each in instrumentation.recorders
        ):
            raise ConfigurationError(
                f"the sessions of realm {sessions.config.realm!r} have these metrics already; "
                "expected one call for each registry or provider. Close the result of the first "
                "call before the second one"
            )
        if observer is not None and sessions.engine.observed:
            raise ConfigurationError(
                f"the sessions of realm {sessions.config.realm!r} have spans already; expected "
                "one call. Close the result of the first call, or call with spans=False"
            )
        if recorder is not None:
            instrumentation.add(recorder)
            if counter is not None:
                instrumentation.counters.add(counter)
                counter.start(recorder.live_sessions)
        if observer is not None:
            instrumentation.observe(observer)
        return Telemetry(instrumentation, recorder, observer, counter)
