"""Applications of Sanic for the laws of requests, and for its own server."""

import itertools
import socket
import warnings
from contextlib import asynccontextmanager

from sanic import Sanic
from sanic.response import HTTPResponse

import sojourn
from sojourn.testing import HandlerResponse

with warnings.catch_warnings():
    # Sanic imports it in tests, and it imports a deprecated module of websockets.
    warnings.simplefilter("ignore", DeprecationWarning)
    import sanic_testing  # noqa: F401 - see above

#: Names of applications are unique in a process; each worker must choose the same ones.
_numbers = itertools.count()


def endpoint(handler):
    """Return a handler of Sanic that calls a handler of the suite."""

    async def respond(request):
        session = getattr(request.ctx, "session", None)
        response = await handler(session) or HandlerResponse()
        headers = dict(response.headers)
        if isinstance(response.body, bytes):
            return HTTPResponse(response.body, response.status, headers)
        stream = await request.respond(status=response.status, headers=headers)
        async for part in response.body:
            await stream.send(part)
        return None

    return respond


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    app = Sanic(f"app{next(_numbers)}", configure_logging=False)
    app.config.AUTO_EXTEND = False  # the extensions take half a second to start
    for path, handler in handlers.items():
        name = "route" + path.replace("/", "_").replace("-", "_")
        app.add_route(endpoint(handler), path, methods=["GET", "HEAD"], name=name)
    return app, sojourn.install(app, **options)


def uninstall(app, sessions):
    """Uninstall sessions from an application that is being served."""
    sojourn.uninstall(app)


@asynccontextmanager
async def running(app, tls=None):
    """Serve an application on a free port of 127.0.0.1, which is returned."""
    app.config.REQUEST_MAX_HEADER_SIZE = 200_000  # the tests send Cookie headers of 128 KiB
    app.config.TOUCHUP = False  # it changes classes of Sanic, once in a process
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = await app.create_server(sock=listening, ssl=tls, access_log=False)
        await server.startup()
        await server.before_start()
        await server.after_start()
        try:
            yield listening.getsockname()[1]
        finally:
            await server.before_stop()
            await server.close()
            for connection in list(server.connections):
                connection.close()
            await server.after_stop()


def serve(create, port):
    """Serve an application until the process ends."""
    create().run(host="127.0.0.1", port=port, single_process=True, motd=False)


def build_sockets(handlers, react, **options):
    """Return an application with a socket at ``/ws`` that answers each message."""
    app, sessions = build(handlers, **options)

    @app.websocket("/ws")
    async def serve_socket(request, socket):
        while (message := await socket.recv()) is not None:
            await socket.send(await react(request.ctx.session, message))

    return app, sessions
