"""An application of Sanic with a WebSocket, for ASGI servers."""

from sanic import Sanic

import sojourn
from sojourn.testing.app_suite.served_app import SECRET

app = Sanic("sanic_sockets", configure_logging=False)
app.config.AUTO_EXTEND = False
sojourn.install(app, store="memory://", secret=SECRET)


@app.websocket("/socket")
async def socket(request, ws):
    """Send one message and wait for the end."""
    await ws.send("open")
    await ws.recv()
