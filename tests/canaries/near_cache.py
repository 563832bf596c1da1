"""Canaries of the near cache: each omits one condition under which a record is served."""

from tests.canaries.registry import canary

CACHE = "sojourn.live.near_cache:NearCache"
SUBSCRIBER = "sojourn.live.near_cache_subscriber:NearCacheSubscriber"
TESTS = "near_cache"


@canary("N1", f"{CACHE}.is_young", tests=TESTS)
def cached_records_never_expire(is_young):
    def faulty(self, entry, now):
        return True

    return faulty


@canary("N1", f"{CACHE}.is_confirmed", tests=TESTS)
def an_interrupted_subscription_is_not_detected(is_confirmed):
    def faulty(self):
        return True

    return faulty


@canary("N1", "sojourn.web.lifecycle:SAFE_METHODS", tests=TESTS)
def requests_of_every_method_are_served_from_the_cache(safe_methods):
    return safe_methods | {"POST"}


@canary("N1", "sojourn._core.loader:expired", tests="near_cache")
def expired_sessions_are_served_from_the_cache(expired):
    def faulty(record, now):
        return None

    return faulty


@canary("N2", f"{CACHE}.discard", tests=TESTS)
def revocations_do_not_reach_the_cache(discard):
    def faulty(self, session_id):
        pass

    return faulty


@canary("N2", "sojourn.live.connection_control:LiveControl._discard", tests=TESTS)
def a_revocation_does_not_reach_the_cache_of_its_own_process(discard):
    def faulty(self, session_id):
        pass

    return faulty


@canary("N2", "sojourn._core.context:CoreContext.discard_from_memory", tests="record_cache")
def a_session_that_another_process_has_ended_stays_in_the_cache(discard_from_memory):
    def faulty(self, session_id):
        pass

    return faulty


@canary("N2", f"{CACHE}.put", tests=TESTS)
def a_load_in_progress_caches_a_revoked_session(put):
    def faulty(self, reservation, record):
        put(self, self.reserve(reservation.session_id), record)

    return faulty


@canary("N2", f"{SUBSCRIBER}._on_message", tests=TESTS)
def broadcast_messages_are_ignored(on_message):
    def faulty(self, message):
        if message.session_id in self._probes:
            on_message(self, message)

    return faulty


@canary("N2", f"{SUBSCRIBER}._on_gap", tests=TESTS)
def a_gap_keeps_cached_records(on_gap):
    def faulty(self):
        self.request_confirmation()

    return faulty


@canary("N2", "sojourn._core.loader:compare_digest", tests=TESTS)
def a_replaced_ticket_is_accepted_for_every_record(compare_digest):
    def faulty(one, other):
        return True

    return faulty


@canary("N3", "sojourn.web.installation:WebInstallation.set_written_cookie", tests=TESTS)
def a_write_sends_no_written_cookie(set_written_cookie):
    def faulty(self, copy, transport):
        return None

    return faulty


@canary("N3", "sojourn.web.installation:_WRITTEN_COOKIE_MARGIN", tests=TESTS)
def the_written_cookie_expires_before_cached_records(margin):
    return -1


@canary("N4", f"{CACHE}.discard", tests=TESTS)
def a_write_keeps_the_older_record_in_the_cache(discard):
    def faulty(self, session_id):
        pass

    return faulty


@canary("N5", f"{CACHE}._remove_oldest", tests=TESTS)
def the_cache_is_unbounded(remove_oldest):
    def faulty(self):
        pass

    return faulty


@canary("N5", f"{SUBSCRIBER}.after_fork", tests=TESTS)
def a_forked_process_keeps_the_cache_of_its_parent(after_fork):
    def faulty(self):
        pass

    return faulty
