"""Cookies signed as other session libraries sign them."""

import json
from base64 import b64encode

from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import TimestampSigner

#: The secret of the former installation.
LEGACY_SECRET = "the secret of the former library: 71f0c2"


def starlette_cookie(data):
    """Return the cookie of Starlette's ``SessionMiddleware``."""
    text = b64encode(json.dumps(data).encode())
    return TimestampSigner(LEGACY_SECRET).sign(text).decode()


def flask_cookie(data):
    """Return the cookie of Flask's own sessions."""
    app = Flask(__name__)
    app.secret_key = LEGACY_SECRET
    return SecureCookieSessionInterface().get_signing_serializer(app).dumps(data)
