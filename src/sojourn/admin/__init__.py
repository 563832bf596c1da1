"""Web pages about sessions: the admin application."""

from __future__ import annotations

from sojourn.admin.request import AdminRequest

__all__ = ["AdminRequest"]
