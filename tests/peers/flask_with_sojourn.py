"""A plugin of pytest for Flask's tests: each application has the sessions of sojourn.

They are installed at the first request, when the configuration is complete. An application with its
own session interface keeps it.
"""

import _pytest.monkeypatch
from flask import Flask
from flask.sessions import SecureCookieSessionInterface

import sojourn
from sojourn.stores.memory import MemoryStore

# Flask's conftest.py uses the name of an older pytest.
_pytest.monkeypatch.notset = _pytest.monkeypatch.NOTSET

make_context = Flask.request_context


def request_context(app, environ):
    """Install the sessions, then call Flask's method."""
    if type(app.session_interface) is SecureCookieSessionInterface:
        # Hosts such as example.com are not local.
        options = {} if app.config["SESSION_COOKIE_SECURE"] else {"secure": False}
        sojourn.install(app, store=MemoryStore(), **options)
    return make_context(app, environ)


Flask.request_context = request_context
