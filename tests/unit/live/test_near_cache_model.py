"""Random histories of processes with near caches, compared with a model of the stated bounds."""

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from sojourn.stores.memory import MemoryStore
from tests.support.broadcast_store import Bus
from tests.support.near_cache_process import Client, OneStore, Process, Time

MAX_AGE = 1.0
PROCESSES = st.integers(0, 1)


class Histories(RuleBasedStateMachine):
    """Two processes, one browser, and a thief with a copy of each ticket that was replaced."""

    @initialize()
    def start(self):
        self.time = Time()
        shared, self.buses = MemoryStore(), [Bus(), Bus()]
        self.processes = [
            Process(OneStore(shared, self.buses, bus), self.time, on_reuse="ignore")
            for bus in self.buses
        ]
        self.serial = 0
        self.begin()

    def teardown(self):
        for process in self.processes:
            process.sessions.close()

    def begin(self):
        """Let a new visitor come; every value that was stored, and until when, is known."""
        self.time.now += 2 * MAX_AGE
        self.browser = Client(self.time)
        self.writes = 0
        self.values = []  # (value, instant at which it was replaced)
        self.value = None
        self.ended_at = self.ended_by = None
        self.old_tickets = []  # (client, instant, process)
        self.write(0, sequential=True)

    def store(self, value):
        if self.value is not None:
            self.values.append((self.value, self.time.now))
        self.value = value

    def check_read(self, found, *, own):
        """N2, N3: what a read may return."""
        now = self.time.now
        if found is None:
            assert self.ended_at is not None, "a live session was refused"
            return
        if self.ended_at is not None:
            assert now < self.ended_at + MAX_AGE, "an ended session is served for too long"
        if own:
            assert found["n"] == self.value, "the browser does not read its own write"
            return
        allowed = [v for v, until in self.values if now < until + MAX_AGE]
        assert found["n"] in (*allowed, self.value), "an older value is served for too long"

    @rule(process=PROCESSES)
    def read(self, process):
        """N1 to N3, A5: the browser reads."""
        found = self.processes[process].request(self.browser)
        if self.ended_by == process:
            assert found is None, "the process that ended it serves it"
        self.check_read(found, own=True)

    @precondition(lambda self: self.ended_at is None)
    @rule(process=PROCESSES)
    def read_without_cookies(self, process):
        """N3: a client without the written cookie may read an older value, for a second."""
        self.check_read(self.processes[process].request(self.browser.copy()), own=False)

    @rule(process=PROCESSES)
    def post(self, process):
        """N1: a request with another method loads from the store."""
        client = self.browser.copy()
        found = self.processes[process].request(client, method="POST")
        assert (found is None) == (self.ended_at is not None)
        assert found is None or found["n"] == self.value

    @precondition(lambda self: self.ended_at is None)
    @rule(process=PROCESSES, sequential=st.booleans())
    def write(self, process, sequential):
        """N4: a write from a record in memory is merged, as those of overlapping requests."""
        self.serial += 1
        client = self.browser if sequential else self.browser.copy()

        def act(session):
            session["n"] = self.serial
            session.increment("count")

        self.processes[process].request(client, act)
        self.browser.cookies.update(client.cookies)
        self.store(self.serial)
        self.writes += 1
        found = self.processes[process].request(self.browser.copy(), method="POST")
        assert found == {"n": self.serial, "count": self.writes}

    @precondition(lambda self: self.ended_at is None)
    @rule(process=PROCESSES, login=st.booleans())
    def replace_ticket(self, process, login):
        """N2, A9: a login or a rotation."""
        old = self.browser.copy()
        replace = (lambda s: s.login("ada")) if login else (lambda s: s.rotate(grace_period=False))
        self.processes[process].request(self.browser, replace)
        self.old_tickets.append((old, self.time.now, process))

    @precondition(lambda self: self.old_tickets)
    @rule(process=PROCESSES)
    def use_old_ticket(self, process):
        """N2: refused by the process that replaced it, and a second later by every process."""
        for client, at, by in self.old_tickets:
            found = self.processes[process].request(client.copy(), lambda s: s.get("n"))
            if process == by or self.time.now >= at + MAX_AGE:
                assert found is None

    @precondition(lambda self: self.ended_at is None)
    @rule(process=PROCESSES, how=st.sampled_from(["revoke", "all", "logout", "user"]))
    def end(self, process, how):
        """N2, A7: the session ends."""
        installation = self.processes[process].sessions
        session_id = self.processes[process].session_id(self.browser).hex()
        if how == "revoke":
            assert installation.revoke(session_id)
        elif how == "all":
            installation.revoke_all()
        elif how == "user":
            self.processes[process].request(self.browser, lambda s: s.login("eve"))
            assert installation.revoke_user("eve") == 1
        else:
            kept = self.browser.copy()
            self.processes[process].request(self.browser, lambda s: s.logout())
            self.browser = kept
        self.ended_at, self.ended_by = self.time.now, process

    @precondition(lambda self: self.ended_at is not None)
    @rule(process=PROCESSES)
    def write_to_the_ended_session(self, process):
        """N4, A7: nothing brings it back, and nothing is stored."""
        self.processes[process].request(self.browser.copy(), lambda s: s.update(n=0))
        assert self.processes[process].request(self.browser.copy(), method="POST") is None

    @precondition(lambda self: self.ended_at is not None)
    @rule()
    def next_visitor(self):
        self.old_tickets = []
        self.begin()

    @rule(seconds=st.sampled_from([0.05, 0.3, 0.6, 1.0, 4.0]))
    def wait(self, seconds):
        self.time.now += seconds

    @rule(process=PROCESSES)
    def confirm(self, process):
        """Most reads should find a confirmed subscription."""
        self.processes[process].subscriber.probe()

    @rule(process=PROCESSES, how=st.sampled_from(["cut", "hold", "duplicate", "normal"]))
    def disturb(self, process, how):
        bus = self.buses[process]
        bus.cut, bus.copies = how == "cut", 3 if how == "duplicate" else 1
        if how == "hold" and bus.held is None:
            bus.hold()

    @rule(process=PROCESSES, order=st.sampled_from([list, lambda held: list(reversed(held))]))
    def deliver_late(self, process, order):
        if self.buses[process].held is not None:
            self.buses[process].release(order)

    @rule(process=PROCESSES)
    def reconnect(self, process):
        self.buses[process].reconnect()


Histories.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class TestHistories(Histories.TestCase):
    """N1 to N4."""
