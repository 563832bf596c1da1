"""Sessions in a WSGI application without a framework.

Run it with the server of the standard library, or with several workers:

    python -m examples.bare_wsgi
    gunicorn --workers 4 --worker-class gthread --threads 8 examples.bare_wsgi:app
"""

from collections.abc import Iterable
from wsgiref.simple_server import make_server
from wsgiref.types import StartResponse, WSGIEnvironment

import sojourn


def visits(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Count the visits of a visitor."""
    session = environ["sojourn.session"]
    session["visits"] = session.get("visits", 0) + 1
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"visit {session['visits']}\n".encode()]


sessions = sojourn.Sessions(merge={"visits": "sum"})
app = sojourn.wsgi.SessionMiddleware(visits, sessions)

if __name__ == "__main__":
    with make_server("127.0.0.1", 8000, app) as server:
        print("http://127.0.0.1:8000/")
        server.serve_forever()
