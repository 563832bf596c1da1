"""An HTTP client of an application with the admin application at ``/admin``, without a server."""

import asyncio
import re

import httpx

import sojourn
from sojourn.stores.memory import MemoryStore

SECRET = "3Lw9-admin-xQ7r_Vb2kTz6Yp"
BASE = "http://localhost"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"

ROLES = {"root": True, "reader": "read"}


def allow(request):
    """Allow ``root`` everything, and ``reader`` to read."""
    return ROLES.get(request.user, False)


class ASGITransport(httpx.BaseTransport):
    """Calls an ASGI application, each request in an event loop of its own."""

    def __init__(self, app):
        self._transport = httpx.ASGITransport(app=app)

    def handle_request(self, request):
        return asyncio.run(self._handle(request))

    async def _handle(self, request):
        response = await self._transport.handle_async_request(request)
        body = await response.aread()
        return httpx.Response(response.status_code, headers=response.headers, content=body)


def asgi_host(application, mount):
    """Return an ASGI application that logs in at ``/login/{user}`` and mounts another one."""

    async def host(scope, receive, send):
        path = scope["path"]
        if path == mount or path.startswith(f"{mount}/"):
            await application({**scope, "root_path": mount}, receive, send)
            return
        user = path.removeprefix("/login/")
        if user != path:
            scope["session"].login(user, labels={"tenant": "acme", **scope.get("labels", {})})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"host"})

    return host


def wsgi_host(application, mount):
    """Return a WSGI application that does the same."""

    def host(environ, start_response):
        path = environ["PATH_INFO"]
        if path == mount or path.startswith(f"{mount}/"):
            inner = {**environ, "SCRIPT_NAME": mount, "PATH_INFO": path.removeprefix(mount)}
            return application(inner, start_response)
        user = path.removeprefix("/login/")
        if user != path:
            environ["sojourn.session"].login(user, labels={"tenant": "acme"})
        start_response("200 OK", [])
        return [b"host"]

    return host


class Site:
    """An installation with its admin application, and clients of it.

    Args:
        kind: ``asgi`` or ``wsgi``.
        store: holds the sessions.
        options: of ``sojourn.admin.app``.
    """

    def __init__(self, kind="wsgi", store=None, mount="/admin", audit=None, **options):
        self.sessions = sojourn.Sessions(store=store or MemoryStore(), secret=SECRET, audit=audit)
        self.revoked = []
        self.sessions.on(sojourn.Revoked, self.revoked.append)
        self.application = sojourn.admin.app(self.sessions, **{"allow": allow, **options})
        self.mount = mount
        self.kind = kind
        module, host = (sojourn.asgi, asgi_host) if kind == "asgi" else (sojourn.wsgi, wsgi_host)
        self.app = module.SessionMiddleware(host(self.application, mount), self.sessions)

    def client(self, user=None, browser=FIREFOX):
        """Return a client with its own cookies, logged in if a user is given."""
        transport = (ASGITransport if self.kind == "asgi" else httpx.WSGITransport)(self.app)
        client = httpx.Client(
            transport=transport,
            base_url=BASE,
            headers={"User-Agent": browser, "Origin": BASE},
        )
        if user is not None:
            client.get(f"/login/{user}")
        return client

    def own_id(self, client):
        """Return the public ID of the session of a client."""
        (cookie,) = client.cookies.jar
        with self.sessions.open(cookies={cookie.name: cookie.value}, url=f"{BASE}/") as visit:
            return visit.session.id


def token_of(page):
    """Return the CSRF token of the form in a page."""
    return re.search('name="csrf_token" value="([^"]+)"', page.text)[1]


def fill_in(client, path, **fields):
    """Load a page, fill its form in, submit it and return the response."""
    page = client.get(path)
    assert page.status_code == 200, page.text
    data = {"csrf_token": token_of(page), "reason": "stolen laptop", **fields}
    return client.post(path, data=data)
