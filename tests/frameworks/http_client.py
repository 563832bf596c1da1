"""A client of an application on its framework's own server."""

import contextlib

import httpx


@contextlib.asynccontextmanager
async def client_of(app, *, running):
    """Serve an application, and return an ``httpx.AsyncClient`` of it.

    Args:
        app: the application.
        running: a context manager that serves it, and returns the port.
    """
    async with (
        running(app) as port,
        httpx.AsyncClient(base_url=f"http://localhost:{port}") as client,
    ):
        yield client


async def text_of(client, path):
    """Return the text of a page."""
    return (await client.get(path)).text
