"""The recipes of the user interface frameworks, as real servers, with real clients."""

import importlib.util

import pytest
from playwright.sync_api import expect

needs = {
    name: pytest.mark.skipif(
        importlib.util.find_spec(name) is None, reason="make test-ui installs it"
    )
    for name in ("fasthtml", "gradio", "nicegui", "streamlit")
}


@needs["fasthtml"]
def test_fasthtml_session_has_the_methods_of_sojourn(serve, visitor):
    """A4, A7, A9."""
    server = serve("uvicorn", "fasthtml_app:app", "--port", "{port}")
    client = visitor(server)
    assert [f"Guest: visit {n}" in client.get("/").text for n in (1, 2)] == [True, True]
    before = client.cookies["session_"]
    assert "ada: visit 3" in client.get("/login/ada").text
    assert len(client.cookies["session_"]) == len(before) == 66
    assert client.cookies["session_"] != before
    assert "Guest: visit 1" in client.get("/logout").text


@needs["nicegui"]
def test_nicegui_uses_sojourns_middleware(serve, visitor):
    """A4, A7, A9, A24: it replaces NiceGUI's own; ``app.storage.user`` still works."""
    server = serve("nicegui_app", "{port}")
    client, other = visitor(server), visitor(server)
    assert "Guest: visit 1" in client.get("/").text
    assert "Guest: visit 2" in client.get("/").text
    assert "Guest: visit 1" in other.get("/").text
    assert list(client.cookies) == ["sid"]
    assert "ada: visit 3" in client.get("/login/ada").text
    assert "Guest: visit 1" in client.get("/logout").text
    assert "Starlette's SessionMiddleware of this application is not used" in server.log


@needs["gradio"]
def test_gradio_events_use_the_session_of_the_page(serve, visitor):
    """A4."""
    client = visitor(serve("uvicorn", "gradio_app:app", "--port", "{port}"))

    def greet():
        event = client.post("/ui/gradio_api/call/greet", json={"data": ["Hi"]}).json()["event_id"]
        return client.get(f"/ui/gradio_api/call/greet/{event}").text

    assert "Please log in" in greet()
    assert client.get("/login/ada").status_code == 200
    assert "Hi, ada: run 1" in greet()
    assert "Hi, ada: run 2" in greet()


@needs["streamlit"]
def test_streamlit_script_uses_the_session_of_the_routes(serve, chromium):
    """A4, A7, A24: routes log in and out, the script reads and writes."""
    server = serve("uvicorn", "streamlit_app:app", "--port", "{port}")
    context = chromium.new_context()
    page = context.new_page()
    page.goto(server.url)
    expect(page.get_by_text("Guest")).to_be_visible(timeout=20_000)
    page.goto(f"{server.url}/login/ada")
    expect(page.get_by_text("ada: run 1")).to_be_visible(timeout=20_000)
    page.reload()
    expect(page.get_by_text("ada: run 2")).to_be_visible(timeout=20_000)
    page.goto(f"{server.url}/logout")
    expect(page.get_by_text("Guest")).to_be_visible(timeout=20_000)
    context.close()


@needs["fasthtml"]
def test_install_on_fast_app_replaces_its_middleware(tmp_path, monkeypatch):
    """A24: ``fast_app`` has no ``sess_cls``."""
    from fasthtml.common import fast_app
    from starlette.testclient import TestClient

    import sojourn

    monkeypatch.chdir(tmp_path)
    app, route = fast_app()
    sojourn.install(app, store="memory://")

    @route("/")
    def home(session):
        return str(session.increment("n"))

    client = TestClient(app)
    assert [client.get("/").text for _ in range(2)] == ["1", "2"]
