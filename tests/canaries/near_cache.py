"""Canaries of the near cache: each condition under which a record is served, left out."""

from tests.canaries.registry import canary

CACHE = "sojourn.live.near_cache:NearCache"
SUBSCRIBER = "sojourn.live.near_cache_subscriber:NearCacheSubscriber"
TESTS = "near_cache"


@canary("N1", f"{CACHE}.is_young", tests=TESTS)
def records_in_memory_never_grow_old(is_young):
    def faulty(self, entry, now):
        return True

    return faulty


@canary("N1", f"{CACHE}.is_confirmed", tests=TESTS)
def a_dead_subscription_is_not_noticed(is_confirmed):
    def faulty(self):
        return True

    return faulty


@canary("N1", "sojourn.web.lifecycle:SAFE_METHODS", tests=TESTS)
def every_method_is_served_from_memory(safe_methods):
    return safe_methods | {"POST"}


@canary("N1", "sojourn._core.loader:expired", tests="near_cache")
def expired_sessions_are_served_from_memory(expired):
    def faulty(record, now):
        return None

    return faulty


@canary("N2", f"{CACHE}.discard", tests=TESTS)
def revocations_do_not_reach_the_memory(discard):
    def faulty(self, session_id):
        pass

    return faulty


@canary("N2", "sojourn.live.connection_control:LiveControl._discard", tests=TESTS)
def a_revocation_does_not_reach_the_memory_of_its_own_process(discard):
    def faulty(self, session_id):
        pass

    return faulty


@canary("N2", f"{CACHE}.put", tests=TESTS)
def a_load_in_progress_brings_a_revoked_session_back(put):
    def faulty(self, reservation, record):
        put(self, self.reserve(reservation.session_id), record)

    return faulty


@canary("N2", f"{SUBSCRIBER}._on_message", tests=TESTS)
def messages_are_ignored(on_message):
    def faulty(self, message):
        if message.session_id in self._probes:
            on_message(self, message)

    return faulty


@canary("N2", f"{SUBSCRIBER}._on_gap", tests=TESTS)
def a_gap_keeps_the_memory(on_gap):
    def faulty(self):
        self.request_confirmation()

    return faulty


@canary("N2", "sojourn._core.loader:compare_digest", tests=TESTS)
def a_replaced_ticket_is_accepted_for_any_record(compare_digest):
    def faulty(one, other):
        return True

    return faulty


@canary("N3", "sojourn.web.installation:WebInstallation.set_written_cookie", tests=TESTS)
def a_write_does_not_send_the_cookie(set_written_cookie):
    def faulty(self, copy, transport):
        return None

    return faulty


@canary("N3", "sojourn.web.installation:_WRITTEN_COOKIE_MARGIN", tests=TESTS)
def the_cookie_lives_shorter_than_the_records(margin):
    return -1


@canary("N4", f"{CACHE}.discard", tests=TESTS)
def a_write_leaves_the_older_record_in_memory(discard):
    def faulty(self, session_id):
        pass

    return faulty


@canary("N5", f"{CACHE}._remove_oldest", tests=TESTS)
def the_memory_grows(remove_oldest):
    def faulty(self):
        pass

    return faulty


@canary("N5", f"{SUBSCRIBER}.after_fork", tests=TESTS)
def a_forked_process_keeps_the_records_of_its_parent(after_fork):
    def faulty(self):
        pass

    return faulty
