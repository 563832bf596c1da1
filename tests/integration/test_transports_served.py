"""Tickets in headers and cookies of other libraries, through Django, Flask and aiohttp."""

import httpx
import pytest

from tests.frameworks.matrix import COMMANDS, OWN, WSGI
from tests.support.legacy_cookies import LEGACY_SECRET, starlette_cookie
from tests.support.processes import serving

SERVERS = {"django": "uvicorn", "flask": WSGI[1], "aiohttp": OWN}


@pytest.fixture(scope="module", params=SERVERS)
def served(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    environ = {
        "FRAMEWORK": request.param,
        "LEGACY_SECRET": LEGACY_SECRET,
        "STORE": f"sqlite:///{folder}/sessions.db",
        "TRANSPORT": "cookie,header",
    }
    command = COMMANDS[SERVERS[request.param]].split()
    with serving(*command, folder=folder, environ=environ) as url:
        yield url


def test_ticket_in_a_header_is_replaced_at_login_and_removed_at_logout(served):
    """A1, A7, A13, B-25: no cookie is set."""
    with httpx.Client(base_url=served) as client:

        def get(path, ticket):
            response = client.get(path, headers={"Authorization": f"Session {ticket}".strip()})
            assert "set-cookie" not in response.headers
            return response, response.headers.get("session-ticket", ticket)

        page, first = get("/write", "")
        assert page.text == "1"
        assert page.headers["vary"].lower() == "cookie, authorization"
        assert page.headers["cache-control"] == "private, no-store"
        page, same = get("/write", first)
        assert (page.text, same) == ("2", first)
        _, second = get("/login", first)
        assert second != first
        assert get("/who", second)[0].text == "ada None"
        assert get("/logout", second)[1] == ""
        assert get("/who", second)[0].text.startswith("None")


def test_a_client_without_the_header_gets_a_cookie(served):
    """A1."""
    with httpx.Client(base_url=served) as client:
        page = client.get("/write")
        assert "session-ticket" not in page.headers
        assert client.get("/write").text == "2"


def test_cookie_of_another_library_is_converted_once(served):
    """A7: a copy of it is invalid after the logout."""
    cookie = starlette_cookie({"user": "ada", "n": 7})
    with httpx.Client(base_url=served) as client:
        page = client.get("/who", headers={"Cookie": f"session={cookie}"})
        assert page.text == "ada None"
        own, former = page.headers.get_list("set-cookie")
        assert own.startswith("sid=")
        assert former.startswith("session=;")
        assert client.get("/write").text == "8"
        client.get("/logout")
        client.cookies.clear()
        page = client.get("/who", headers={"Cookie": f"session={cookie}"})
        assert page.text.startswith("None")
