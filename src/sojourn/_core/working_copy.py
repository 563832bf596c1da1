"""WorkingCopy: the private side of a session, for the engine and the web layer.

What lives here: what one request, socket or stream knows of its session besides its keys: the
record it was loaded from, the verifier, what must happen to the cookie, whether it has ended. What
must not: anything a handler calls (``session.py``).

Its members begin with an underscore because a handler holds the same object; the engine and the
gate are meant to use them. Read next: ``engine.py``.
"""

from __future__ import annotations

import enum
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, Final, Protocol

from sojourn._core.changes import ChangeTracker
from sojourn._core.login import Login, Renewal, Rotation
from sojourn._crypto.tickets import hash_verifier, mint_id
from sojourn.errors import LimitReached, ResponseStarted
from sojourn.record import Contents, Record, UnreadableRecord

if TYPE_CHECKING:
    from sojourn._core.engine import Engine

#: Keys that begin with NUL are ours: flashed messages and the lease of ``exclusive``.
RESERVED: Final = "\0"


class CookieChange(enum.Enum):
    """What must happen to the visitor's cookie because of this session."""

    NONE = "none"
    SEND = "send"
    CLEAR = "clear"


#: The member by a name of its own: to look it up in the class costs a thousand instructions.
NO_CHANGE: Final = CookieChange.NONE


class Client(Protocol):
    """Whoever sent the request; asked only when a session is created or checked."""

    def labels(self) -> dict[str, str]:
        """Return short texts such as ``browser`` and ``address``."""
        ...


class WorkingCopy:
    """The state of one session during one request, socket or stream.

    Attributes:
        _engine: loads and commits it.
        _record: as loaded or last written; None while nothing is stored, or once it has ended.
        _verifier: 16 bytes, the secret half of the ticket; empty while nothing is stored.
        _client: who asks.
        _contents: the decoded body of the record, None until it is looked at.
        _view: the keys, None until they are looked at.
        _looked: the handler looked at the session, so caches must know (law A13).
        _cookie: what must happen to the cookie.
        _departed: the visitor ended a session in this request.
        _destroyed: the record that the next commit removes.
        _gone: somebody else ended the session; nothing is written any more (law A7).
        _id: the ID of a session that is not stored yet.
        _reason: why the session that the visitor had before has ended.
        _renewal: a login or a rotation that the next commit carries out.
        _upkeep: the header has to note that the ticket of a rotation was seen.
        _refusal: raised when the session is looked at, where the transport is not safe.
        _seen_at: when the client of a socket last spoke, milliseconds since 1970 UTC: what is
            written later on its behalf is no activity (law W6). 0 for a request, which speaks now.
        _returned: the visitor brought its cookie; it does not begin here.
        _started: the first byte has left, so no cookie can be sent.
        _state: the object behind ``session.state``.
    """

    __slots__ = (
        "_client",
        "_contents",
        "_cookie",
        "_departed",
        "_destroyed",
        "_engine",
        "_gone",
        "_id",
        "_looked",
        "_reason",
        "_record",
        "_refusal",
        "_renewal",
        "_returned",
        "_seen_at",
        "_started",
        "_state",
        "_upkeep",
        "_verifier",
        "_view",
    )

    def __init__(
        self,
        engine: Engine,
        record: Record | None = None,
        verifier: bytes = b"",  # no keyword: a class called with one costs as much again
        client: Client | None = None,
    ) -> None:
        self._engine = engine
        self._record = record
        self._verifier = verifier
        self._client = client
        self._contents: Contents | None = None
        self._view: ChangeTracker | None = None
        self._looked = False
        self._cookie: CookieChange = NO_CHANGE
        self._destroyed: Record | None = None
        self._gone = False
        self._id = b""
        self._refusal: Exception | None = None
        self._renewal: Renewal | None = None
        self._upkeep = False
        self._departed = False
        self._reason: str | None = None
        self._returned = record is not None
        self._seen_at = 0
        self._started = False
        self._state: Any = None

    def _look(self) -> ChangeTracker:
        """Note that the session was looked at, and return its keys."""
        self._looked = True
        return self._view or self._open()

    def _open(self) -> ChangeTracker:
        """Decode the keys (not their values) without counting as a look."""
        if self._view is not None:
            return self._view
        if self._refusal is not None:
            raise self._refusal
        data: dict[str, bytes] = {}
        if self._record is not None:
            try:
                self._contents = self._engine.sealer.open(self._record, self._verifier)
                data = self._contents.data
            except UnreadableRecord as damage:
                self._engine.journal.unreadable(self._record.id, damage)
                self._record = None
        self._view = ChangeTracker(data, self._engine.merges)
        return self._view

    def _touched(self) -> bool:
        """Tell whether there may be something to commit; False costs next to nothing."""
        view = self._view
        if view is not None and (view._cells or view._cleared) and view.changed():
            return True
        return self._destroyed is not None or self._renewal is not None

    def _change(self) -> ChangeTracker:
        """Return the keys for a change, or say why there can be none."""
        view = self._look()
        if self._started and self._record is None and not self._gone:
            raise ResponseStarted
        return view

    def _adopt(self, record: Record, contents: Contents) -> None:
        """Continue over a newer record of the same session."""
        self._record = record
        self._contents = contents
        if self._view is None:
            self._view = ChangeTracker(contents.data, self._engine.merges)
        else:
            self._view.rebase(contents.data)

    def _follow(self, record: Record) -> None:
        """Have the verifier that a newer record of the same login asks for, if it was rotated."""
        known = self._record
        if known is None or known.verifier == record.verifier:
            return
        self._upkeep = False  # what was seen of this login's tickets is not the newest any more
        if isinstance(self._renewal, Rotation):
            self._renewal = None  # somebody was faster
        if compare_digest(hash_verifier(self._verifier), record.verifier):
            return
        heir = self._engine.chain.heir(record.id, self._verifier, hashed=record.verifier)
        if heir is not None:
            self._verifier = heir
            self._send()

    def _late(self) -> None:
        """Have been asked for after the first byte: no cookie can be sent any more."""
        self._started = True
        self._renewal = None  # a rotation that nobody would hear of
        self._cookie = CookieChange.NONE

    def _send(self) -> None:
        """Have the cookie sent, while it can be."""
        if not self._started:
            self._cookie = CookieChange.SEND

    def _renewed(self, record: Record) -> None:
        """Note that the login, the rotation or the upkeep is written."""
        self._upkeep = False
        renewal = self._renewal
        if renewal is None:
            return
        self._renewal = None
        self._verifier = renewal.verifier
        self._send()
        if isinstance(renewal, Login):
            self._engine.journal.authenticated(record, renewal.user, renewal.methods)
        else:
            self._engine.journal.rotated(record)

    def _refused(self, error: Exception) -> None:
        """Forget a login for which there was no room: its handler may answer that and go on.

        What it was granted goes with it: nobody was let in.
        """
        if isinstance(error, LimitReached):
            view = self._open()
            for key in self._renewal.grants if isinstance(self._renewal, Login) else ():
                view.delete(key)
            self._renewal = None

    def _forget(self) -> None:
        """Have no record and no data, as a visitor who just arrived."""
        if self._cookie is CookieChange.SEND:
            self._cookie = CookieChange.NONE  # its ticket is that of what is forgotten
        self._record = None
        self._renewal = None
        self._verifier = b""
        self._returned = False
        self._contents = None
        self._id = b""
        self._view = ChangeTracker({}, self._engine.merges)
        self._state = None

    def _end(self, session_id: bytes) -> None:
        """Have ended by somebody else's hand: no data, and never a new record."""
        self._forget()
        self._gone = True
        self._id = session_id

    def _has(self, session_id: bytes) -> bool:
        """Tell whether this is still that session: during a wait it may have been destroyed."""
        return self._record is not None and self._record.id == session_id

    def _labels(self) -> dict[str, str]:
        return {} if self._client is None else self._client.labels()

    @property
    def _user(self) -> str | None:
        if isinstance(self._renewal, Login):
            return self._renewal.user
        return None if self._contents is None else self._contents.user

    def _authenticated(self) -> bool:
        """Whether somebody has logged in; the record tells without being decoded."""
        record = self._record
        if record is not None and record.authenticated_at > 0:
            return True
        return self._renewal is not None and isinstance(self._renewal, Login)

    @property
    def _persistent(self) -> bool:
        if isinstance(self._renewal, Login):
            return self._renewal.remember
        return self._record is not None and self._record.persistent

    def _raw_id(self) -> bytes:
        if self._record is not None:
            return self._record.id
        if not self._id:
            self._id = mint_id()
        return self._id
