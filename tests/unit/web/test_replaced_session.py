"""Assigning another value to ``scope["session"]`` has a defined effect (law A24)."""

import enum

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import sojourn
from sojourn.errors import SessionError
from sojourn.frameworks.starlette.middleware_stack import load as load_session
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore

pytestmark = pytest.mark.anyio

SECRET = "replaced-7Jm2Qw9vXc4Rk1"


class _EmptyEnum(enum.Enum):
    """The enum of Litestar's ``Empty``."""

    EMPTY = 0


_EmptyEnum.__module__ = "litestar.types.empty"
MISSING = object()


class Site:
    """An application that replaces ``scope["session"]`` on ``/replace``.

    Attributes:
        value: the value it assigns; MISSING deletes the key.
        error: raised after that, unless None.
    """

    def __init__(self, **options):
        self.value = None
        self.error = None
        self.before = {}
        self.store = FaultyStore(MemoryStore())

        async def begin(request):
            request.session.update(a=1, cart={"apple": 1, "pear": 2}, flag=1)
            return PlainTextResponse("begun")

        async def login(request):
            request.session.login("ada")
            return PlainTextResponse("in")

        async def replace(request):
            request.session.update(self.before)
            if self.value is MISSING:
                del request.scope["session"]
            else:
                request.scope["session"] = self.value
            if self.error is not None:
                raise self.error
            return PlainTextResponse("replaced")

        async def show(request):
            return PlainTextResponse(repr((request.session.user, dict(request.session))))

        pages = (begin, login, replace, show)
        self.app = Starlette(routes=[Route(f"/{page.__name__}", page) for page in pages])
        options = {"store": self.store, "secret": SECRET, **options}
        self.sessions = sojourn.install(self.app, **options)
        self.client = self.new_client()

    def new_client(self):
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://localhost")

    async def get(self, path):
        return (await self.client.get(path)).text

    async def replace(self, value):
        self.value = value
        return await self.client.get("/replace")


async def test_a_mapping_is_adopted():
    """A24: as operations on the session; equal items are not written."""
    site = Site()
    await site.get("/begin")
    reply = await site.replace({"cart": {"apple": 5, "plum": 1}, "b": [1], "flag": True})
    assert reply.headers["vary"] == "Cookie"
    expected = {"cart": {"apple": 5, "plum": 1}, "flag": True, "b": [1]}
    assert await site.get("/show") == repr((None, expected))
    assert site.sessions.usage().writes == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1, 1.0),
        (0.0, -0.0),
        ([1], [True]),
        ([1, {"b": 0}], [1, {"b": False}]),
        ({"b": 1}, {"b": 1.0}),
        ({1}, frozenset({1})),
    ],
)
async def test_an_equal_value_of_another_type_is_adopted(before, after):
    """A24: 1, 1.0 and True are three values, also inside another value."""
    site = Site()
    site.before = {"c": before}
    await site.replace({"c": before})
    site.before = {}
    await site.replace({"c": after})
    assert await site.get("/show") == repr((None, {"c": after}))


async def test_an_equal_mapping_changes_nothing():
    site = Site()
    await site.get("/begin")
    await site.replace({"a": 1, "cart": {"apple": 1, "pear": 2}, "flag": 1})
    assert site.sessions.usage().writes == 0


async def test_a_mapping_begins_a_session():
    """A24, A2: its cookie is sent."""
    site = Site()
    reply = await site.replace({"a": 1})
    assert "set-cookie" in reply.headers
    assert await site.get("/show") == repr((None, {"a": 1}))


@pytest.mark.parametrize("value", [None, MISSING, _EmptyEnum.EMPTY, _EmptyEnum])
async def test_none_or_empty_destroys_the_session(value):
    """A24: Litestar's logout does this; the cookie is deleted."""
    site = Site()
    await site.get("/login")
    reply = await site.replace(value)
    assert "max-age=0" in reply.headers["set-cookie"].lower()
    assert await site.get("/show") == repr((None, {}))
    assert site.sessions.usage().removes == 1


@pytest.mark.parametrize("value", [None, MISSING, {}, _EmptyEnum.EMPTY])
async def test_none_in_place_of_a_new_session_makes_no_store_call(value):
    """A1, A24: for a visitor without a session."""
    site = Site()
    reply = await site.replace(value)
    assert "set-cookie" not in reply.headers
    assert site.store.calls == []


@pytest.mark.parametrize("before", ["/begin", "/login"])
async def test_an_empty_mapping_clears_the_session(before):
    """A24: like ``session.clear()``, which logs out."""
    site = Site()
    await site.get(before)
    await site.replace({})
    assert await site.get("/show") == repr((None, {}))


async def test_a_mapping_of_a_mapping_is_adopted():
    """A24: a new key with a mapping, and a mapping in place of another value."""
    site = Site()
    await site.get("/begin")
    await site.replace({"new": {"b": 1}, "a": {"c": 2}})
    assert await site.get("/show") == repr((None, {"a": {"c": 2}, "new": {"b": 1}}))


class EmptyCart(dict):
    """A mapping of the application whose name contains ``Empty``, like Litestar's."""


async def test_a_class_of_the_application_with_the_name_of_litestars_empty_is_a_mapping():
    """A24."""
    site = Site()
    await site.get("/begin")
    await site.replace(EmptyCart(a=2))
    assert await site.get("/show") == repr((None, {"a": 2}))


class _OfLitestar:
    """An object of Litestar that is not ``Empty``."""


_OfLitestar.__module__ = "litestar.datastructures"


@pytest.mark.parametrize("value", [5, "text", object(), [("a", 1)], _OfLitestar()])
async def test_value_of_another_type_is_an_error(value):
    """A24: nothing is written, and the message says what to do."""
    errors = []

    async def keep(request, error):
        errors.append(error)
        assert request.session["a"] == 99
        return PlainTextResponse("wrong", 418)

    site = Site()
    site.app.add_exception_handler(SessionError, keep)
    await site.get("/begin")
    site.before = {"a": 99}
    assert (await site.replace(value)).status_code == 418
    site.before = {}
    assert "'a': 1," in await site.get("/show")
    (error,) = errors
    assert type(value).__qualname__ in str(error)
    assert "session.update" in str(error)


async def test_a_request_without_its_session_saves_no_replacement():
    """A15: with ``on_store_failure="anonymous"``."""
    site = Site(on_store_failure="anonymous")
    await site.get("/begin")
    site.store.fail("load")
    assert (await site.replace({"a": 7})).status_code == 200
    site.store.heal()
    assert "'a': 1," in await site.get("/show")


async def test_failing_request_destroys_its_session_and_drops_its_data(caplog):
    """A24, A10: an invalid replacement is logged."""
    site = Site()
    site.error = LookupError("planned by the test")
    await site.get("/begin")
    for value in ({"a": 2}, 5):
        assert (await site.replace(value)).status_code == 500
        assert "'a': 1," in await site.get("/show")
    assert "object of type int" in caplog.text
    await site.replace(None)
    assert await site.get("/show") == repr((None, {}))
    assert site.sessions.usage().removes == 1


async def test_loading_a_replaced_session_adopts_the_replacement():
    """A24: a dependency after a middleware that replaces the session."""
    site = Site()

    async def load(request):
        request.scope["session"] = {"a": 2}
        (await load_session(request))["b"] = 3
        return PlainTextResponse("loaded")

    site.app.router.routes.append(Route("/load", load))
    await site.get("/load")
    assert await site.get("/show") == repr((None, {"a": 2, "b": 3}))


async def test_a_replacement_during_a_stream_is_adopted_at_its_end():
    """A11, A24."""
    sessions = sojourn.Sessions(store=MemoryStore(), secret=SECRET)

    async def page(scope, receive, send):
        session = scope["session"]
        if scope["path"] == "/begin":
            session["a"] = 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        if scope["path"] == "/stream":
            scope["session"] = {"a": 2}
        body = repr(dict(scope["session"])).encode()
        await send({"type": "http.response.body", "body": body})

    app = sojourn.asgi.SessionMiddleware(page, sessions)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for path in ("/begin", "/stream"):
            await client.get(path)
        assert (await client.get("/")).text == "x{'a': 2}"
