"""Handlers may return ``request.session``, as with Litestar's own sessions, which are dicts."""

from __future__ import annotations

from litestar.types import TypeEncodersMap

from sojourn.session import Session


def with_session_encoder(encoders: TypeEncodersMap | None) -> TypeEncodersMap:
    """Return an application's type encoders and one for sessions, which the application may replace."""
    return {Session: Session.copy, **(encoders or {})}
