"""No ticket, verifier or secret is in a file, log line, page or event of a real server.

The server logs at its most verbose level; the application logs and shows all it can access.
"""

import base64
import re

import httpx
import pytest
import websockets

from sojourn._crypto.tickets import KeyRing, Ticket, derive
from tests.support.servers import TLS, Server

SECRET = "a secret to be searched for everywhere 8Jq2"
VISITORS = 12

# The library under uvicorn's WebSockets writes the handshake to its debug log, with the Cookie
# header. That is outside of any application; docs/security.md advises against serving that way.
WIRE = re.compile(r"^DEBUG: +[<>=%] .*$", re.MULTILINE)

pytestmark = pytest.mark.anyio


async def busy(server, given, pages):
    """Send every kind of request; record the cookies that were set and the pages."""
    # A connection for each request: the server closes those on which a handler raised.
    once = {"limits": httpx.Limits(max_keepalive_connections=0), "timeout": 30, "verify": TLS}
    async with httpx.AsyncClient(base_url=server.url, **once) as client:

        async def fetch(path, cookie=None):
            headers = {"accept": "text/html"}  # debug error pages of Starlette
            if cookie is not None:
                headers["cookie"] = f"sid={cookie}"
            answer = await client.get(path, headers=headers)
            client.cookies.clear()
            pages.append(answer.content)
            header = answer.headers.get("set-cookie", "")
            sent = [header.partition(";")[0].partition("=")[2]]
            # No other header than Set-Cookie may contain it.
            others = [(k, v) for k, v in answer.headers.items() if k != "set-cookie"]
            pages.append(repr(others).encode())
            given.extend(filter(None, sent))
            return answer, next(filter(None, sent), None)

        for number in range(VISITORS):
            answer, cookie = await fetch("/write")
            for path in ("/write", "/show", "/fail", "/wrong", "/large", "/missing", "/show"):
                await fetch(path, cookie)
            await fetch("/show", cookie[:-8] + "AAAAAAAA")
            await fetch("/show", f"{cookie}; sid=planted")
            async with websockets.connect(
                f"{server.socket_url}/echo", additional_headers={"Cookie": f"sid={cookie}"}
            ) as socket:
                await socket.send("hello")
                pages.append((await socket.recv()).encode())
            if number % 3 == 1:
                await fetch("/logout", cookie)
            elif number % 3 == 2:
                await fetch(f"/revoke/{answer.text}")
            await fetch("/show", cookie)
            await fetch("/write", cookie)
        await fetch("/dump")


def spellings(secret):
    """Return the encodings of bytes to search for."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield repr(secret)[2:-1].encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(secret)[:20]


def needles(cookies):
    """Return every secret of a run: tickets, their sealed contents, the secret, its key."""
    keyring = KeyRing([SECRET.encode()], realm="default")
    for cookie in cookies:
        ticket = keyring.unseal(cookie, name=b"sid")
        assert ticket is not None
        yield from (cookie.encode(), cookie[10:40].encode(), cookie[36:].encode())
        yield base64.urlsafe_b64decode(cookie + "==")
        yield from spellings(ticket.verifier)
    yield SECRET.encode()
    yield from spellings(derive(SECRET.encode(), b"ticket", "default", 64)[:32])


@pytest.mark.parametrize("store", ["memory://", "sqlite:///sessions.db"])
async def test_no_output_of_a_server_contains_a_ticket_verifier_or_secret(tmp_path, store):
    """A18, B-46, B-48, B-49, ASVS 16.2.5: in files, logs, output, pages and events."""
    given, pages = [], []
    command = ["uvicorn", "tests.security.busy_app:app", "--port", "{port}"]
    command += ["--log-level", "debug"]
    options = {"store": store, "secret": SECRET, "touch_interval": 0.001}
    with Server(command, tmp_path, options=options) as server:
        await busy(server, given, pages)
        files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    files |= {f"{path.name} later": path.read_bytes() for path in tmp_path.iterdir()}
    # Only the log of uvicorn is searched, not its arguments and environment.
    log = files["server-000.log later"].decode()
    assert log.count("event ") > 5 * VISITORS
    assert log.count("as planned") >= VISITORS
    assert "KeyRing(" in log
    if store.startswith("sqlite"):
        assert any(name.endswith("-wal") and len(data) > 1000 for name, data in files.items())
    assert sum(map(len, files.values())) > 50_000
    haystack = {name: data for name, data in files.items() if not name.startswith("server-")}
    haystack["log"] = WIRE.sub("", log).encode()
    haystack["pages"] = b"\n".join(pages)
    assert len(set(given)) > VISITORS
    for needle in set(needles(set(given))):
        for name, data in haystack.items():
            assert needle not in data, f"{name} shows {needle!r}"


def test_secrets_are_found_in_every_encoding():
    """Control: a verifier or key is found in any encoding, a ticket also in part."""
    found = set(spellings(b"\x00verifier of 16"))
    assert b"007665726966696572206f66203136" in found
    assert rb"\x00verifier of 16" in found
    keyring = KeyRing([SECRET.encode()], realm="default")
    ticket = Ticket(bytes(16), b"verifier of 16 b")
    cookie = keyring.seal(ticket, name=b"sid")
    found = set(needles([cookie]))
    assert {b"verifier of 16 b", cookie.encode(), cookie[10:40].encode()} <= found
