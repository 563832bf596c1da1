"""JoinedSubscription: one subscription to the messages of two stores."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from sojourn.store import MessageHandler, Subscription, SupportsBroadcast


class JoinedSubscription:
    """Subscribes to both stores: some processes still write to the old one.

    A message that arrives twice is harmless (law S17).

    Args:
        stores: to subscribe to.
        on_message: see ``SupportsBroadcast.subscribe``.
        on_gap: see there.
    """

    def __init__(
        self,
        stores: tuple[SupportsBroadcast, ...],
        on_message: MessageHandler,
        on_gap: Callable[[], object],
    ) -> None:
        self._subscriptions: list[Subscription] = []
        with ExitStack() as opened:
            for store in stores:
                subscription = store.subscribe(on_message, on_gap)
                opened.callback(subscription.close)
                self._subscriptions.append(subscription)
            opened.pop_all()

    def watch(self, session_id: bytes) -> None:
        """Also receive ``changed`` messages of a session."""
        for subscription in self._subscriptions:
            subscription.watch(session_id)

    def unwatch(self, session_id: bytes) -> None:
        """Stop receiving the ``changed`` messages of a session."""
        for subscription in self._subscriptions:
            subscription.unwatch(session_id)

    def close(self) -> None:
        """End both subscriptions."""
        for subscription in self._subscriptions:
            subscription.close()
