"""Applications of Tornado for the laws of requests, and for its own server."""

import asyncio
from contextlib import asynccontextmanager

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

import sojourn
from sojourn.errors import ConfigurationError
from sojourn.testing import HandlerResponse


class Respond(RequestHandler):
    """Calls a handler of the suite."""

    def initialize(self, handler):
        self.handler = handler

    def compute_etag(self):
        return None

    async def get(self):
        try:
            session = self.session
        except (AttributeError, ConfigurationError):
            session = None
        response = await self.handler(session) or HandlerResponse()
        self.set_status(response.status)
        for name, value in response.headers.items():
            self.set_header(name, value)
        if isinstance(response.body, bytes):
            if response.body:
                self.write(response.body)
            return
        async for part in response.body:
            self.write(part)
            await self.flush()

    head = get


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    app = Application([(path, Respond, {"handler": h}) for path, h in handlers.items()])
    return app, sojourn.install(app, **options)


def uninstall(app, sessions):
    """Uninstall sessions from an application that is being served."""
    sojourn.uninstall(app)


@asynccontextmanager
async def running(app, tls=None):
    """Serve an application on a free port of 127.0.0.1, which is returned."""
    # The tests send Cookie headers of 128 KiB.
    server = HTTPServer(app, ssl_options=tls, max_header_size=200_000)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    try:
        yield sockets[0].getsockname()[1]
    finally:
        server.stop()
        await server.close_all_connections()


def serve(create, port):
    """Serve an application until the process ends."""

    async def main():
        HTTPServer(create()).listen(port, "127.0.0.1")
        await asyncio.Event().wait()

    asyncio.run(main())


def build_sockets(handlers, react, **options):
    """Return an application with a socket at ``/ws`` that answers each message."""

    class ServeSocket(WebSocketHandler):
        def check_origin(self, origin):
            return True  # that of sojourn is done, which knows `allowed_origins` and tickets

        async def on_message(self, message):
            await self.write_message(await react(self.session, message))

    rules = [(path, Respond, {"handler": h}) for path, h in handlers.items()]
    app = Application([*rules, ("/ws", ServeSocket)])
    return app, sojourn.install(app, **options)
