"""Canaries of the request lifecycle, WebSockets and broadcasts."""

from sojourn._core.changes import ChangeTracker
from tests.canaries.registry import canary

LIFECYCLE = "sojourn.web.lifecycle"
SOCKET = "sojourn.web.websocket:WebSocketConnection"
CLOSER = "sojourn.web.websocket_close:WebSocketCloser"
BROADCAST = "sojourn.live.broadcast:Broadcaster"
CONTROL = "sojourn.live.connection_control:LiveControl"
CONNECTIONS = "sojourn.live.connections:ConnectionRegistry"


@canary("A2, A5", f"{LIFECYCLE}:SessionLifecycle.plan_response", tests="TestBareASGI")
def the_response_starts_before_the_commit(plan_response):
    def faulty(self, status, headers, complete):
        self.response_started = True
        return headers  # `finish` commits

    return faulty


@canary("A10", f"{LIFECYCLE}:SERVER_ERROR", tests="TestBareASGI")
def status_500_counts_as_success(status):
    return 600


@canary("A12", f"{LIFECYCLE}:SessionLifecycle.fail", tests="TestBareASGI")
def a_cancelled_request_is_committed(fail):
    def faulty(self, *, cancelled=False):
        copy = self.working_copy
        return None if copy is None else self.web.engine.commit(copy)

    return faulty


@canary("A10", f"{LIFECYCLE}:SessionLifecycle.commit_after_error", tests="TestBareASGI")
def a_logout_in_an_error_handler_is_not_committed(commit_after_error):
    def faulty(self, *, store_failed):
        return None

    return faulty


@canary("A16, B-52", "sojourn._core.working_copy:WorkingCopy.decode", tests="TestBareASGI")
def new_visitors_share_their_data(decode):
    shared = {}

    def faulty(self):
        if self.record is None and self.changes is None:
            context = self.context
            self.changes = shared.setdefault(id(context), ChangeTracker({}, context.merges))
        return decode(self)

    return faulty


@canary("A20", "sojourn.frameworks.install:uninstall", tests="TestStarlette")
def uninstall_does_nothing(uninstall):
    def faulty(app):
        pass

    return faulty


@canary("B-59", "sojourn.web.error_response:RETRY_HEADERS", tests="test_promises")
def the_503_redirects(headers):
    return (*headers, (b"location", b"/login"))


# WebSockets


@canary("W2", f"{SOCKET}._commit_changes", tests="web/test_websocket.py")
def a_websocket_message_commits_nothing(commit):
    async def faulty(self, copy, *, failed=False):
        self._closer.check_copy()

    return faulty


@canary("W3", f"{SOCKET}._refresh_after_message", tests="web/test_websocket.py")
def a_websocket_message_refreshes_nothing(refresh_after_message):
    async def faulty(self, copy):
        pass

    return faulty


@canary("W4, B-41", f"{CONNECTIONS}.end", tests="test_connections websocket_users")
def revocation_closes_no_connection(end):
    def faulty(self, session_id, reason):
        pass

    return faulty


@canary("W4, B-41", f"{CONTROL}.sessions_ended", tests="test_connections websocket_users")
def destroying_a_session_closes_no_connection(sessions_ended):
    def faulty(self, session_ids, reason):
        pass

    return faulty


@canary("W4", f"{CONTROL}.all_sessions_ended", tests="test_connections websocket_users")
def revoking_all_sessions_closes_no_connection(all_sessions_ended):
    def faulty(self, before, reason):
        pass

    return faulty


@canary("A9, W4", f"{CONTROL}.user_logged_in", tests="test_connections websocket_users")
def a_login_closes_no_connection(user_logged_in):
    def faulty(self, session_id):
        pass

    return faulty


@canary("W6", f"{CLOSER}._set_timer", tests="websocket_deadlines", raises="TimeoutError")
def no_deadline_closes_a_socket(set_timer):
    def faulty(self, record):
        pass

    return faulty


@canary("W7", f"{CLOSER}.start", tests="websocket_close websocket_users")
def a_revocation_during_the_handshake_is_ignored(start):
    def faulty(self):
        self._open = True
        self._set_timer(self._copy.record if self._copy else None)

    return faulty


@canary("W8", f"{SOCKET}._accept", tests="websocket_handshake")
def a_session_can_be_created_after_the_accept(accept):
    async def faulty(self, copy, message):
        await accept(self, copy, message)
        if copy is not None:
            copy.response_started = False

    return faulty


# Broadcasts


@canary(
    "S17",
    f"{BROADCAST}._on_gap",
    tests="test_broadcast.py::TestBroadcast",
    raises="TimeoutError Timeout",
)
def a_gap_is_ignored(on_gap):
    def faulty(self):
        pass

    return faulty


@canary(
    "S17, W4", f"{BROADCAST}._on_message", tests="test_broadcast", raises="TimeoutError Timeout"
)
def broadcasts_are_ignored(on_message):
    def faulty(self, message):
        pass

    return faulty
