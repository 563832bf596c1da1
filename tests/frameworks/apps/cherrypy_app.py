"""Applications of CherryPy for the laws of requests, and for real servers."""

import cherrypy

import sojourn
from sojourn._core.concurrency import run
from sojourn.testing import HandlerResponse
from tests.frameworks.apps.wsgi_app import parts_of, uninstall

__all__ = ["build", "serve", "uninstall"]


class Root:
    """Calls the handler of each path."""

    def __init__(self, handlers):
        self._handlers = handlers

    @cherrypy.expose
    def default(self, *path, **_):
        session = cherrypy.request.wsgi_environ.get("sojourn.session")
        response = run(self._handlers["/" + "/".join(path)](session)) or HandlerResponse()
        cherrypy.response.status = response.status
        cherrypy.response.headers.update(response.headers)
        if isinstance(response.body, bytes):
            return response.body
        cherrypy.response.stream = True
        return parts_of(response.body)

    index = default


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    sessions = sojourn.Sessions(**options)
    config = {
        "wsgi.pipeline": [
            ("sessions", sojourn.wsgi.SessionMiddleware),
            ("redirects", cherrypy.wsgi.InternalRedirector),
        ],
        "wsgi.sessions.sessions": sessions,
        "request.throw_errors": True,  # to the middleware, which answers those of a store
        "log.screen": False,
        "tools.trailing_slash.on": False,
    }
    return cherrypy.Application(Root(handlers), "", {"/": config}), sessions


def serve(create, port):
    """Serve an application with CherryPy's own server."""
    queue = 256  # the default of 5 delays many simultaneous connections by seconds
    cherrypy.config.update(
        {"server.socket_port": port, "server.socket_queue_size": queue, "log.screen": False}
    )
    cherrypy.tree.graft(create(), "/")
    cherrypy.engine.start()
    cherrypy.engine.block()
