"""Starlette integration: ``install``, ``@sessions.route``, and a drop-in ``SessionMiddleware``."""

from sojourn.frameworks.starlette.dict_session import DictSession
from sojourn.frameworks.starlette.drop_in import SessionMiddleware
from sojourn.frameworks.starlette.stack import install, load, route, uninstall, wrap

__all__ = ["DictSession", "SessionMiddleware", "install", "load", "route", "uninstall", "wrap"]
