"""``req.context.session``: where the session of a request is found."""

from __future__ import annotations

from typing import Any, Final

#: The name in the context of a request.
_NAME: Final = "session"


def set_session(req: Any, session: object) -> None:
    """Put the session into the context of a request, which may be a dict (``context_type``)."""
    context = req.context
    if isinstance(context, dict):
        context[_NAME] = session
    else:
        setattr(context, _NAME, session)


def find_session(req: Any, default: object) -> object:
    """Return what is in place of the session; ``default`` if nothing is."""
    context = req.context
    if isinstance(context, dict):
        return context.get(_NAME, default)
    return getattr(context, _NAME, default)
