"""A1 to A24 with ``near_cache``, over a store with broadcast."""

from sojourn.store import SupportsBroadcast
from tests.contract import test_applications as applications
from tests.support.broadcast_store import BroadcastingStore, FaultyBroadcastingStore, confirm


class WithNearCache:
    """Serves each application with a near cache whose subscription is confirmed."""

    def make_store(self):
        return BroadcastingStore()

    def serve(self, handlers, *, skew=None, **options):
        store = options.setdefault("store", FaultyBroadcastingStore(self.make_store()))
        if isinstance(store, SupportsBroadcast):  # some tests bring a store of their own
            options["near_cache"] = "10 seconds"
        served = super().serve(handlers, skew=skew, **options)
        if "near_cache" in options:
            confirm(served.sessions)
        return served


class TestStarlette(WithNearCache, applications.TestStarlette):
    """A1 to A24 through Starlette."""


class TestBareASGI(WithNearCache, applications.TestBareASGI):
    """A1 to A24 through an ASGI callable."""


class TestBareWSGI(WithNearCache, applications.TestBareWSGI):
    """A1 to A24 through a WSGI callable."""
