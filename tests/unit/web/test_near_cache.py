"""Requests with a near cache: what is served from memory, and how a client reads its own writes."""

import pytest

import sojourn
from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError, SessionGone, StoreUnavailable
from sojourn.events import Reused
from sojourn.stores.memory import MemoryStore
from sojourn.testing.faults import FaultyStore
from sojourn.web.wsgi import WSGIExchange
from tests.support.broadcast_store import BroadcastingStore, Bus
from tests.support.near_cache_process import Client, OneStore, Process, Request, Time

SECRET = "near cache: 5Vq8Lw2Zt7Hn4Ks9"


class World:
    """Two processes with one store, which records the calls of both."""

    def __init__(self, **options):
        self.time = Time()
        self.memory = FaultyStore(MemoryStore())
        self.buses = [Bus(), Bus()]
        self.a, self.b = (
            Process(OneStore(self.memory, self.buses, bus), self.time, **options)
            for bus in self.buses
        )
        self.client = Client(self.time)

    def calls(self):
        found = list(self.memory.calls)
        self.memory.calls.clear()
        return found

    def visit(self, **values):
        """Create a session in process A; load its record into the memory of both processes."""
        self.a.request(self.client, lambda session: session.update(values or {"n": 1}))
        for process in (self.a, self.b):
            process.warm(self.client)
        self.calls()
        return self.client

    def close(self):
        self.a.sessions.close()
        self.b.sessions.close()


@pytest.fixture
def world():
    made = World()
    yield made
    made.close()


@pytest.fixture
def worlds():
    made = []

    def make(**options):
        made.append(World(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def put(**values):
    return lambda session: session.update(values)


# What is served from memory (N1)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
def test_a_safe_request_is_served_from_memory(world, method):
    """N1: without a call of the store, for the stated time."""
    client = world.visit()
    assert world.b.request(client, method=method) == {"n": 1}
    assert world.calls() == []
    world.time.now += 1
    assert world.b.request(client, method=method) == {"n": 1}
    assert world.calls() == ["load"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "QUERY", "", "get"])
def test_request_with_another_method_loads_from_the_store(world, method):
    """N1: an unsafe or unknown method, or a WebSocket handshake."""
    client = world.visit()
    assert world.b.request(client, method=method) == {"n": 1}
    assert world.calls() == ["load"]


@pytest.mark.parametrize("verb", ["refresh", "claim", "get", "open", "post"])
def test_verbs_that_need_the_current_record_load_it(world, verb):
    """N1: they detect a revocation whose message was lost; a plain GET does not."""
    client = world.visit()
    session_id = world.b.session_id(client).hex()
    world.buses[1].cut = True
    world.a.sessions.revoke(session_id)
    assert world.b.request(client) == {"n": 1}

    def refresh(session):
        with pytest.raises(SessionGone):
            session.refresh()

    def claim(session):
        with pytest.raises(SessionGone):
            session.claim("n")

    if verb == "refresh":
        world.b.request(client, refresh)
    elif verb == "claim":
        world.b.request(client, claim)
    elif verb == "get":
        assert world.b.sessions.get(session_id) is None
    elif verb == "open":
        with world.b.sessions.open(cookies=client.header().decode()) as opened:
            assert dict(opened.session) == {}
    else:
        assert world.b.request(client, method="POST") is None


def test_an_expired_session_is_not_served_from_memory(worlds):
    """N1, A17: by the process's own clock."""
    world = worlds(timeout="500 ms")
    client = world.visit()
    world.time.now += 0.6
    assert world.b.request(client) is None


def test_session_that_another_process_extended_is_served(worlds):
    """N1, A17: the record in memory has the older deadline."""
    world = worlds(timeout="500 ms", touch_interval="100 ms")
    client = world.visit()
    world.time.now += 0.3
    assert world.a.request(client) == {"n": 1}  # touches
    world.time.now += 0.3
    assert world.b.request(client) == {"n": 1}


def test_a_touch_is_written_once(worlds):
    """N1: the record with the older instant is removed from memory."""
    world = worlds(timeout="10 minutes", touch_interval="100 ms")
    client = world.visit()
    world.time.now += 0.3
    for _ in range(3):
        world.b.request(client)
    assert world.calls() == ["touch", "load"]


def test_an_unconfirmed_session_is_loaded_from_the_store(worlds):
    """N1: the store must record that the client received the cookie."""
    world = worlds(unconfirmed_timeout="1 minute")
    world.a.request(world.client, put(n=1))
    world.b.confirm()
    record = run(world.memory.load(world.a.session_id(world.client)))
    world.b.cache.put(world.b.cache.reserve(record.id), record)
    world.calls()
    assert world.b.request(world.client) == {"n": 1}
    assert world.calls() == ["load", "save"]


def test_a_due_rotation_is_decided_on_the_stored_record(worlds):
    """N1, A9: requests in the grace period are decided there too."""
    world = worlds(rotate_interval="500 ms")
    client = world.visit()
    assert world.b.request(client) == {"n": 1}
    assert world.calls() == []
    world.time.now += 0.6
    before = dict(client.cookies)
    world.b.request(client)
    assert world.calls() == ["load", "save"]
    assert client.cookies != before
    world.b.request(client)
    world.b.request(client)
    assert world.calls() == ["load", "save", "load"]


def test_other_labels_load_from_the_store(worlds):
    """N1: the store's record decides whether other labels are refused."""
    world = worlds(check_labels=["browser"])
    client = world.visit()
    assert world.b.request(client) == {"n": 1}
    assert world.calls() == []

    class OtherBrowser(Request):
        def labels(self):
            return {"browser": "another"}

    request = OtherBrowser(world.b.sessions.web, "GET")
    run(request.begin("https", b"localhost", client.header()))
    assert request.working_copy.record is None
    assert world.calls()[0] == "load"


def test_record_in_memory_is_served_while_the_store_fails(world):
    """N1, A15: other requests fail, and the error is not cached."""
    client = world.visit()
    world.memory.fail("load")
    assert world.b.request(client) == {"n": 1}
    world.time.now += 1
    with pytest.raises(StoreUnavailable):
        world.b.request(client)
    assert world.b.cache.loading() == 0
    world.memory.heal()
    assert world.b.request(client) == {"n": 1}


def test_a_read_from_memory_is_counted_and_reported(world):
    """N1: by ``Usage`` and the event ``Read``."""
    client = world.visit()
    seen = []
    world.b.sessions.on(sojourn.Read, seen.append)
    before = world.b.sessions.usage().reads
    world.b.request(client)
    assert world.b.sessions.usage().reads == before + 1
    assert [event.session_id for event in seen] == [world.b.session_id(client).hex()]


# After a revocation: N2


ENDS = {
    "revoke": lambda p, c: p.sessions.revoke(p.session_id(c).hex()),
    "revoke_user": lambda p, c: p.sessions.revoke_user("ada"),
    "revoke_all": lambda p, c: p.sessions.revoke_all(),
    "logout": lambda p, c: p.request(c.copy(), lambda session: session.logout()),
    "login": lambda p, c: p.request(c.copy(), lambda session: session.login("eve")),
    "rotation": lambda p, c: p.request(
        c.copy(), lambda session: session.rotate(grace_period=False)
    ),
    "limit": lambda p, c: p.request(Client(p.time), lambda session: session.login("ada")),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("bus", ["normal", "cut", "held", "twice"])
def test_ticket_of_a_revoked_session_is_refused(worlds, end, bus):
    """N2, A7, A9: in other processes after the message or the stated time."""
    world = worlds(max_sessions=1)
    world.a.request(world.client, lambda session: session.login("ada"))
    client = world.visit()
    other = world.buses[1]
    other.copies = 2 if bus == "twice" else 1
    world.buses[0].cut = other.cut = bus == "cut"  # a process does not need its own message
    if bus == "held":
        other.hold()
    ENDS[end](world.a, client)
    thief = client.copy()
    assert world.a.request(thief) is None
    if bus in ("normal", "twice"):
        assert world.b.request(thief) is None
        return
    assert world.b.request(thief) == {"n": 1}
    assert world.b.request(thief, put(n=2)) == {"n": 1}  # its write is refused
    assert world.b.request(thief) is None  # this process knows the revocation from now on
    world.time.now += 1
    if bus == "held":
        other.release()
    assert world.b.request(thief) is None
    assert world.a.request(thief) is None


@pytest.mark.parametrize("end", ENDS)
def test_lost_message_delays_a_revocation_by_the_stated_time(worlds, end):
    """N2: also for a client that only reads."""
    world = worlds(max_sessions=1)
    world.a.request(world.client, lambda session: session.login("ada"))
    client = world.visit()
    world.buses[1].cut = True
    ENDS[end](world.a, client)
    end_at = world.time.now
    thief = client.copy()
    served = []
    while world.time.now < end_at + 3:
        if world.b.request(thief) is not None:
            served.append(world.time.now - end_at)
        world.time.now += 0.05
    assert served
    assert max(served) < 1


def test_a_process_killed_before_it_publishes_delays_the_revocation(world):
    """N2: the record was deleted, and no message reports it."""
    client = world.visit()
    assert run(world.memory.delete(world.a.session_id(client)))
    assert world.b.request(client) == {"n": 1}
    world.time.now += 1
    assert world.b.request(client) is None


def test_revocation_during_a_load_is_applied(world):
    """N2: the store answered before the revocation; the load completes after its message."""
    client = world.visit()
    world.time.now += 1
    session_id = world.a.session_id(client)
    load = world.b.sessions.engine.store.load

    async def slow(requested):
        record = await load(requested)
        if requested == session_id:
            await world.a.sessions.arevoke(session_id.hex())
        return record

    world.b.sessions.engine.store.load = slow
    assert world.b.request(client) == {"n": 1}  # it began before the revocation
    assert world.b.request(client) is None


def test_the_ticket_after_a_login_is_not_refused(world):
    """N2, A9: the older record in memory lacks the new verifier."""
    client = world.visit()
    world.buses[1].cut = True
    world.a.request(client, lambda session: session.login("ada"))
    assert world.b.request(client) == {"n": 1}


def test_a_reused_ticket_is_detected_after_the_stated_time(world):
    """N2, A9: the detection of theft is delayed by at most this time."""
    client = world.visit()
    thief = client.copy()
    world.buses[1].cut = True
    world.a.request(client, lambda session: session.rotate())
    world.a.request(client)
    seen = []
    world.b.sessions.on(Reused, seen.append)
    world.time.now += 3
    assert world.b.request(thief) is None
    assert len(seen) == 1


# A client reads its own writes (N3)


def written_cookie(headers):
    found = [value.decode() for name, value in headers if name == b"set-cookie"]
    return [value for value in found if "-written=" in value]


def response(process, client, act=None, *, status=200, scheme="https", method="GET"):
    """Send a request; return the headers of its response."""
    request = Request(process.sessions.web, method)
    waiting = request.begin(scheme, b"localhost", client.header())
    if waiting is not None:
        run(waiting)
    if act is not None:
        act(request.session)
    sent = request.respond(status, [], True)
    return sent if isinstance(sent, list) else run(sent)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_client_reads_its_own_writes_in_every_process(world, method):
    """N3, A5: also if the other process has an older record in memory."""
    client = world.visit()
    world.a.request(client, put(n=2), method=method)
    assert world.b.request(client.copy()) == {"n": 1}
    assert world.b.request(client) == {"n": 2}
    assert world.b.request(client.copy()) == {"n": 2}


def test_read_your_writes_cookie_outlives_the_records(world):
    """N3: no older record is in memory when the cookie expires."""
    client = world.visit()
    written_at = world.time.now
    world.a.request(client, put(n=2))
    while world.time.now < written_at + 4:
        world.time.now += 0.1
        assert world.b.request(client) == {"n": 2}
    assert b"-written" not in client.header()


def test_read_your_writes_cookie_has_the_attributes_of_the_session_cookie(worlds):
    """N3, A14: valid one second longer than the records; the response is not stored by caches."""
    world = worlds(near_cache="1.5 seconds", path="/shop")
    client = world.visit()
    headers = response(world.a, client, put(n=2))
    (cookie,) = written_cookie(headers)
    assert cookie.startswith("__Secure-sid-written=1; Max-Age=3; Expires=")
    assert cookie.endswith("; Path=/shop; Secure; HttpOnly; SameSite=Lax")
    assert dict(headers)[b"cache-control"] == b"private, no-store"


@pytest.mark.parametrize("act", ["read", "touch", "create", "login", "rotate"])
def test_requests_that_change_no_cached_record_send_no_read_your_writes_cookie(worlds, act):
    """N3, A3: no record in memory matches a new ticket."""
    world = worlds(touch_interval="100 ms")
    client = world.visit()
    acts = {
        "login": lambda session: session.login("ada"),
        "rotate": lambda session: session.rotate(),
    }
    if act == "touch":
        world.time.now += 0.2
    if act == "create":
        assert written_cookie(response(world.a, Client(world.time), put(n=1))) == []
    else:
        assert written_cookie(response(world.a, client, acts.get(act))) == []


def test_a_write_before_a_failure_is_read(world):
    """N3, A5: an explicit commit is kept, also if the response is an error."""
    client = world.visit()

    def write(session):
        session["n"] = 2
        session.commit()

    assert len(written_cookie(response(world.a, client, write, status=500))) == 1
    assert written_cookie(response(world.a, client, put(n=3), status=500)) == []


def test_write_of_an_interrupted_commit_is_read(world):
    """N3, A21: the commit timed out after the store had applied it."""
    client = world.visit()

    def write(session):
        session["n"] = 2
        world.memory.fail("save", after=True, times=1)
        with pytest.raises(StoreUnavailable):
            session.commit()

    assert len(written_cookie(response(world.a, client, write))) == 1
    assert world.a.request(client, method="POST") == {"n": 2}


def test_a_write_before_a_retry_is_read(world):
    """N3: a framework that runs the handler again, after it has committed explicitly."""
    client = world.visit()
    environ = {
        "REQUEST_METHOD": "GET",
        "wsgi.url_scheme": "https",
        "HTTP_HOST": "localhost",
        "HTTP_COOKIE": client.header().decode(),
    }
    exchange = WSGIExchange(world.a.sessions.web, environ, lambda *_: None)
    session = exchange.load()
    session["n"] = 2
    session.commit()
    exchange.restart()
    assert dict(exchange.load()) == {"n": 2}
    assert len(written_cookie(exchange.respond(200, [], True))) == 1


def test_a_write_before_the_accept_of_a_websocket_is_read(world):
    """N3: the cookie is sent with the handshake response."""
    client = world.visit()
    request = Request(world.a.sessions.web, "")
    run(request.begin("wss", b"localhost", client.header()))
    request.session["n"] = 2
    request.session.commit()
    sent = request.handshake_headers()
    assert len(written_cookie(sent)) == 1
    assert dict(sent)[b"set-cookie"].startswith(b"__Host-sid-written=1;")
    assert request.handshake_headers() == []


def test_forged_read_your_writes_cookie_costs_one_load(world):
    """N3: it has no other effect."""
    client = world.visit()
    client.cookies["x-written"] = ("y" * 100, world.time.now + 60)
    assert world.b.request(client) == {"n": 1}
    assert world.calls() == ["load"]


def test_no_read_your_writes_cookie_is_sent_without_a_near_cache(worlds):
    """A4: by default."""
    world = worlds(near_cache=None)
    world.a.request(world.client, put(n=1))
    assert world.a.sessions.engine.context.near_cache is None
    assert written_cookie(response(world.a, world.client, put(n=2))) == []


# No lost update: N4


def test_a_commit_on_an_older_record_is_merged(world):
    """N4, A6: it has the operations of both and the later assignment."""
    client = world.visit(n=1, count=0)
    other = client.copy()

    def act(session):
        session.increment("count")
        session["n"] = 2

    world.a.request(client, act)
    assert world.b.request(other, lambda s: (s.increment("count"), s.update(m=3))) == {
        "n": 1,
        "count": 0,
    }
    assert world.b.request(other, method="POST") == {"n": 2, "count": 2, "m": 3}


def test_process_reads_its_own_writes(world):
    """N4: also without the cookie."""
    client = world.visit()
    for number in range(2, 5):
        world.b.request(client.copy(), put(n=number))
        assert world.b.request(client.copy()) == {"n": number}
        assert world.b.request(client.copy()) == {"n": number}


def test_a_failed_write_leaves_no_record_in_memory(world):
    """N4, A21: the store may have applied it."""
    client = world.visit().copy()
    world.memory.fail("save", after=True, times=1)
    with pytest.raises(StoreUnavailable):
        world.b.request(client, put(n=2))
    assert world.b.request(client) == {"n": 2}


# Options


def refusal(**options):
    with pytest.raises(ConfigurationError) as raised:
        sojourn.Sessions(secret=SECRET, near_cache="1 second", **options)
    return str(raised.value)


def test_unsuitable_stores_are_refused(tmp_path):
    """N1: at startup, with the reason."""
    assert "answers without one" in refusal(store="memory://")
    assert "answers without one" in refusal(store=f"sqlite:///{tmp_path}/sessions.db")

    async def read(_):
        return None

    async def write(*_):
        return None

    assert "needs a store with broadcast" in refusal(
        store=sojourn.CallbackStore(read=read, write=write)
    )

    class NeedsLoop(BroadcastingStore):
        def requires_event_loop(self):
            return "use redis:// with its blocking client"

    assert "use redis:// with its blocking client" in refusal(store=NeedsLoop())


@pytest.mark.parametrize("transport", ["header", ["cookie", "header"]])
def test_tickets_in_a_header_are_refused(transport):
    """N3: such clients keep no cookies."""
    assert "has no cookie" in refusal(store=BroadcastingStore(), transport=transport)


@pytest.mark.parametrize("value", ["11 seconds", 10.001, 0, "soon"])
def test_durations_that_are_too_long_are_refused(value):
    """N2: a revoked session would be served for that long."""
    with pytest.raises(ConfigurationError, match="near_cache expects a duration"):
        sojourn.Sessions(secret=SECRET, near_cache=value, store=BroadcastingStore())


def test_memory_limit_without_a_near_cache_is_refused():
    """N5: an option without an effect is an error."""
    with pytest.raises(ConfigurationError, match="near_cache_bytes needs near_cache="):
        sojourn.Sessions(secret=SECRET, near_cache_bytes=1_000, store=BroadcastingStore())


def test_the_limit_of_memory_is_an_option(worlds):
    """N5: in bytes."""
    world = worlds(near_cache_bytes=1_500)
    world.a.confirm()
    for _ in range(3):
        client = Client(world.time)
        world.a.request(client, put(n=1))
        world.a.request(client)
    assert len(world.a.cache) == 1
    assert world.a.cache.size <= 1_500
