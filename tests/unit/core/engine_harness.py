"""World: an engine over a faulty store and a fake clock, which records every event."""

import msgspec

from sojourn._core.codec import decode
from sojourn._core.connection_control import NoConnections
from sojourn._core.context import CoreConfig, CoreContext
from sojourn._core.engine import Engine
from sojourn._core.operations import Merge
from sojourn._core.typed_state import StateSpec
from sojourn._crypto.csrf import CsrfTokens
from sojourn._crypto.encryption import body_cipher
from sojourn._crypto.rotation import VerifierChain
from sojourn.config import build_policy
from sojourn.events import KINDS, Dispatcher
from sojourn.record import ID_BYTES, Record
from sojourn.session import create_session
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from tests.support.working_copies import commit, copy_of

SECRETS = (b"a secret of a world without a web",)


class Browser:
    """A client with the given labels."""

    def __init__(self, **labels):
        self.shown = labels

    def labels(self):
        return self.shown


class EncodingStore(MemoryStore):
    """A memory store that encodes and decodes its records, as every other store does."""

    async def create(self, record):
        return await super().create(encoded(record))

    async def create_many(self, records):
        return await super().create_many(list(map(encoded, records)))

    def swap(self, record, expected_version):
        return super().swap(encoded(record), expected_version)

    async def touch(self, record):
        return await super().touch(encoded(record))

    async def save_login(self, record, expected_version, *, limit, now):
        assert type(now) is int
        return await super().save_login(encoded(record), expected_version, limit=limit, now=now)


def encoded(record):
    """Return a record after it was encoded and decoded."""
    assert len(record.id) == ID_BYTES
    decoded = Record.from_bytes(record.id, record.to_bytes())
    assert decoded == record
    return decoded


class EngineOfSessions:
    """An engine whose verbs take and return sessions instead of working copies."""

    def __init__(self, engine):
        self.engine = engine

    def __getattr__(self, name):
        return getattr(self.engine, name)

    async def load(self, ticket, client=None):
        return create_session(await self.engine.load(ticket, client), self.engine)

    async def commit(self, session, **options):
        await self.engine.commit(copy_of(session), **options)

    async def refresh(self, session, **options):
        return await self.engine.refresh(copy_of(session), **options)

    async def claim(self, session, key, default):
        return await self.engine.claim(copy_of(session), key, default)

    async def amend(self, session, amendment):
        await self.engine.amend(copy_of(session), amendment)


class World:
    """One installation without a web layer.

    Attributes:
        store: the store of the engine, a ``FaultyStore`` around ``memory``.
        events: all reported events, oldest first.
    """

    def __init__(
        self,
        *,
        merges=None,
        state=None,
        max_bytes=65_536,
        check_labels=(),
        limit=None,
        revoke_reused=True,
        encrypt=False,
        listen=True,
        store_timeout=2.0,
        on_invalid="error",
        upgrade=None,
        **limits,
    ):
        self.clock = FakeClock()
        self.memory = EncodingStore()
        self.store = FaultyStore(self.memory)
        self.events = []
        dispatcher = Dispatcher()
        for kind in KINDS if listen else ():
            dispatcher.on(kind, self.events.append)
        spec = StateSpec(state, on_invalid=on_invalid, upgrade=upgrade)
        self.spec = spec
        self.options = {
            "clock": self.clock,
            "dispatcher": dispatcher,
            "connections": NoConnections(),
            "merges": {**spec.merges, **{k: Merge(v) for k, v in (merges or {}).items()}},
            "upgrade": upgrade,
            "rotation": VerifierChain(SECRETS, realm="default"),
            "cipher": body_cipher(encrypt, SECRETS, realm="default"),
            "csrf": CsrfTokens(SECRETS, realm="default"),
        }
        self.config = CoreConfig(
            policy=build_policy(**limits),
            max_bytes=max_bytes,
            check_labels=check_labels,
            session_limit=limit,
            revoke_reused=revoke_reused,
            store_timeout=store_timeout,
        )
        self.engine = self.another_process()

    def another_process(self):
        """Return a second engine over the same store, which shares nothing else."""
        context = CoreContext(store=self.store, config=self.config, **self.options)
        return EngineOfSessions(Engine(context, self.spec))

    def replace_rotation(self, rotation):
        """Replace the derivation of verifiers, as a change of the secret does."""
        msgspec.structs.force_setattr(self.engine.context, "rotation", rotation)

    async def create(self, client=None, **data):
        """Create a session with data in a first request; return its ticket."""
        session = await self.engine.load(None, client)
        session.update(data)
        await self.engine.commit(session)
        return ticket_of(session)

    async def load(self, ticket, client=None, *, other_process=False):
        """Load a session as a request of this or of another process does."""
        engine = self.another_process() if other_process else self.engine
        return await engine.load(ticket, client)

    async def concurrent_write(self, ticket, **data):
        """Update and commit a session in another process."""
        session = await self.load(ticket, other_process=True)
        session.update(data)
        await commit(session)

    async def record(self, ticket):
        """Return the stored record; None if there is none."""
        return await self.memory.load(ticket.session_id)

    async def data(self, ticket):
        """Return the decoded data of the stored record; None if there is none."""
        record = await self.record(ticket)
        if record is None:
            return None
        return {key: decode(value) for key, value in record.contents().data.items()}

    def emitted(self, kind):
        """Return the reported events of one kind, oldest first."""
        return [event for event in self.events if isinstance(event, kind)]


def ticket_of(session):
    """Return the ticket that a session's cookie would carry."""
    return copy_of(session).ticket()


async def end_of_request(session, *, failed=False):
    """Commit and mark the response as started, as the web layer does."""
    await commit(session, failed=failed)
    copy_of(session).response_started = True
