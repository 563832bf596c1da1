"""Starlette's and FastAPI's own middleware cannot make a response with a ticket cacheable."""

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

import sojourn


async def cache_every_page(request, call_next):
    response = await call_next(request)
    response.headers["Cache-Control"] = "public, max-age=60"
    return response


async def replace_response(request, call_next):
    """Return another response, without the headers of the page's."""
    await call_next(request)
    return PlainTextResponse("other", headers={"Cache-Control": "public, max-age=60"})


async def page(request):
    request.session["n"] = 1
    return PlainTextResponse("page")


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
@pytest.mark.parametrize("dispatch", [cache_every_page, replace_response])
def test_a_page_with_a_new_session_is_not_public(framework, dispatch, caplog):
    """A13, B-6: a shared cache would give the ticket to other visitors."""
    app = framework()
    app.add_route("/", page)
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    sojourn.install(app, store="memory://")
    client = TestClient(app, base_url="http://localhost")
    response = client.get("/")
    assert "sid" in response.cookies
    assert response.headers["cache-control"] == "private, no-store"
    assert response.headers["vary"] == "Cookie"
    assert "public, max-age=60" in caplog.text
    again = client.get("/")  # without a ticket, the application's word counts
    assert again.headers["cache-control"] == "public, max-age=60"
    assert again.headers["vary"] == "Cookie"
