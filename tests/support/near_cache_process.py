"""A simulated process with a near cache: its installation, and requests without a server."""

from unittest.mock import patch

import sojourn
from sojourn._core.concurrency import run
from sojourn.store import BroadcastMessage
from sojourn.web.lifecycle import SessionLifecycle
from tests.support.broadcast_store import BusSubscription
from tests.support.small_stores import METHODS

SECRET = "near cache: 5Vq8Lw2Zt7Hn4Ks9"


class Time:
    """The monotonic clock and the wall clock of one machine."""

    def __init__(self):
        self.now = 1_000.0
        self.step = 0.0

    def monotonic(self):
        return self.now

    def wall(self):
        return 1_700_000_000.0 + self.now + self.step


class OneStore:
    """The store of one process, with a bus of its own.

    Args:
        shared: the store of all processes.
        buses: of all processes; messages of this process are sent to each.
        bus: of this process.
    """

    def __init__(self, shared, buses, bus):
        for name in (*METHODS, "create_many"):
            setattr(self, name, getattr(shared, name))
        self.buses, self.bus = buses, bus

    async def delete_many(self, session_ids):
        return [await self.delete(session_id) for session_id in session_ids]

    async def publish(self, kind, *session_ids, version=0, reason=""):
        for bus in self.buses:
            for session_id in session_ids:
                bus.publish(BroadcastMessage(1, kind, session_id, version, reason))

    def subscribe(self, on_message, on_gap):
        return BusSubscription(self.bus, on_message, on_gap)


class Broadcaster:
    """Publishes in the calling thread; replaces the library's class."""

    def __init__(self, store, *_):
        self._store = store

    def publish(self, kind, session_ids, *, version=0, reason=""):
        run(self._store.publish(kind, *session_ids, version=version, reason=reason))

    def close(self):
        """Do nothing: there is no thread."""


class Client:
    """A cookie jar that expires cookies by the clock of its own machine."""

    def __init__(self, time):
        self.time = time
        self.cookies = {}

    def header(self):
        kept = {k: v for k, (v, until) in self.cookies.items() if self.time.now < until}
        return "; ".join(f"{name}={value}" for name, value in kept.items()).encode() or None

    def take(self, headers):
        for name, value in headers:
            if name == b"set-cookie":
                pair, *attributes = value.decode().split("; ")
                ages = [a for a in attributes if a.startswith("Max-Age=")]
                lifetime = int(ages[0].partition("=")[2]) if ages else 1e9
                key, _, text = pair.partition("=")
                self.cookies[key] = (text, self.time.now + lifetime)

    def copy(self):
        """Return a client with the ticket only, as an attacker who has stolen it."""
        other = Client(self.time)
        other.cookies = {k: v for k, v in self.cookies.items() if not k.endswith("-written")}
        return other


class Request(SessionLifecycle):
    def __init__(self, web, method):
        super().__init__(web)
        self._method = method

    def method(self):
        return self._method


class Process:
    """One process, whose subscriber runs in the calling thread.

    Args:
        store: shared with other processes.
        time: of the machine.
        options: of the installation.
    """

    def __init__(self, store, time, **options):
        self.time = time
        with patch("sojourn.sessions.Broadcaster", Broadcaster):
            self.sessions = sojourn.Sessions(
                store=store,
                secret=SECRET,
                clock=lambda: int(time.wall() * 1000),
                **{"near_cache": "1 second", **options},
            )
        self.cache = self.sessions.engine.context.near_cache
        self.subscriber = self.sessions.near_cache_subscriber
        if self.cache is not None:
            self.cache.monotonic, self.cache.wall = time.monotonic, time.wall
            # The tests confirm explicitly: a thread would do so at any instant.
            self.cache.request_confirmation = None
            self.subscriber.request_confirmation = lambda: None

    def request(self, client, act=None, *, method="GET", status=200):
        """Send a request; return the data of its session, None if there was none."""
        self.time.now += 0.002
        request = Request(self.sessions.web, method)
        waiting = request.begin("https", b"localhost", client.header())
        if waiting is not None:
            run(waiting)
        session = request.session
        found = dict(session) if request.working_copy.record is not None else None
        if act is not None:
            act(session)
        sent = request.respond(status, [], True)
        client.take(sent if isinstance(sent, list) else run(sent))
        return found

    def confirm(self):
        """Confirm the subscription."""
        while not self.cache.is_confirmed():
            self.subscriber.probe()

    def warm(self, client):
        """Load the record of a client into the cache."""
        self.confirm()
        self.request(client)
        assert self.cache.get(self.session_id(client)) is not None

    def session_id(self, client):
        name = next(name for name in client.cookies if not name.endswith("-written"))
        value, _ = client.cookies[name]
        ticket = self.sessions.web.read_ticket(
            self.sessions.web.classify("https", None, False), f"{name}={value}".encode()
        )
        return ticket.session_id
