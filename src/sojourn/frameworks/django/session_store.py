"""SessionStore: Django's session engine, ``SESSION_ENGINE = "sojourn.frameworks.django"``.

``session_key`` is the ticket here, because Django's own middleware and its test client write it
into the cookie. It is not stored, and it grants access: log and show ``session.id`` instead.
"""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from functools import lru_cache
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, load_backend
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.core.exceptions import SynchronousOnlyOperation
from django.utils.crypto import constant_time_compare
from django.utils.module_loading import import_string

from sojourn._core.concurrency import run, running_loop
from sojourn._core.engine import Engine
from sojourn._core.login import Login
from sojourn._core.plain_values import to_plain
from sojourn._core.reserved_keys import CREATED
from sojourn._core.working_copy import NO_COOKIE_CHANGE, CookieChange, WorkingCopy
from sojourn._crypto.tickets import Ticket, hash_verifier
from sojourn.errors import SessionGone
from sojourn.frameworks.django.current_session import (
    current_session,
    get_current_session,
    serves_visitors,
)
from sojourn.frameworks.django.settings import get_sessions
from sojourn.frameworks.django.typed_bases import SessionBase
from sojourn.record import Record
from sojourn.session import Session, create_session

T = TypeVar("T")


class SessionStore(Session[Any], SessionBase):
    """A session with the methods of Django's ``SessionBase``, loaded when it is first used.

    Nested changes are detected, and changes of parallel requests are merged; ``modified = True`` is
    allowed and not needed. With ``modified = False`` Django's middleware does not save what was
    changed before.

    Args:
        session_key: the value of the visitor's cookie; None for a new session.
    """

    _loaded = False

    def __init__(self, session_key: str | None = None) -> None:
        self._session_key = session_key
        self._accessed = False
        self._modified: bool | None = None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Load the session when its working copy is first used."""
            if name in ("_copy", "_engine") and not self._loaded:
                self._load_now()
                return object.__getattribute__(self, name)
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self
            )

    def __repr__(self) -> str:
        """Show the public ID; a session that is not loaded has none yet."""
        return super().__repr__() if self._loaded else f"<{type(self).__name__}, not loaded>"

    # Loading

    @property
    def serializer(self) -> Any:
        """The class of SESSION_SERIALIZER; only ``encode`` and ``decode`` use it."""
        return import_string(settings.SESSION_SERIALIZER)

    def _load_now(self) -> None:
        """Load the session in this thread."""
        engine, ticket = self._start_loading()
        if ticket is None:
            session_id = read_key(self.session_key)
            if session_id is None:
                self._use(WorkingCopy(engine.context), engine)
            else:
                self._use(_wait(_load_by_id(engine, session_id), "aget()"), engine)
            self._forget_unknown_key()
            return
        copy = engine.load_immediately(ticket, None)
        if copy is None:
            copy = _wait(engine.load(ticket), "aget() and the other methods with an a")
        self._use(copy, engine)
        if not engine.commit_immediately(copy) and copy.renewal is None and running_loop() is None:
            run(self._write_activity())
        self._update_session_key()

    async def _aload_now(self) -> None:
        """Load the session under an event loop."""
        engine, ticket = self._start_loading()
        if ticket is None:
            self._use(await self._load_by_key(engine), engine)
            self._forget_unknown_key()
            return
        copy = engine.load_immediately(ticket, None) or await engine.load(ticket)
        if self._loaded:  # by another task, meanwhile
            return
        self._use(copy, engine)
        if not engine.commit_immediately(copy) and copy.renewal is None:
            await self._write_activity()
        self._update_session_key()

    def _start_loading(self) -> tuple[Engine, Ticket | None]:
        sessions = get_sessions()
        key = self.session_key
        return sessions.engine, None if key is None else sessions.web.unseal(key)

    async def _load_by_key(self, engine: Engine) -> WorkingCopy:
        """Load the session that a ``RequestSession.session_key`` names; empty without one."""
        session_id = read_key(self.session_key)
        if session_id is None:
            return WorkingCopy(engine.context)
        return await _load_by_id(engine, session_id)

    def _forget_unknown_key(self) -> None:
        if self._copy.record is None:
            self._session_key = None

    async def _write_activity(self) -> None:
        """Write what a read requires: Django's middleware saves modified sessions only."""
        await self._engine.commit(self._copy)

    def _use(self, copy: WorkingCopy, engine: Engine) -> None:
        copy.accessed = self._accessed
        self._copy = copy
        self._engine = engine
        self._loaded = True
        if serves_visitors():
            current = get_current_session()
            if current is None or current.user is None:
                current_session.set(ref(self))

    def _update_session_key(self) -> None:
        """Make ``session_key`` the ticket of the record."""
        copy = self._copy
        if copy.record is None:
            self._session_key = None
        elif copy.cookie_change is CookieChange.SEND:
            self._session_key = get_sessions().web.seal(copy)
            self.modified = True  # so that Django's middleware writes the cookie
        copy.cookie_change = NO_COOKIE_CHANGE

    def _get_session(self, no_load: bool = False) -> SessionStore:  # noqa: FBT001, FBT002 - Django's signature
        self.accessed = True
        if not self._loaded:
            if no_load or self.session_key is None:
                self._renew()
            else:
                self._load_now()
        return self

    async def _aget_session(self, no_load: bool = False) -> SessionStore:  # noqa: FBT001, FBT002 - Django's signature
        self.accessed = True
        if not self._loaded:
            if no_load or self.session_key is None:
                self._renew()
            else:
                await self._aload_now()
        return self

    def _renew(self) -> None:
        """Become an empty session without a record."""
        engine = get_sessions().engine
        self._use(WorkingCopy(engine.context), engine)

    _session = property(_get_session)

    @property
    def _session_cache(self) -> SessionStore:
        if not self._loaded:
            raise AttributeError("_session_cache")
        return self

    @_session_cache.setter
    def _session_cache(self, value: dict[str, Any]) -> None:
        if value is not self:
            self.clear()
            self.update(value)

    def open(self) -> tuple[WorkingCopy, Engine]:
        """Load the session if it is not loaded, and return what it works on."""
        self._get_session()
        return self._copy, self._engine

    # State

    @property
    def accessed(self) -> bool:
        """Whether the session was read or written; its responses vary by Cookie."""
        return self._accessed or (self._loaded and self._copy.accessed)

    @accessed.setter
    def accessed(self, value: bool) -> None:
        self._accessed = value
        if self._loaded:
            self._copy.accessed = value

    @property
    def modified(self) -> bool:
        """Whether the session was changed, also inside of its values, or has to be saved."""
        if self._modified is not None:
            return self._modified
        return self._loaded and self._copy.modified()

    @modified.setter
    def modified(self, value: bool) -> None:
        self._modified = value

    def is_empty(self) -> bool:
        """Return whether there is neither a key nor data; carry out a logout that is pending."""
        if not self._loaded:
            return not self.session_key
        copy = self._copy
        if copy.destroyed_record is not None and self.session_key is None:
            # Django's middleware calls this before it decides to delete the cookie, and does not
            # save an empty session.
            _wait(self._commit(), "aflush()")
        if self.session_key is not None:
            return False
        return copy.renewal is None and next(iter(copy.decode()), None) is None

    def __bool__(self) -> bool:
        """Return whether the session has a key or data."""
        self.accessed = True
        return not self.is_empty()

    # Mapping

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, ``default`` if there is none."""
        return super().get(key, default)

    def setdefault(self, key: str, value: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] # Django's name of the argument
        """Return the value of a key; set it to ``value`` if there is none."""
        if key not in self:
            self.modified = True
        return super().setdefault(to_plain(key), to_plain(value))

    def __setitem__(self, key: str, value: Any) -> None:
        """Assign a key; another hash of the user's password ends the user's other sessions."""
        previous = super().get(key) if key == HASH_SESSION_KEY else None
        self._assign(key, value)
        if previous and self._hash_replaced(previous, value):
            get_sessions().credentials_changed(self.require_user(), keep=self)
            self.save_login()

    async def aset(self, key: str, value: Any) -> None:
        """Assign a key; another hash of the user's password ends the user's other sessions."""
        await self._aget_session()
        previous = super().get(key) if key == HASH_SESSION_KEY else None
        self._assign(key, value)
        if previous and await sync_to_async(self._hash_replaced)(previous, value):
            await get_sessions().acredentials_changed(self.require_user(), keep=self)
            await self.asave_login()

    def _assign(self, key: str, value: Any) -> None:
        """Assign a key to a value, or to what JSON would make of it."""
        super().__setitem__(to_plain(key), to_plain(value))
        self._modified = True

    def _hash_replaced(self, previous: str, value: str) -> bool:
        """Return whether the hash was replaced because the user's password has changed.

        The login is renewed already if the password was saved in this request.
        """
        return (
            previous != value
            and self.user is not None
            and not isinstance(self._copy.renewal, Login)
            and not _is_from_fallback_secret(self, previous)
        )

    def __delitem__(self, key: str) -> None:
        """Delete a key.

        Raises:
            KeyError: there is no such key.
        """
        super().__delitem__(key)
        self._modified = True

    def clear(self, *, keep_login: bool = False) -> None:
        """Delete every key; if a user is logged in, log out, and the session gets another key."""
        super().clear(keep_login=keep_login)
        self._modified = True

    async def adelete_test_cookie(self) -> None:
        """Delete the test cookie."""
        await self.apop(self.TEST_COOKIE_NAME)

    # Lifecycle

    def destroy(self) -> None:
        """Destroy the session; carried out by ``save`` or ``is_empty``."""
        super().destroy()
        self._session_key = None
        self._modified = True

    def create(self) -> None:
        """Create a record with a new key and the present data."""
        _wait(self.acreate(), "acreate()")

    async def acreate(self) -> None:
        """Create a record with a new key and the present data."""
        if not self._loaded:
            self._renew()
        elif self._copy.record is not None or self._copy.revoked:
            data = self.copy()
            self._renew()
            self.update(data)
        self._copy.edit().set(CREATED, value=True)
        await self._engine.commit(self._copy, explicit=True)
        self._update_session_key()
        self.modified = True

    def save(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002 - Django's signature
        """Write the changes; create a record if there is none.

        Args:
            must_create: create a record in any case.

        Raises:
            CreateError: ``must_create`` was given, and a session with this key exists.
            UpdateError: the session has ended; nothing was written.
        """
        _wait(self.asave(must_create), "asave()")

    async def asave(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002 - Django's signature
        """Write the changes; see ``save``."""
        if must_create and self.session_key is not None and await self.aexists(self.session_key):
            raise CreateError
        if must_create:
            await self.acreate()
            return
        await self._aget_session()
        copy = self._copy
        if self.session_key is None and copy.destroyed_record is None:
            await self.acreate()
            return
        if (
            copy.record is None
            and copy.destroyed_record is not None
            and self.session_key is not None
        ):
            copy.edit().set(CREATED, value=True)  # cleared: Django keeps an empty session
        await self._commit()

    async def _commit(self) -> None:
        """Write the changes, or extend the session if there are none, as Django's backends do."""
        copy, engine = self._copy, self._engine
        try:
            record = copy.record
            if copy.revoked:
                raise SessionGone(copy.session_id().hex())  # noqa: TRY301 - answered below
            if record is not None and not copy.modified():
                await engine.touch(copy)
            else:
                await engine.commit(copy, explicit=True)
        except SessionGone as error:
            raise UpdateError from error
        self._update_session_key()

    def delete(self, session_key: str | None = None) -> None:
        """Delete the record of a key, or of the public ID of a session.

        Args:
            session_key: None for this session.
        """
        _wait(self.adelete(session_key), "adelete()")

    async def adelete(self, session_key: str | None = None) -> None:
        """Delete the record of a key; see ``delete``."""
        if session_key is not None and session_key != self.session_key:
            await self._delete_other(session_key)
        elif self.session_key is not None or self._loaded:
            if not self._loaded:
                await self._aload_now()
            copy = self._copy
            copy.destroyed_record = copy.record or copy.destroyed_record
            if copy.destroyed_record is not None:
                session_id = copy.destroyed_record.id
                await self._engine.remove(copy)
                copy.mark_revoked(session_id)

    async def _delete_other(self, session_key: str) -> None:
        sessions = get_sessions()
        ticket = sessions.web.unseal(session_key)
        if ticket is None:
            session_id = read_key(session_key)
            named = session_key if session_id is None else session_id.hex()
            await sessions.arevoke(named, reason="destroyed")
        elif await self._is_current(ticket):
            await sessions.arevoke(ticket.session_id.hex(), reason="destroyed")

    def exists(self, session_key: str | None) -> bool:
        """Return whether a session has this key, or this public ID."""
        return _wait(self.aexists(session_key), "aexists()")

    async def aexists(self, session_key: str | None) -> bool:
        """Return whether a session has this key, or this public ID."""
        if not session_key:
            return False
        sessions = get_sessions()
        ticket = sessions.web.unseal(session_key)
        if ticket is not None:
            return await self._is_current(ticket)
        session_id = read_key(session_key)
        if session_id is not None:
            return await fetch_live(session_id) is not None
        return await sessions.aget(session_key) is not None

    async def _is_current(self, ticket: Ticket) -> bool:
        """Return whether this is the present ticket of a live session."""
        sessions = get_sessions()
        record = await sessions.engine.fetch(ticket.session_id)
        return (
            record is not None
            and compare_digest(record.verifier, hash_verifier(ticket.verifier))
            and await sessions.aget(record.session_id) is not None
        )

    def load(self) -> dict[str, Any]:
        """Return the stored data as a plain dict; empty if there is no such session."""
        return _wait(self.aload(), "aload()")

    async def aload(self) -> dict[str, Any]:
        """Return the stored data as a plain dict; empty if there is no such session."""
        engine, ticket = self._start_loading()
        copy = await (self._load_by_key(engine) if ticket is None else engine.load(ticket))
        if copy.record is None:
            self._session_key = None
        return create_session(copy, engine).copy()

    def flush(self) -> None:
        """Delete the record and the data; the next change starts a new session."""
        _wait(self.aflush(), "aflush()")

    async def aflush(self) -> None:
        """Delete the record and the data; see ``flush``."""
        await self.adelete()
        self._renew()
        self._session_key = None
        self.accessed = True
        self.modified = True

    def cycle_key(self) -> None:
        """Replace the key and keep the data; the previous key is invalid at once."""
        _wait(self.acycle_key(), "acycle_key()")

    async def acycle_key(self) -> None:
        """Replace the key and keep the data; see ``cycle_key``."""
        await self._aget_session()
        if self._copy.record is None:
            await self.acreate()
            return
        self.rotate(grace_period=False)
        await self._commit()
        self.modified = True

    def save_login(self) -> None:
        """Store a login at once, which changes ``session_key``.

        Extensions read the key before Django saves: ``allauth.headless`` sends it to the client,
        ``allauth.usersessions`` stores it.
        """
        _wait(self.asave_login(), "asave()")

    async def asave_login(self) -> None:
        """Store a login at once; see ``save_login``."""
        await self._commit()
        self.modified = True

    @classmethod
    def clear_expired(cls) -> None:
        """Remove every expired record."""
        _wait(cls.aclear_expired(), "aclear_expired()")

    @classmethod
    async def aclear_expired(cls) -> None:
        """Remove every expired record."""
        await get_sessions().apurge()

    # Encoding, for applications that call it

    def encode(self, session_dict: Any) -> str:
        """Return data as signed text; sojourn itself stores data in another form."""
        plain = session_dict.copy() if isinstance(session_dict, Session) else session_dict
        return super().encode(plain)

    def get_session_cookie_age(self) -> int:
        """Return the longest inactivity in seconds, SESSION_COOKIE_AGE if SOJOURN has no other."""
        return get_sessions().engine.policy.authenticated.idle_timeout // 1000


def read_key(session_key: str | None) -> bytes | None:
    """Return the session ID, 16 bytes, that a key of ``RequestSession`` names; None for none.

    Django's own middleware would accept such a key as a cookie, so with it none is read.
    """
    if not session_key or _has_django_middleware(tuple(settings.MIDDLEWARE)):
        return None
    return get_sessions().session_keys.read(session_key)


@lru_cache(maxsize=8)
def _has_django_middleware(paths: tuple[str, ...]) -> bool:
    """Return whether a middleware is Django's own for sessions, or a project's subclass of it."""
    for path in paths:
        middleware = import_string(path)
        if (
            isinstance(middleware, type)
            and issubclass(middleware, DjangoSessionMiddleware)
            and not getattr(middleware, "uses_request_sessions", False)
        ):
            return True
    return False


async def _load_by_id(engine: Engine, session_id: bytes) -> WorkingCopy:
    """Return a working copy without a ticket; an empty one if the caller may not have it.

    Extensions such as ``allauth.headless`` and ``channels.sessions`` give ``SessionStore`` what a
    visitor has sent, and a key may come from a database or a log. It must not grant access, so a
    request has only the sessions of the user who is logged in.
    """
    record = await fetch_live(session_id)
    if record is not None and serves_visitors():
        current = get_current_session()
        info = await get_sessions().aget(record.session_id)
        if (
            current is None
            or info is None
            or (info.id != current.id and (info.user is None or info.user != current.user))
        ):
            record = None
    return WorkingCopy(engine.context, record)


async def fetch_live(session_id: bytes) -> Record | None:
    """Return the record of a session that has not ended; None for none."""
    sessions = get_sessions()
    record = await sessions.engine.fetch(session_id)
    return None if record is None or await sessions.aget(session_id.hex()) is None else record


def _wait(coroutine: Coroutine[Any, Any, T], instead: str) -> T:
    """Run a coroutine in a thread without an event loop.

    Raises:
        SynchronousOnlyOperation: this thread runs an event loop.
    """
    if running_loop() is not None:
        coroutine.close()
        raise SynchronousOnlyOperation(
            "the session was used synchronously under an event loop, where it would have to wait "
            f"for its store: await session.{instead} instead, or use "
            "'sojourn.frameworks.django.SessionMiddleware', which loads it before the view"
        )
    return run(coroutine)


def _is_from_fallback_secret(session: Mapping[str, Any], previous_hash: str) -> bool:
    """Return whether a session's hash was made with one of SECRET_KEY_FALLBACKS.

    Django replaces such a hash at the next request, though the user's password is the same.

    Args:
        session: of the user who is logged in.
        previous_hash: the session's hash of the password.
    """
    user = load_backend(session[BACKEND_SESSION_KEY]).get_user(session[SESSION_KEY])
    fallback_hashes: Iterable[str] = getattr(user, "get_session_auth_fallback_hash", tuple)()
    return any(constant_time_compare(previous_hash, each) for each in fallback_hashes)
