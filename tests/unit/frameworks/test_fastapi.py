"""FastAPI's OpenAPI document, and ``Depends(csrf)``."""

import contextlib
from typing import Annotated

import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Form, Request, UploadFile
from fastapi.security import APIKeyHeader
from fastapi.testclient import TestClient

import sojourn
from sojourn.frameworks.fastapi import Csrf, CsrfToken, SessionDep, csrf
from sojourn.frameworks.starlette import SessionMiddleware

BOTH = ["cookie", "header"]
Token = Annotated[CsrfToken, Depends(csrf)]


def document_of(**options):
    app, router = FastAPI(), APIRouter()
    sessions = sojourn.install(app, store="memory://", **options)

    @app.get("/own")
    async def own(session: SessionDep): ...

    @router.get("/routed")
    @sessions.route
    async def routed(request: Request): ...

    @app.get("/other")
    async def other(): ...

    @app.get("/guarded")
    async def guarded(
        session: SessionDep, key: Annotated[str, Depends(APIKeyHeader(name="K"))]
    ): ...

    app.include_router(router, prefix="/more")
    return app, TestClient(app).get("/openapi.json").json()


class TestOpenAPI:
    def test_the_cookie(self):
        _, document = document_of()
        assert document["components"]["securitySchemes"]["SessionCookie"] == {
            "type": "apiKey",
            "in": "cookie",
            "name": "__Host-sid",
            "description": "On http to this machine: sid",
        }
        paths = document["paths"]
        for path in ("/own", "/more/routed"):
            assert paths[path]["get"]["security"] == [{"SessionCookie": []}, {}]
        assert "security" not in paths["/other"]["get"]

    def test_another_scheme_stays_required(self):
        _, document = document_of()
        security = document["paths"]["/guarded"]["get"]["security"]
        assert security == [{"APIKeyHeader": []}, {"SessionCookie": []}]

    @pytest.mark.parametrize(
        ("options", "scheme"),
        [
            ({"transport": "header"}, {"type": "http", "scheme": "Session"}),
            (
                {"transport": "header", "header": "X-Session"},
                {"type": "apiKey", "in": "header", "name": "X-Session"},
            ),
        ],
    )
    def test_the_header(self, options, scheme):
        _, document = document_of(**options)
        schemes = document["components"]["securitySchemes"]
        assert schemes["SessionHeader"] == scheme
        assert "SessionCookie" not in schemes

    @pytest.mark.parametrize("lifespan", [True, False])
    def test_the_cookie_of_the_middleware_class(self, lifespan):
        """With Starlette's constructor, whose default name is another one."""
        app = FastAPI()
        app.add_middleware(SessionMiddleware, store="memory://", https_only=True)

        @app.get("/own")
        async def own(session: SessionDep) -> int:
            return session.increment("n")

        client = TestClient(app, base_url="https://testserver")
        with client if lifespan else contextlib.nullcontext():
            document = client.get("/openapi.json").json()
            assert client.get("/own").text == "1"
            assert list(client.cookies) == ["session"]
        assert document["components"]["securitySchemes"] == {
            "SessionCookie": {"type": "apiKey", "in": "cookie", "name": "session"}
        }
        assert app.openapi()["paths"]["/own"]["get"]["security"] == [{"SessionCookie": []}, {}]

    def test_both(self):
        _, document = document_of(transport=BOTH, cookie="own")
        assert document["components"]["securitySchemes"]["SessionCookie"]["name"] == "own"
        assert document["paths"]["/own"]["get"]["security"] == [
            {"SessionCookie": []},
            {"SessionHeader": []},
            {},
        ]

    def test_it_is_the_same_each_time_and_absent_after_uninstall(self):
        """A20."""
        app, document = document_of()
        assert TestClient(app).get("/openapi.json").json() == document
        sojourn.uninstall(app)
        later = TestClient(app).get("/openapi.json").json()
        assert "SessionCookie" not in later["components"]["securitySchemes"]


def forms(**options):
    app = FastAPI()
    sojourn.install(app, store="memory://", **options)

    @app.get("/page")
    async def page(token: Token):
        return str(token)

    @app.get("/check", dependencies=[Depends(csrf)])
    async def check():
        return None

    @app.post("/form")
    async def form(token: Token, name: Annotated[str, Form()]):
        return name

    @app.post("/raw", dependencies=[Depends(csrf)])
    async def raw(request: Request):
        return [len(await request.body()), dict(await request.form())]

    @app.post("/json")
    async def json(token: Token, name: Annotated[str, Body(embed=True)]):
        return name

    @app.post("/file")
    async def file(token: Token, upload: UploadFile):
        return (await upload.read()).decode()

    @app.post("/own", dependencies=[Depends(Csrf(field="_t", header="X-T"))])
    async def own():
        return "own"

    return TestClient(app)


class TestCsrf:
    def test_a_form(self):
        """ASVS 3.5.1, SESS-20."""
        client = forms()
        token = client.get("/page").json()
        data = {"name": "ada", "csrf_token": token}
        assert client.post("/form", data=data).json() == "ada"
        assert client.post("/raw", data=data).json() == [len(f"name=ada&csrf_token={token}"), data]
        upload = {"upload": b"text"}
        assert client.post("/file", data=data, files=upload).json() == "text"

    def test_a_script(self):
        """ASVS 3.5.1."""
        client = forms()
        headers = {"X-CSRF-Token": client.get("/page").json()}
        assert client.post("/json", json={"name": "ada"}, headers=headers).json() == "ada"

    def test_other_names(self):
        client = forms()
        token = client.get("/page").json()
        assert client.post("/own", headers={"X-T": token}).json() == "own"
        assert client.post("/own", data={"_t": token}).json() == "own"
        assert client.post("/own", headers={"X-CSRF-Token": token}).status_code == 403

    @pytest.mark.parametrize("value", [None, "", "x" * 86])
    def test_without_the_token_it_is_403(self, value):
        """ASVS 3.5.1, SESS-20: before the path function runs."""
        client = forms()
        client.get("/page")
        data = {"name": "ada"} | ({} if value is None else {"csrf_token": value})
        response = client.post("/form", data=data)
        assert response.status_code == 403
        assert "'csrf_token'" in response.json()["detail"]
        assert client.post("/json", json={"csrf_token": "x", "name": "ada"}).status_code == 403

    def test_the_token_of_another_visitor_is_403(self):
        """SESS-20."""
        client = forms()
        token = client.get("/page").json()
        client.cookies.clear()
        client.get("/page")
        assert client.post("/form", data={"name": "ada", "csrf_token": token}).status_code == 403

    def test_a_page_that_uses_no_token_creates_no_session(self):
        """A1."""
        assert "set-cookie" not in forms().get("/check").headers

    def test_a_ticket_in_a_header_needs_no_token(self):
        """ASVS 3.5.1: browsers do not send it by themselves; with a cookie beside it they may."""
        client = forms(transport=BOTH)
        headers = {"Authorization": "Session"}
        assert client.post("/form", data={"name": "ada"}, headers=headers).json() == "ada"
        client.get("/page")
        assert client.post("/form", data={"name": "ada"}, headers=headers).status_code == 403

    def test_a_token_is_not_in_its_repr(self):
        """A18."""
        assert repr(CsrfToken(None)) == "<CsrfToken>"
