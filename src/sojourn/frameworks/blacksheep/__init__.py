"""BlackSheep integration: ``install``, the session as a parameter, an authentication handler."""

from sojourn.frameworks.blacksheep.authentication import SessionAuthentication
from sojourn.frameworks.blacksheep.installation import install as install
from sojourn.frameworks.blacksheep.installation import uninstall as uninstall
from sojourn.frameworks.blacksheep.routes import SessionBinder, get_session, require_csrf
from sojourn.frameworks.blacksheep.session import BlackSheepNullSession, BlackSheepSession

__all__ = [
    "BlackSheepNullSession",
    "BlackSheepSession",
    "SessionAuthentication",
    "SessionBinder",
    "get_session",
    "require_csrf",
]
