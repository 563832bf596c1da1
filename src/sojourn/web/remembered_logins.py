"""RememberedLogins: decides whether a "remember me" cookie still logs its user in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from sojourn._core.engine import Engine
from sojourn._core.login import UNKNOWN_LOGIN
from sojourn._crypto.remember_proofs import RememberProof, RememberProofs
from sojourn.errors import StoreError
from sojourn.store import MAX_LOGIN_DURATION

#: The attributes of the companion are those of the other cookie, which may not meet the conditions
#: of these prefixes (RFC 6265bis 4.1.3).
_PREFIX: Final = re.compile(r"__(?:host-http|http|host|secure)-", re.IGNORECASE)


class Restoration(msgspec.Struct, frozen=True):
    """What becomes of a remembered login.

    Attributes:
        authenticated_at: when the user proved their identity, milliseconds since 1970 UTC.
        checked_at: an instant before the check: later revocations are later.
        refusal: why the login is refused; None if it is accepted.
    """

    authenticated_at: int
    checked_at: int
    refusal: str | None = None


class RememberedLogins:
    """Makes and checks companions.

    Such a cookie, as that of Flask-Login, names a user and has no date, so no revocation would
    reach it. A second cookie beside it, the companion, proves when the user has logged in and in
    which session.

    Args:
        engine: of the installation.
        secrets: of the installation, newest first.
        realm: of the installation.
        cookie: the name of the session cookie.

    Attributes:
        name: of the companion.
    """

    def __init__(
        self, engine: Engine, secrets: Sequence[bytes], *, realm: str, cookie: str
    ) -> None:
        self._engine = engine
        self._proofs = RememberProofs(secrets, realm=realm)
        self.name: str = f"{_PREFIX.sub('', cookie, count=1)}-remember"

    def max_age(self) -> int:
        """Return for how long a login is remembered, in milliseconds.

        Stores hold the instants of revocations for ``MAX_LOGIN_DURATION``.
        """
        limit = self._engine.policy.remembered.absolute_timeout
        return MAX_LOGIN_DURATION if limit is None else min(limit, MAX_LOGIN_DURATION)

    def seal(self, user: str, authenticated_at: int, session_id: bytes) -> str:
        """Return the value of a companion.

        Args:
            user: whom the other cookie names.
            authenticated_at: when the user proved their identity, milliseconds since 1970 UTC.
            session_id: of the user's session, 16 bytes.
        """
        return self._proofs.seal(RememberProof(authenticated_at, session_id), user, name=self.name)

    async def check(self, user: str, companion: str | None) -> Restoration:
        """Return whether a remembered login is accepted.

        It is refused if the user, the session or all sessions were revoked since, or if it is too
        old. The session to which it is bound then must be dated by the result: a revocation that is
        not found here is found at its commit.

        Args:
            user: whom the other cookie names; the caller has verified it.
            companion: the value of the companion; None if the request has none.

        Raises:
            StoreError: the store failed.
        """
        engine = self._engine
        await engine.context.begin()
        now = engine.revoker.now()
        proof = self._proofs.unseal(companion or "", user, name=self.name)
        at = UNKNOWN_LOGIN if proof is None else proof.authenticated_at
        session_id = b"" if proof is None else proof.session_id
        try:
            refusal = None if proof is None else await self._proof_refusal(proof, now)
            if refusal is None and not await engine.revoker.accepts_login(user, at):
                refusal = "revoked"
        except StoreError as error:
            engine.context.raise_store_error("load", session_id, error)
        if refusal is not None:
            engine.context.report_rejected(session_id, refusal)
        return Restoration(at, now, refusal)

    async def _proof_refusal(self, proof: RememberProof, now: int) -> str | None:
        """Return why a proof is not accepted for any user; None if it is."""
        if now >= proof.authenticated_at + self.max_age():
            return "expired (absolute)"
        return await self._engine.revoker.reason(proof.session_id)
