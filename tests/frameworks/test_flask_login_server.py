"""Flask-Login's "remember me" under gunicorn, with a client that keeps cookies."""

import httpx
import pytest

import sojourn
from tests.support.processes import serving

SERVER = "gunicorn --bind 127.0.0.1:PORT --workers 2 tests.frameworks.apps.flask_login_site:app"


@pytest.mark.timeout(120)
def test_remembered_login_is_restored_until_a_revocation(tmp_path):
    """A7, ASVS 7.4.3: another process revokes."""
    store = f"sqlite:///{tmp_path}/sessions.db"
    limits = httpx.Limits(max_keepalive_connections=0)
    with (
        serving(*SERVER.split(), folder=tmp_path, environ={"STORE": store}) as url,
        httpx.Client(base_url=url, timeout=30, limits=limits) as client,
    ):
        client.get("/login/ada")
        assert set(client.cookies) == {"sid", "remember_token", "sid-remember"}
        assert client.get("/fresh").text == "ada"
        client.cookies.delete("sid")
        assert client.get("/").text == "ada ada"
        assert client.get("/fresh").status_code == 401
        sessions = sojourn.Sessions(store=store, secret="the secret of these tests: 8Kq2vR7x")
        assert len(sessions.list_user("ada")) == 2
        assert sessions.revoke_user("ada") == 2
        assert client.get("/").status_code == 401
        assert set(client.cookies) == {"sid"}  # of the revoked session
        client.get("/login/ada")
        client.cookies.delete("sid")
        assert client.get("/").text == "ada ada"
        client.get("/logout")
        assert not client.cookies
        assert client.get("/").status_code == 401
        sessions.close()
