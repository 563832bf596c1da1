"""A plugin of pytest for Flask's tests: each application has the sessions of sojourn.

They are installed with the first request, when the test has completed the configuration. An
application with a session interface of its own keeps it.
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
    """Install the sessions, then do what Flask does."""
    if type(app.session_interface) is SecureCookieSessionInterface:
        # Hosts such as example.com are no hosts of this machine.
        options = {} if app.config["SESSION_COOKIE_SECURE"] else {"secure": False}
        sojourn.install(app, store=MemoryStore(), **options)
    return make_context(app, environ)


Flask.request_context = request_context
