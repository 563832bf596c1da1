"""Sanic integration: ``get_session``, and ``install`` for ``sojourn.install``."""

from __future__ import annotations

from sojourn.frameworks.sanic.adapter import get_session
from sojourn.frameworks.sanic.adapter import install as install
from sojourn.frameworks.sanic.adapter import read_settings as read_settings
from sojourn.frameworks.sanic.adapter import uninstall as uninstall

__all__ = ["get_session"]
