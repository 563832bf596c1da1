"""Sessions: one installation, built from options, and the verbs for use outside of a request.

Each verb that reaches the store has an async twin, with an ``a`` in front.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from sojourn._core.concurrency import run
from sojourn._core.engine import Engine
from sojourn._crypto.csrf import CsrfTokens
from sojourn._crypto.encryption import sealer
from sojourn._crypto.rotation import Chain
from sojourn._crypto.secret_key import missing_secret, read_or_create_secret
from sojourn._crypto.tickets import KeyRing
from sojourn.config import Config, Options, build_config, choice
from sojourn.errors import ConfigurationError
from sojourn.events import Created, Dispatcher, Event
from sojourn.lists import Lists
from sojourn.live.broadcast import Broadcaster
from sojourn.live.connections import Registry
from sojourn.store import (
    Closeable,
    LocalStore,
    NeedsPurge,
    RequiresEventLoop,
    Store,
    SupportsBroadcast,
    SupportsCount,
)
from sojourn.stores.callback import CallbackStore, ReadFunction, WriteFunction
from sojourn.stores.purger import BATCH, Purger
from sojourn.web.lifecycle import Gate, OnStoreFailure

if TYPE_CHECKING:
    from typing import Unpack

    from typing_extensions import TypeVar as TypeVarWithDefault

    S = TypeVarWithDefault("S", default=Any)
else:
    S = TypeVar("S")

E = TypeVar("E", bound=Event)
F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R", bound=ReadFunction)
W = TypeVar("W", bound=WriteFunction)


@dataclass(frozen=True, slots=True)
class Usage:
    """What this process did since its start, in numbers of sessions.

    Attributes:
        reads: records loaded for a request or a message.
        writes: records saved with changes.
        creates, touches, removes: records begun, only marked as seen, ended on purpose.
        logins, rotations: tickets replaced, by a login and by a rotation.
        conflicts: saves that met a newer record and were replayed.
        rejected: tickets that opened nothing.
        failures: store calls that failed.
        connections: sockets that are open now.
    """

    reads: int
    writes: int
    creates: int
    touches: int
    removes: int
    logins: int
    rotations: int
    conflicts: int
    rejected: int
    failures: int
    connections: int


class Sessions(Lists, Generic[S]):
    """One installation: a store, a key ring, a cookie and the limits.

    ``sojourn.install`` makes one; make it yourself for a bare ASGI or WSGI callable.

    Args:
        state: a dataclass or ``msgspec.Struct`` for ``session.state``.
        options: the fields of ``sojourn.config.Options``; all have defaults.

    Raises:
        ConfigurationError: an option is unknown or wrong; the text says what to do.
    """

    def __init__(self, *, state: type[S] | None = None, **options: Unpack[Options]) -> None:
        config = build_config({**options, "state": state})
        self.config: Config = config
        self.store: Store = config.store
        self.dispatcher: Dispatcher = Dispatcher()
        secrets = _secrets(config)
        realm = config.realm
        self.engine: Engine = Engine(
            config.store,
            config.policy,
            clock=config.clock or _now,
            dispatcher=self.dispatcher,
            chain=Chain(secrets, realm=realm),
            sealer=sealer(config.encrypt, secrets, realm=realm),
            csrf=CsrfTokens(secrets, realm=realm),
            merges=config.merges,
            state=config.state,
            max_bytes=config.max_bytes,
            check_labels=config.check_labels,
            limit=config.session_limit,
            revoke_reused=config.revoke_reused,
        )
        self.live: Registry = Registry(self.dispatcher)
        self._announcer: Broadcaster | None = None
        if isinstance(config.store, SupportsBroadcast) and not _needs_loop(config.store):
            self._announcer = Broadcaster(config.store, self.engine, self.live, self.dispatcher)
        if config.audit is not None:
            config.audit.listen(self.dispatcher)
        keyring = KeyRing(secrets, realm=realm)
        self.gate: Gate = Gate(self.engine, keyring, self.live, config.rules)
        self.route_decorator: Callable[[Any, OnStoreFailure | None], Any] | None = None
        self._sweeper: Purger | None = None
        if isinstance(config.store, NeedsPurge):
            self._sweeper = Purger(config.store, self.engine.clock, config.store.purge_interval)
            self.dispatcher.on(Created, self._start_sweeper)

    def __repr__(self) -> str:
        """Show the store and the realm, nothing secret."""
        return f"<Sessions in {self.store!r}, realm {self.config.realm!r}>"

    def _start_sweeper(self, _: Created) -> None:
        if self._sweeper is not None:
            self._sweeper.start()

    # All of them

    def purge(self) -> int:
        """Remove every expired record now and return how many there were.

        Stores that do not forget by themselves are also swept in the background.
        """
        return run(self.apurge(), instead="sessions.apurge()")

    async def apurge(self) -> int:
        """Remove every expired record now; see ``purge``."""
        total = 0
        for _ in ("the rest of a walk that was under way", "a whole one"):
            finished = False
            while not finished:
                removed, finished = await self.store.purge(self.engine.clock(), BATCH)
                total += removed
        return total

    def count(self) -> int:
        """Return how many sessions are alive.

        Raises:
            ConfigurationError: the store cannot tell.
        """
        return run(self.acount(), instead="sessions.acount()")

    async def acount(self) -> int:
        """Return how many sessions are alive; see ``count``."""
        if not isinstance(self.store, SupportsCount):
            raise ConfigurationError(
                f"{self.store!r} cannot count its sessions; use a store that can, such as "
                "sqlite:///, or count where its data is kept"
            )
        return await self.store.count(self.engine.clock())

    def usage(self) -> Usage:
        """Return what this process did since its start."""
        return Usage(**asdict(self.engine.journal.counters), connections=self.live.total())

    def on(self, kind: type[E], listener: Callable[[E], object]) -> None:
        """Call a plain function with each event of one kind, such as ``sojourn.Revoked``.

        Raises:
            ConfigurationError: ``kind`` is no event, or ``listener`` is no plain function.
        """
        self.dispatcher.on(kind, listener)

    def on_read(self, function: R) -> R:
        """Let a ``CallbackStore`` read with this function; also usable as a decorator.

        Raises:
            ConfigurationError: the store is another one.
        """
        self._callback_store("on_read").on_read(function)
        return function

    def on_write(self, function: W) -> W:
        """Let a ``CallbackStore`` write with this function; also usable as a decorator.

        Raises:
            ConfigurationError: the store is another one.
        """
        self._callback_store("on_write").on_write(function)
        return function

    def _callback_store(self, verb: str) -> CallbackStore:
        if not isinstance(self.store, CallbackStore):
            raise ConfigurationError(
                f"sessions.{verb} gives a function to a CallbackStore, found {self.store!r}; "
                "install with store=sojourn.CallbackStore()"
            )
        return self.store

    @overload
    def route(self, handler: F) -> F: ...
    @overload
    def route(self, *, on_store_failure: OnStoreFailure | None = None) -> Callable[[F], F]: ...
    def route(
        self, handler: F | None = None, *, on_store_failure: OnStoreFailure | None = None
    ) -> F | Callable[[F], F]:
        """Give one route a session, where ``install`` was told ``autoload=False`` or other paths.

        A decorator for function handlers of the framework that this is installed on; put it under
        the framework's own. ``@sessions.route`` and ``@sessions.route(...)`` both work.

        Args:
            handler: the decorated function.
            on_store_failure: what becomes of its requests if the store fails, ``"error"`` or
                ``"anonymous"``; None for the installation's way.

        Raises:
            ConfigurationError: this is not installed on a framework that has function handlers.
        """
        if on_store_failure is not None:
            choice(OnStoreFailure)(on_store_failure, "on_store_failure")
        if handler is None:
            return partial(self._decorate, policy=on_store_failure)
        return self._decorate(handler, policy=on_store_failure)

    def _decorate(self, handler: F, *, policy: OnStoreFailure | None) -> F:
        if self.route_decorator is None:
            raise ConfigurationError(
                "@sessions.route needs to know the framework: install first, "
                "sessions = sojourn.install(app, autoload=False)"
            )
        return cast("F", self.route_decorator(handler, policy))

    def close(self) -> None:
        """Stop the background work and let go of the store's files and connections."""
        if self._sweeper is not None:
            self._sweeper.stop()
        if self._announcer is not None:
            self._announcer.close()
        if isinstance(self.store, Closeable):
            self.store.close()


def _secrets(config: Config) -> tuple[bytes, ...]:
    if config.secrets is not None:
        return config.secrets
    if not isinstance(config.store, LocalStore):
        raise missing_secret(config.store_name)
    path = config.store.secret_path()
    return (token_bytes(32) if path is None else read_or_create_secret(path),)


def _needs_loop(store: object) -> bool:
    # Announcing and listening are done in threads, which have none.
    return isinstance(store, RequiresEventLoop) and store.requires_event_loop() is not None


def _now() -> int:
    return time.time_ns() // 1_000_000
