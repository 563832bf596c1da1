"""Canaries of the request lifecycle, WebSockets and broadcasts."""

from tests.canaries.registry import canary

ASGI = "sojourn.web.asgi"
GATE = "sojourn.web.lifecycle:Gate"
SOCKET = "sojourn.live.socket:Socket"
ENDING = "sojourn.live.ending:Ending"
BROADCAST = "sojourn.live.broadcast:Broadcaster"
CONNECTIONS = "sojourn.live.connections:Registry"


@canary("A2, A5", f"{ASGI}:Exchange._begin", tests="TestBareASGI")
def the_response_starts_before_the_commit(begin):
    async def faulty(self, session, message):
        await self._pass(message)
        await self.commit()

    return faulty


@canary("A10", "sojourn.web.scope:SERVER_ERROR", tests="TestBareASGI")
def status_500_counts_as_success(status):
    return 600


@canary("A12", f"{ASGI}:Exchange.fail", tests="TestBareASGI")
def a_cancelled_request_is_committed(fail):
    async def faulty(self, error):
        await self.commit()

    return faulty


@canary("A16, B-52", f"{GATE}.empty", tests="TestBareASGI")
def new_visitors_share_one_session(empty):
    sessions = {}

    def faulty(self, transport, host, client):
        return sessions.setdefault(id(self), empty(self, transport, host, client))

    return faulty


@canary("A20", "sojourn.frameworks.install:uninstall", tests="TestStarlette")
def uninstall_does_nothing(uninstall):
    def faulty(app):
        pass

    return faulty


@canary("B-59", f"{ASGI}:UNAVAILABLE_HEADERS", tests="test_promises")
def the_503_redirects(headers):
    return (*headers, (b"location", b"/login"))


# WebSockets


@canary("W2", f"{SOCKET}._commit", tests="live/test_socket")
def a_message_commits_nothing(commit):
    async def faulty(self, session, *, failed=False):
        self._ending.look()

    return faulty


@canary("W3", f"{SOCKET}._take_in", tests="live/test_socket")
def a_message_refreshes_nothing(take_in):
    async def faulty(self, session):
        pass

    return faulty


@canary("W4, B-41", f"{CONNECTIONS}.end", tests="test_connections test_users")
def revocation_closes_no_connection(end):
    def faulty(self, session_id, reason):
        pass

    return faulty


@canary("W6", f"{ENDING}._arm", tests="test_deadlines", raises="TimeoutError")
def no_deadline_closes_a_socket(arm):
    def faulty(self, record):
        pass

    return faulty


@canary("W7", f"{ENDING}.begin", tests="live/test_ending test_users")
def an_end_during_the_handshake_is_ignored(begin):
    def faulty(self):
        self._open = True
        self._arm(self._session._record if self._session else None)

    return faulty


@canary("W8", f"{SOCKET}._accept", tests="test_handshake")
def a_session_may_begin_after_the_accept(accept):
    async def faulty(self, session, message):
        await accept(self, session, message)
        if session is not None:
            session._started = False

    return faulty


# Broadcasts


@canary("S17", f"{BROADCAST}._missed", tests="TestTold", raises="TimeoutError")
def a_gap_is_ignored(missed):
    def faulty(self):
        pass

    return faulty


@canary("S17, W4", f"{BROADCAST}._heard", tests="test_broadcast", raises="TimeoutError")
def broadcasts_are_ignored(heard):
    def faulty(self, message):
        pass

    return faulty
