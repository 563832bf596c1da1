"""Applications of Bottle for the laws of requests, and for real servers."""

import socketserver
from wsgiref.simple_server import WSGIServer

import bottle

import sojourn
from sojourn._core.concurrency import run
from sojourn.testing import HandlerResponse
from tests.frameworks.apps.wsgi_app import parts_of

__all__ = ["build", "serve", "uninstall"]


def endpoint(handler):
    """Return a handler of Bottle that calls a handler."""

    def respond():
        session = getattr(bottle.request, "session", None)
        response = run(handler(session)) or HandlerResponse()
        body = response.body if isinstance(response.body, bytes) else parts_of(response.body)
        answer = bottle.HTTPResponse(body, response.status)
        for name, value in response.headers.items():
            answer.add_header(name, value)
        return answer

    return respond


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    app = bottle.Bottle()
    for path, handler in handlers.items():
        app.route(path, ["GET", "HEAD"], endpoint(handler))
    return app, sojourn.install(app, **options)


def uninstall(app, sessions):
    """Uninstall sessions from an application that is being served."""
    sojourn.uninstall(app)


class Server(socketserver.ThreadingMixIn, WSGIServer):
    """The server of Bottle's default adapter, with threads and a backlog of 200 connections."""

    daemon_threads = True
    request_queue_size = 256


def serve(create, port):
    """Serve an application with Bottle's default server adapter."""
    create().run(host="127.0.0.1", port=port, quiet=True, server_class=Server)
