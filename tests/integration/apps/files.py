"""A Starlette application that sends a file, with and without its session."""

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import sojourn


async def download(request):
    """Send this file, and count the visits."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return FileResponse(__file__)


async def send_file(_):
    """Send this file without accessing the session."""
    return FileResponse(__file__)


app = Starlette(
    routes=[
        Route("/download", download),
        Route("/file", send_file),
        Mount("/static", StaticFiles(directory=Path(__file__).parent)),
    ]
)
sojourn.install(app, store=os.environ["STORE"])
