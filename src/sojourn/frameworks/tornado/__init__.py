"""Tornado integration: ``install``, and ``SessionMixin`` for handlers that name their session."""

from __future__ import annotations

from sojourn.frameworks.tornado.adapter import SessionMixin, get_session, install, uninstall

__all__ = ["SessionMixin", "get_session", "install", "uninstall"]
