"""Tornado integration: ``install``, and ``SessionMixin`` for handlers that name their session."""

from __future__ import annotations

from sojourn.frameworks.tornado.adapter import SessionMixin, get_session
from sojourn.frameworks.tornado.adapter import install as install
from sojourn.frameworks.tornado.adapter import read_settings as read_settings
from sojourn.frameworks.tornado.adapter import uninstall as uninstall

__all__ = ["SessionMixin", "get_session"]
