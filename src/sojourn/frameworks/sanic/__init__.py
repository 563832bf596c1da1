"""Sanic integration: ``install``, ``get_session``, ``@sessions.route``."""

from __future__ import annotations

from sojourn.frameworks.sanic.adapter import get_session, install, uninstall

__all__ = ["get_session", "install", "uninstall"]
