"""A bare WSGI application for many workers: each request increments and sets two keys.

`STORE` is the URL of the store; `OPTIONS` are further options as JSON. `/sum` assigns a key that is
declared to be summed, `/increment` calls the operation, `/stream` does so while its body is sent,
`/all` returns everything, `/login` and `/logout` log in and out.
"""

import json
import os
from urllib.parse import parse_qs

import sojourn


def application(environ, start_response):
    session = environ["sojourn.session"]
    key = parse_qs(environ["QUERY_STRING"]).get("key", [""])[0]
    match environ["PATH_INFO"]:
        case "/sum":
            session["counter"] = session.get("counter", 0) + 1
        case "/increment":
            session.increment("counter")
        case "/stream":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return stream(session, key)
        case "/login":
            session.login(key)
        case "/logout":
            session.logout()
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"ok"]
        case "/all":
            body = json.dumps({"pid": os.getpid(), **session}).encode()
            start_response("200 OK", [("Content-Type", "application/json")])
            return [body]
    session[key] = os.getpid()
    session.setdefault("nested", {})[key] = 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


def stream(session, key):
    session[key] = os.getpid()
    yield b"o"
    session.increment("counter")
    session.setdefault("nested", {})[key] = 1
    yield b"k"


options = json.loads(os.environ.get("OPTIONS", "{}"))
# With a timeout that suffices for parallel requests on a busy machine.
options = {"store_timeout": "30 seconds", **options}
sessions = sojourn.Sessions(store=os.environ["STORE"], merge={"counter": "sum"}, **options)
app = sojourn.wsgi.SessionMiddleware(application, sessions)
