"""Canaries of the core: limits, plan, operations, changes, codec, events and audit."""

import os

import msgspec

from sojourn._core import operations
from sojourn._core import plan as plans
from tests.canaries.registry import canary

POLICY = "sojourn._core.policy"
OPERATIONS = "sojourn._core.operations"
CODEC = "sojourn._core.codec"


@canary("A3", f"{POLICY}:Policy.touch_due", tests="TestBareASGI test_engine")
def each_read_is_a_touch(touch_due):
    def faulty(self, record, now):
        return True

    return faulty


@canary("A17, B-37", f"{POLICY}:expired", tests="TestBareASGI test_policy")
def no_limit_expires_a_session(expired):
    def faulty(record, now):
        return None

    return faulty


@canary("A17", f"{POLICY}:expired", tests="test_policy")
def a_session_expires_a_millisecond_late(expired):
    def faulty(record, now):
        return expired(record, now - 1)

    return faulty


@canary("A9", f"{POLICY}:Policy.rotation_due", tests="test_policy test_identity")
def no_rotation_is_due(rotation_due):
    def faulty(self, record, now):
        return False

    return faulty


@canary("A2", "sojourn._core.plan:plan", tests="TestBareASGI TestBareWSGI")
def the_first_write_creates_nothing(plan):
    def faulty(record, *facts):
        planned = plan(record, *facts)
        return None if isinstance(planned, plans.Create) else planned

    return faulty


@canary("A4", "sojourn._core.plan:plan", tests="test_plan")
def a_write_is_only_a_touch(plan):
    def faulty(*facts):
        planned = plan(*facts)
        return plans.TOUCH if isinstance(planned, plans.Save) else planned

    return faulty


@canary("A6", f"{OPERATIONS}:_merge_dicts", tests="test_operations test_model")
def dicts_are_replaced_instead_of_merged(merge):
    def faulty(before, after, newer, *, of_sums=False):
        return after

    return faulty


@canary("A6", f"{OPERATIONS}:cleared_data", tests="test_operations test_model")
def clear_keeps_the_keys_of_others(cleared_data):
    def faulty(data):
        return dict(data)

    return faulty


@canary("A6", f"{OPERATIONS}:_apply_at_end", tests="test_overlapping test_model")
def a_discard_is_replayed_only_on_what_was_there(apply_at_end):
    def faulty(operation, value):
        return (
            value if isinstance(operation, operations.Discard) else apply_at_end(operation, value)
        )

    return faulty


@canary(
    "A24",
    "sojourn._core.checked_coroutine:CheckedCoroutine.__bool__",
    tests="test_checked_coroutine",
)
def a_checked_coroutine_is_true(truth):
    def faulty(self):
        return True

    return faulty


@canary("A24", "sojourn._core.working_copy:WorkingCopy.user", tests="TestBareASGI test_clear")
def clear_keeps_a_logged_in_session(user):
    return property(lambda self: None)


@canary("A4", "sojourn._core.changes:ChangeTracker.modified", tests="TestBareASGI test_engine")
def every_access_counts_as_a_change(modified):
    def faulty(self):
        return bool(self.states)

    return faulty


@canary("B-51", f"{CODEC}:_prepare", tests="test_promises")
def unknown_types_are_stored_as_text(prepare):
    def faulty(value, path, depth, *, thorough=False):
        try:
            return prepare(value, path, depth, thorough=thorough)
        except Exception:  # noqa: BLE001 - the exception of refused types is private
            return str(value)

    return faulty


@canary("B-55", f"{CODEC}:_prepare", tests="test_codec", raises="RecursionError")
def values_nest_without_limit(prepare):
    def faulty(value, path, depth, *, thorough=False):
        return prepare(value, path, 0, thorough=thorough)

    return faulty


@canary("B-34", "sojourn.events:Dispatcher.emit", tests="test_events", raises="RuntimeError")
def an_exception_of_a_listener_is_raised(emit):
    def faulty(self, event, *, times=1):
        self.counts[type(event)] += times
        for listener in self.listeners.get(type(event), ()):
            listener(event)

    return faulty


@canary("B-34", "sojourn.audit:Audit.write", tests="test_audit", raises="OSError RuntimeError")
def a_failing_audit_breaks_the_request(write):
    def faulty(self, event):
        self._write_line(self._line(event))

    return faulty


@canary("B-50", "sojourn.audit:_open_private", tests="test_audit")
def the_audit_file_is_readable_by_others(open_private):
    def faulty(path, flags):
        handle = open_private(path, flags)
        os.fchmod(handle, 0o644)
        return handle

    return faulty


@canary("A22", "sojourn._core.clock:ServerClock.__call__", tests="contract/test_clocks")
def decisions_use_the_clock_of_the_machine(call):
    def faulty(self):
        return self._wall()

    return faulty


@canary("A22", "sojourn._core.clock:ServerClock.reading", tests="contract/test_clocks")
def loads_do_not_read_the_servers_clock(reading):
    def faulty(self):
        return self._wall()

    return faulty


@canary("A22", "sojourn._core.clock:ServerClock.read_server", tests="contract/test_clocks")
def the_servers_clock_is_read_once(read_server):
    async def faulty(self):
        return self() if self.synchronized else await read_server(self)

    return faulty


@canary("A22", "sojourn._core.working_copy:WorkingCopy.correct_instants", tests="test_clock")
def a_login_before_the_first_contact_is_dated_by_the_machine(correct_instants):
    def faulty(self):
        pass

    return faulty


@canary("A9", "sojourn._core.login:record_after_rotation", tests="TestBareASGI test_identity")
def the_previous_ticket_ends_ten_seconds_after_a_rotation(record_after_rotation):
    def faulty(record, rotation):
        header = record_after_rotation(record, rotation)
        return msgspec.structs.replace(header, previous_valid_until=record.seen_at + 10_000)

    return faulty


@canary(
    "A21",
    "sojourn._core.working_copy:WorkingCopy.add_unsettled",
    tests="core/test_unsettled_commits test_interrupted_histories",
)
def an_interrupted_commit_counts_as_failed(add_unsettled):
    def faulty(self, attempt, log, *, created=None, verifier=b""):
        self.changes.restore_operations(log)

    return faulty


@canary("A21", "sojourn._core.lease:SessionLease._undo", tests="core/test_lease")
def a_cancelled_block_keeps_its_lease(undo):
    async def faulty(self):
        pass

    return faulty


@canary("S12", "sojourn._core.concurrency:Deadline.remaining", tests="core/test_deadlines")
def a_commit_waits_without_a_deadline(remaining):
    def faulty(self):
        return 3.0

    return faulty
