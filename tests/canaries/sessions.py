"""Canaries of session, engine, login and revocation."""

import msgspec

from sojourn._core.revocation import indexed_store
from sojourn._core.working_copy import WorkingCopy as Copy
from sojourn.errors import StoreError
from tests.canaries.registry import canary

LOADER = "sojourn._core.loader:Loader"
WORKING_COPY = "sojourn._core.working_copy:WorkingCopy"
REVOKER = "sojourn._core.revocation:Revoker"


def load_nothing(self, ticket, client):
    """Decline every immediate load."""


@canary("A1, B-53", "sojourn.session:Session.get", tests="TestBareASGI")
def get_stores_its_default(get):
    def faulty(self, key, default=None, /):
        if key not in self:
            self[key] = default
        return get(self, key, default)

    return faulty


@canary(
    "S18, A3, A4", f"{LOADER}.load", f"{LOADER}.load_immediately", tests="test_engine TestBareASGI"
)
def a_load_calls_the_store_twice(load):
    async def faulty(self, ticket, client=None):
        if ticket is not None:
            await self.fetch(ticket.session_id)
        return await load(self, ticket, client)

    return load_nothing if load.__name__ == "load_immediately" else faulty


@canary("A15", f"{LOADER}.load", tests="TestBareASGI test_engine")
def a_failing_store_gives_an_empty_session(load):
    async def faulty(self, ticket, client=None):
        try:
            return await load(self, ticket, client)
        except StoreError:
            return await load(self, None, client)

    return faulty


@canary("A8", f"{LOADER}.load", f"{LOADER}.load_immediately", tests="TestBareASGI")
def the_verifier_is_not_checked(load):
    async def faulty(self, ticket, client=None):
        record = None if ticket is None else await self.fetch(ticket.session_id)
        if record is not None:
            ticket = msgspec.structs.replace(ticket)
            msgspec.structs.force_setattr(ticket, "digest", record.verifier)
        return await load(self, ticket, client)

    return load_nothing if load.__name__ == "load_immediately" else faulty


@canary("A17", f"{LOADER}.load_immediately", tests="core/test_immediate TestBareASGI")
def an_immediate_load_ignores_expiry(load_immediately):
    def faulty(self, ticket, client):
        record = None if self._peek is None else self._peek(ticket.session_id)
        if record is None or record.verifier != ticket.digest:
            return load_immediately(self, ticket, client)
        return Copy(self._context, record, ticket.verifier, client)

    return faulty


@canary("A9", f"{LOADER}.load_immediately", tests="core/test_immediate")
def an_immediate_load_accepts_a_replaced_verifier(load_immediately):
    def faulty(self, ticket, client):
        record = None if self._peek is None else self._peek(ticket.session_id)
        if record is None or record.previous_verifier != ticket.digest:
            return load_immediately(self, ticket, client)
        return Copy(self._context, record, ticket.verifier, client)

    return faulty


@canary("A6", "sojourn._core.writer:Writer.write_immediately", tests="core/test_immediate")
def an_immediate_save_ignores_the_version(write_immediately):
    def faulty(self, copy, base, changes, contents, swap):  # noqa: PLR0917 - as the original
        def overwrite(record, expected_version):
            newest = self._store.peek(record.id)
            if newest is None:
                return False
            record = msgspec.structs.replace(record, version=newest.version + 1)
            return swap(record, newest.version)

        return write_immediately(self, copy, base, changes, contents, overwrite)

    return faulty


@canary("A9, B-45", "sojourn._core.login:record_after_login", tests="TestBareASGI test_logins")
def a_login_keeps_the_previous_verifier(record_after_login):
    def faulty(record, login, policy):
        header = record_after_login(record, login, policy)
        return msgspec.structs.replace(
            header, previous_verifier=record.verifier, previous_valid_until=login.at + 10_000
        )

    return faulty


@canary("A17", "sojourn._core.login:record_after_rotation", tests="TestBareASGI")
def a_rotation_restarts_the_absolute_timeout(record_after_rotation):
    def faulty(record, rotation):
        header = record_after_rotation(record, rotation)
        return msgspec.structs.replace(header, absolute_at=record.absolute_at + 3_600_000)

    return faulty


@canary("A11", f"{WORKING_COPY}.edit", tests="TestBareASGI test_session")
def a_session_is_created_after_the_response_started(edit):
    def faulty(self):
        return self.access()

    return faulty


@canary("A13, B-2", f"{WORKING_COPY}.access", tests="test_session TestBareASGI")
def access_is_not_recorded(access):
    def faulty(self):
        return self.changes or self.decode()

    return faulty


@canary("W5", f"{WORKING_COPY}.follow_rotation", tests="websocket_users", raises="KeyError")
def a_websocket_does_not_adopt_rotated_tickets(follow_rotation):
    def faulty(self, record):
        pass

    return faulty


@canary("B-39", f"{REVOKER}.revoke_indexed", tests="test_sessions")
def changed_credentials_revoke_nothing(revoke_indexed):
    async def faulty(self, name, reason, *, keep, actor):
        return 0 if keep else await revoke_indexed(self, name, reason, keep=keep, actor=actor)

    return faulty


@canary("S16", f"{REVOKER}.revoke_indexed", tests="TestBareASGI")
def a_user_is_revoked_without_a_cutoff(revoke_indexed):
    async def faulty(self, name, reason, *, keep, actor):
        count = 0
        for record in await indexed_store(self._store).list_by_index(name):
            if record.id != keep:
                count += await self.revoke(record.id, reason, actor=actor)
        return count

    return faulty


@canary("B-41", f"{REVOKER}._add_tombstones", tests="TestBareASGI")
def no_tombstone_is_written(add_tombstones):
    async def faulty(self, session_ids, reason, now):
        pass

    return faulty


@canary("S16, B-39", f"{REVOKER}._delete", tests="test_sessions TestBareASGI")
def a_bulk_revocation_skips_a_session(delete):
    async def faulty(self, session_ids):
        return await delete(self, session_ids[:-1])

    return faulty


@canary("S16", f"{REVOKER}.revoke_indexed", tests="test_revocation", raises="StoreUnavailable")
def a_failed_cutoff_ends_the_revocation(revoke_indexed):
    async def faulty(self, name, reason, *, keep, actor):
        await indexed_store(self._store).invalidate_logins(name, self.now() + 1)
        return await revoke_indexed(self, name, reason, keep=keep, actor=actor)

    return faulty


@canary("A22", "sojourn._core.revocation:Revoker.revoke_all", tests="test_revocation")
def a_cutoff_is_an_instant_of_this_machine(revoke_all):
    async def faulty(self, reason, *, actor):
        await indexed_store(self._store).invalidate_all(self.now() + 1)

    return faulty


@canary(
    "A24", "sojourn._core.key_fingerprints:KeyFingerprintCheck.run", tests="test_key_fingerprints"
)
def keys_are_not_checked(run):
    async def faulty(self, deadline=None):
        self.passed = True

    return faulty
