"""Identity: whose session it is, how they proved it, and with which ticket it goes on.

What lives here: login, rotation, re-authentication and one-time grants, as a handler calls them.
What must not: the mapping (``session.py``) and what a login does to a record (``renewal.py``).

Nothing sets a user but ``login``, and ``login`` always replaces the ticket (ASVS 7.2.4). Like every
other change it is carried out by the next commit, before the first byte of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Final, cast

from sojourn._core.concurrency import run
from sojourn._core.login import GRANT, Login, Rotation, noted_methods
from sojourn._core.policy import Duration, milliseconds
from sojourn._core.working_copy import RESERVED, CookieChange, WorkingCopy
from sojourn._crypto.tickets import hash_verifier, mint_verifier
from sojourn.errors import RecentAuthRequired, ResponseStarted, SessionGone
from sojourn.record import INDEXED_LABELS, Record, check_user, plain_text

_CSRF: Final = RESERVED + "csrf"


class Identity(WorkingCopy):
    """The part of a session that is about its user."""

    __slots__ = ()

    def login(
        self,
        user: str,
        *,
        methods: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        remember: bool = False,
    ) -> None:
        """Note that the visitor has proved to be a user; also for proving it again.

        The session keeps its data and its ID and gets a new ticket; the one from before is dead
        once this is committed, whoever may have it, and sockets that it opened are closed. All
        limits start anew.

        Args:
            user: the application's own name for them, at most 255 characters.
            methods: how they proved it, such as ``("password", "totp")``; see ``require_recent``.
            labels: short texts for lists, besides browser and address, which are noted anew.
                ``idp_sid`` is the session at an identity provider: ``sessions.revoke_where``; of
                the same user it stays unless another is given, so that it still ends this one.
            remember: let the session outlive the browser, with the limits ``remember_timeout`` and
                ``remember_absolute_timeout``.

        Raises:
            SessionGone: the session has ended during this request; have them log in again.
            ResponseStarted: the first byte has left, so no cookie can be sent.
            LimitReached: at the commit, with ``on_limit="refuse"``.
        """
        named, proofs, noted = check_user(user), _texts(methods), _labels(labels)
        asked: object = remember  # what a caller without a type checker may pass, such as "off"
        if not isinstance(asked, bool):
            raise TypeError(f"remember expects True or False, found {remember!r}")
        record = self._open_door()
        earlier = 0 if record is None else record.authenticated_at
        self._renewal = Login(
            named,
            proofs,
            {**self._labels(), **self._vouched(named), **noted},
            max(self._engine.ender.now(), earlier + 1),
            remember,
            mint_verifier(),
        )

    def _vouched(self, user: str) -> dict[str, str]:
        """Return the labels that whoever vouched for this user may end the session by."""
        held = self._renewal if isinstance(self._renewal, Login) else self._contents
        if held is None or held.user != user:
            return {}
        return {label: held.labels[label] for label in INDEXED_LABELS if label in held.labels}

    def rotate(self) -> None:
        """Get a new ticket and keep everything else: after a change of rights, or now and then.

        Requests that are under way with the former ticket still work: until the new one has been
        seen and two seconds more, and at most ten seconds. So whoever asks again while a former one
        still works keeps the ticket of a moment ago. A session that is not stored yet has none to
        replace.

        Raises:
            SessionGone: the session has ended.
            ResponseStarted: the first byte has left, so no cookie can be sent.
        """
        record = self._open_door()
        # Whoever gets a new ticket already, because of a former one or of a login, needs no other.
        if record is None or self._renewal is not None or self._cookie is CookieChange.SEND:
            return
        if self._engine.clock() < record.previous_valid_until:
            return  # a second rotation would take the former ticket's grace from who is under way
        if compare_digest(hash_verifier(self._verifier), record.verifier):
            verifier = self._engine.chain.following(record.id, self._verifier)
            self._renewal = Rotation(verifier, automatic=False)

    def _open_door(self) -> Record | None:
        """Return the record for a renewal, or say why there can be none."""
        self._look()
        if self._gone:
            raise SessionGone(self._raw_id().hex())
        if self._started:
            raise ResponseStarted
        return self._record

    # Who it is

    @property
    def user(self) -> str | None:
        """Who has logged in, None while nobody has."""
        self._look()
        return self._user

    @property
    def methods(self) -> tuple[str, ...]:
        """How the user proved who they are, as given to ``login``."""
        self._look()
        if isinstance(self._renewal, Login):
            return self._renewal.methods
        return () if self._contents is None else noted_methods(self._contents.data)

    @property
    def authenticated_at(self) -> datetime | None:
        """When the user last proved who they are, UTC; None while nobody has."""
        self._look()
        at = self._login_at()
        return datetime.fromtimestamp(at / 1000, UTC) if at else None

    @property
    def remembered(self) -> bool:
        """Whether only "remember me" keeps the session alive: the proof of the user is old.

        Enough to greet somebody, too little to act for them (NIST SESS-05): ``require_recent``.
        """
        self._look()
        record = self._record
        if record is None or isinstance(self._renewal, Login):
            return False
        return record.reauthentication_required or self._engine.policy.lapses(
            record, self._engine.clock()
        )

    def require_recent(self, within: Duration, *, methods: Sequence[str] = ()) -> None:
        """Demand a login not long ago, before something sensitive (ASVS 7.5.1 and 7.5.3).

        Args:
            within: how old it may be.
            methods: all that must have been used.

        Raises:
            RecentAuthRequired: nobody has logged in, or too long ago, or by less, or the session is
                only remembered. Have them log in again: ``login`` restarts everything.
        """
        limit = milliseconds(within, option="within") / 1000
        self._look()
        at = self._login_at()
        missing = [method for method in _texts(methods) if method not in self.methods]
        if self._user is None or not at or self.remembered:
            raise RecentAuthRequired(None, limit, missing)
        age = max(0, self._engine.clock() - at) / 1000
        if age > limit or missing:
            raise RecentAuthRequired(age, limit, missing)

    def _login_at(self) -> int:
        if isinstance(self._renewal, Login):
            return self._renewal.at
        return 0 if self._record is None else self._record.authenticated_at

    # One-time grants

    def grant(self, purpose: str, lifetime: Duration = "5 minutes") -> None:
        """Allow this session one thing once, such as after an extra factor (ASVS 7.5.3).

        A later login takes it away.
        """
        until = self._engine.clock() + milliseconds(lifetime, option="lifetime")
        key = _grant_key(purpose)
        self._change().set(key, until)
        if isinstance(self._renewal, Login):
            self._renewal.grants.add(key)

    def use_grant(self, purpose: str) -> bool:
        """Use up a grant; True for exactly one of all who try, and only while it lasts.

        Raises:
            SessionGone: the session has ended.
        """
        return run(self.ause_grant(purpose), instead="session.ause_grant()")

    async def ause_grant(self, purpose: str) -> bool:
        """Use up a grant; see ``use_grant``."""
        self._change()
        until = await self._engine.claim(self, _grant_key(purpose), 0)
        return bool(self._engine.clock() < until)

    # For pages

    @property
    def csrf_token(self) -> str:
        """A text for forms, by which ``sessions.check_csrf`` knows our own pages.

        Another one at each look, all good until the next login or rotation has passed. A visitor
        without a session gets one, because the token belongs to its ticket.

        Raises:
            ResponseStarted: this would begin a new session after the first byte.
        """
        view = self._change()
        if self._record is None and not self._verifier:
            self._verifier = mint_verifier()
            view.set(_CSRF, value=True)  # so that there is a session to begin
        renewal = self._renewal
        verifier = self._verifier if renewal is None else renewal.verifier
        return self._engine.csrf.make(hash_verifier(verifier))

    @property
    def ended_reason(self) -> str | None:
        """Why the session that the visitor had before has ended, None if that is not known.

        Such as "revoked" or what ``sessions.revoke`` was given, "limit", "reused", "expired
        (idle)". Known for a day, and only to who had its ticket.
        """
        self._looked = True
        return self._reason


def _grant_key(purpose: object) -> str:
    text = plain_text(purpose)
    if not text:
        raise TypeError(f"a grant is for a purpose such as 'delete-account', found {purpose!r}")
    return GRANT + text


def _texts(methods: Sequence[object]) -> tuple[str, ...]:
    texts = () if isinstance(methods, str) else tuple(map(plain_text, methods))
    if isinstance(methods, str) or None in texts:
        raise TypeError(f"methods expects texts such as ('password',), found {methods!r}")
    return cast("tuple[str, ...]", texts)


def _labels(labels: Mapping[str, object] | None) -> dict[str, str]:
    noted = {plain_text(name): plain_text(text) for name, text in dict(labels or {}).items()}
    if None in noted or None in noted.values():
        raise TypeError(f"labels expects a dict from text to text, found {labels!r}")
    return cast("dict[str, str]", noted)
