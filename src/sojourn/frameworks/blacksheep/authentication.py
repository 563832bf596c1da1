"""SessionAuthentication: the user of the session as BlackSheep's identity."""

from __future__ import annotations

from typing import Any, Final

from guardpost import AuthenticationHandler, Identity, User

from sojourn.frameworks.blacksheep.routes import get_session

_MODE: Final = "session"


class SessionAuthentication(AuthenticationHandler):
    """Sets ``request.user`` to the user of the session, for ``@auth()`` and policies.

    ``app.use_authentication().add(SessionAuthentication())``. A handler logs in with
    ``session.login(user)`` and out with ``session.logout()``. The claims are ``sub``, the user, and
    ``amr``, the methods of authentication (RFC 8176).
    """

    @property
    def scheme(self) -> str:
        """The name of the authentication scheme."""
        return _MODE

    async def authenticate(  # type: ignore[override] # guardpost awaits an async method
        self, context: Any
    ) -> Identity | None:
        """Return the identity of a request; None if no user is logged in."""
        session = await get_session(context)
        user = session.user
        context.user = (
            User()
            if user is None
            else User({"sub": user, "amr": list(session.methods)}, authentication_mode=_MODE)
        )
        identity: Identity | None = None if user is None else context.user
        return identity
