"""What both applications have to agree on: store, secret, cookie and timeout."""

import os

STORE = os.environ.get("STORE", "sqlite:///.sojourn/sessions.db")
SECRET = os.environ.get("SOJOURN_SECRET", "only for this example: 7c1f5a09e3b2")
COOKIE = "sessionid"  # Django's default; the name is part of the encryption of the ticket
TIMEOUT = "30 minutes"
