"""Applications of aiohttp for the laws of requests, and for its own server."""

from contextlib import asynccontextmanager

from aiohttp import web

import sojourn
from sojourn.testing import HandlerResponse


def endpoint(handler):
    """Return a handler of aiohttp that calls a handler of the suite."""

    async def respond(request):
        response = await handler(request.get("session")) or HandlerResponse()
        headers = dict(response.headers)
        if isinstance(response.body, bytes):
            return web.Response(status=response.status, body=response.body, headers=headers)
        stream = web.StreamResponse(status=response.status, headers=headers)
        await stream.prepare(request)
        async for part in response.body:
            await stream.write(part)
        return stream

    return respond


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    app = web.Application()
    app.add_routes([web.get(path, endpoint(handler)) for path, handler in handlers.items()])
    return app, sojourn.install(app, **options)


def uninstall(app, sessions):
    """Uninstall sessions from an application that is being served."""
    sojourn.uninstall(app)


@asynccontextmanager
async def running(app, tls=None):
    """Serve an application on a free port of 127.0.0.1, which is returned."""
    # The tests send Cookie headers of 128 KiB.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, max_field_size=200_000)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def serve(create, port):
    """Serve an application until the process ends."""
    web.run_app(create(), host="127.0.0.1", port=port, print=None)


def build_sockets(handlers, react, **options):
    """Return an application with a socket at ``/ws`` that answers each message."""

    async def serve_socket(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(await react(request["session"], message.data))
        return socket

    app = web.Application()
    app.add_routes([web.get(path, endpoint(handler)) for path, handler in handlers.items()])
    app.add_routes([web.get("/ws", serve_socket)])
    return app, sojourn.install(app, **options)
