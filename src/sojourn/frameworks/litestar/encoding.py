"""Handlers may return ``request.session``, as with Litestar's own sessions, which are dicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litestar.types import TypeEncodersMap

from sojourn.session import Session


def with_session_encoder(encoders: TypeEncodersMap | None) -> dict[Any, Callable[[Any], Any]]:
    """Return an application's type encoders and one for sessions, unless it has its own."""
    return {Session: Session.copy, **(encoders or {})}
