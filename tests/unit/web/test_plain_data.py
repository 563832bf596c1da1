"""A handler may return its session as the response body."""

from datetime import UTC, datetime

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import sojourn
from sojourn.frameworks.fastapi import SessionDep

CONTENT = {"name": "Ada", "cart": {"apple": 2}, "log": [1, "two"]}


def fill(session):
    session.update(CONTENT)
    session.flash("hidden")
    session["cart"]["apple"] = 3


EXPECTED = {**CONTENT, "cart": {"apple": 3}}


def test_a_fastapi_handler_may_return_the_session():
    """A13: the content is read before the headers are sent, so the response is private."""
    app = FastAPI()
    sojourn.install(app, store="memory://")

    @app.get("/request")
    async def by_request(request: Request):
        fill(request.session)
        return request.session

    @app.get("/dependency")
    def by_dependency(session: SessionDep):
        fill(session)
        session["at"] = datetime(2026, 1, 1, tzinfo=UTC)
        return session

    @app.get("/typed")
    async def typed(request: Request) -> dict[str, object]:
        fill(request.session)
        return request.session

    @app.get("/inside")
    async def inside(request: Request):
        fill(request.session)
        return {"session": request.session}

    for path, expected in [
        ("/request", EXPECTED),
        ("/dependency", {**EXPECTED, "at": "2026-01-01T00:00:00+00:00"}),
        ("/typed", EXPECTED),
        ("/inside", {"session": EXPECTED}),
    ]:
        response = TestClient(app).get(path)
        assert response.json() == expected
        assert "private" in response.headers["cache-control"]
        assert "sid=" in response.headers["set-cookie"]


def test_starlette_serializes_a_copy_of_the_session():
    async def page(request):
        fill(request.session)
        return JSONResponse(request.session.copy())

    async def wrong(request):
        fill(request.session)
        return JSONResponse(request.session)

    app = Starlette(routes=[Route("/", page), Route("/wrong", wrong)])
    sojourn.install(app, store="memory://")
    assert TestClient(app).get("/").json() == EXPECTED
    with pytest.raises(TypeError, match="Object of type Session is not JSON serializable"):
        TestClient(app).get("/wrong")
