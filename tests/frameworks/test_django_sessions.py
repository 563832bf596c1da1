"""The session engine of Django: the protocol of ``SessionBase``, sync and async."""

import asyncio
from collections import Counter, OrderedDict, defaultdict
from datetime import timedelta
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.core.exceptions import SynchronousOnlyOperation
from django.core.management import call_command
from django.db import models
from django.http import HttpResponse, QueryDict
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe

from sojourn.errors import NotSerializable
from sojourn.frameworks.django import SessionMiddleware, SessionStore
from sojourn.session import Session
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock
from tests.frameworks.django_project import (
    DJANGOS,
    OURS,
    ada,
    both_middlewares,
    middleware,
    project,
)

__all__ = ["ada", "middleware", "project"]

pytestmark = [
    pytest.mark.usefixtures("project"),
    pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning"),
]


class Point(NamedTuple):
    """A named tuple, which JSON encodes as an array."""

    x: int
    y: int


def stored(**data):
    """Return a stored session with some data."""
    session = SessionStore()
    session.update(data)
    session.save()
    return session


def test_session_is_an_instance_of_both_classes():
    """Applications may check for either class."""
    assert isinstance(SessionStore(), SessionBase)
    assert isinstance(SessionStore(), Session)


def test_the_key_is_a_sealed_ticket(project):
    """A18, B-48: the store does not contain the key; the public ID is not a valid key."""
    session = stored(a=1)
    assert SessionStore(session.session_key)["a"] == 1
    assert session.session_key not in repr(project.get(session.id))
    other = SessionStore(session.id)
    assert "a" not in other
    assert other.session_key is None


@pytest.mark.parametrize("key", ["1", "x" * 40, "someunknownkey", ""])
def test_an_unknown_key_is_never_adopted(key):
    """A8: a session with an invented key gets a new key."""
    session = SessionStore(key)
    assert session.load() == {}
    assert session.session_key is None
    assert not session.exists(key)
    session.save()
    assert session.session_key != key
    assert session.exists(session.session_key)


def test_unused_session_is_not_stored(project):
    """A1: a new session makes no store call."""
    session = SessionStore()
    assert not session.accessed
    assert not session.modified
    assert session.is_empty()
    assert session.get("a") is None
    assert session.accessed
    assert project.store.calls == []


def test_parallel_stores_lose_no_change():
    """A6: two stores that were loaded from one key, and nested changes without ``modified``."""
    key = stored(cart={"apple": 1}).session_key
    one, two = SessionStore(key), SessionStore(key)
    one["cart"]["pear"] = 2
    two["cart"]["plum"] = 3
    two["name"] = "Ada"
    assert one.modified
    assert two.modified
    one.save()
    two.save()
    assert SessionStore(key).load() == {"cart": {"apple": 1, "pear": 2, "plum": 3}, "name": "Ada"}


def test_parallel_setdefault_of_one_dict_loses_no_change():
    """A6: ``setdefault`` does not replace a value that another request created meanwhile."""
    key = stored(n=1).session_key
    one, two = SessionStore(key), SessionStore(key)
    for store, item in ((one, "apple"), (two, "pear")):
        store.setdefault("cart", OrderedDict())[item] = 1
    one.save()
    two.save()
    assert SessionStore(key)["cart"] == {"apple": 1, "pear": 1}


def test_modified_may_be_assigned():
    """Applications assign True after nested changes; False prevents the save."""
    session = stored(a=[1])
    session.modified = False
    session["a"].append(2)
    assert not session.modified
    session["b"] = 1
    assert session.modified


def test_safe_strings_and_choices_are_plain_values():
    """Django's str and int subclasses are loaded as their base type, like with JSON."""

    class Size(models.IntegerChoices):
        LARGE = 2

    session = stored(text=mark_safe("<b>"), size=Size.LARGE)
    assert SessionStore(session.session_key).load() == {"text": "<b>", "size": 2}


def test_a_deleted_session_is_not_restored():
    """A7: a later save raises UpdateError, also without changes."""
    session = stored(a=1)
    SessionStore(session.session_key).delete()
    session["a"] = 2
    with pytest.raises(UpdateError):
        session.save()
    assert session.load() == {}
    other = stored(a=1)
    other.delete()
    with pytest.raises(UpdateError):
        other.save()


def test_must_create_refuses_an_existing_key():
    """The contract of ``save(must_create=True)``."""
    session = stored(a=1)
    with pytest.raises(CreateError):
        session.save(must_create=True)


def test_cycle_key_invalidates_the_previous_key_at_once():
    """Session fixation: without a grace period."""
    session = stored(a=1)
    before = session.session_key
    session.cycle_key()
    assert session.session_key != before
    assert not session.exists(before)
    assert session.exists(session.session_key)
    assert SessionStore(before).load() == {}
    assert SessionStore(session.session_key).load() == {"a": 1}


def test_cycle_key_twice_gives_two_keys():
    """Also if the second call follows at once."""
    session = stored(a=1)
    keys = {session.session_key}
    for _ in range(2):
        session.cycle_key()
        keys.add(session.session_key)
    assert len(keys) == 3


def test_flush_destroys_the_session(project):
    """A7: the record is deleted; a later save has another key."""
    session = stored(a=1)
    before, session_id = session.session_key, session.id
    session.flush()
    assert session.session_key is None
    assert session.modified
    assert session.is_empty()
    assert not session.exists(before)
    assert project.get(session_id) is None
    session["b"] = 2
    session.save()
    assert SessionStore(session.session_key).load() == {"b": 2}


def test_another_session_can_be_deleted_by_its_public_id(project):
    """Lists show the public ID; an application that stores it can delete the session."""
    session = stored(a=1)
    assert SessionStore().exists(session.id)
    SessionStore().delete(session.id)
    assert project.get(session.id) is None
    assert not SessionStore().exists(session.id)


def test_delete_by_a_replaced_key_has_no_effect():
    """A9: only the current key is valid."""
    session = stored(a=1)
    before = session.session_key
    session.cycle_key()
    SessionStore().delete(before)
    assert session.exists(session.session_key)


def test_flush_by_a_public_id_does_not_delete_the_session():
    """The ID grants no access: ``flush`` does not delete the session with that ID."""
    session = stored(a=1)
    SessionStore(session.id).flush()
    assert SessionStore(session.session_key).load() == {"a": 1}


def test_session_cookie_age_is_the_idle_timeout():
    """SESSION_COOKIE_AGE of Django's settings."""
    clock = FakeClock()
    with override_settings(SESSION_COOKIE_AGE=600, SOJOURN={"store": "memory://", "clock": clock}):
        session = stored(a=1)
        assert session.get_expiry_age() == 600
        clock.advance("9 minutes")
        assert SessionStore(session.session_key).get("a") == 1  # which extends it
        clock.advance("9 minutes")
        assert SessionStore(session.session_key).get("a") == 1
        clock.advance("11 minutes")
        assert SessionStore(session.session_key).get("a") is None


@pytest.mark.parametrize("kind", ["seconds", "timedelta", "datetime"])
def test_set_expiry_is_enforced_by_the_server(kind):
    """A17: a number is an idle timeout, a date an expiry; the age of the cookie is not relevant."""
    clock = FakeClock(round(timezone.now().timestamp() * 1000))
    with override_settings(SOJOURN={"store": "memory://", "clock": clock}):
        session = SessionStore()
        session["a"] = 1
        minute = timedelta(minutes=1)
        values = {"seconds": 60, "timedelta": minute, "datetime": timezone.now() + minute}
        session.set_expiry(values[kind])
        session.save()
        assert 58 <= session.get_expiry_age() <= 60
        clock.advance("50 seconds")
        assert SessionStore(session.session_key).get("a") == 1
        clock.advance("50 seconds")
        assert SessionStore(session.session_key).get("a") == (1 if kind == "seconds" else None)
        clock.advance("61 seconds")
        assert SessionStore(session.session_key).get("a") is None


def test_set_expiry_may_exceed_the_settings_and_not_options_of_sojourn():
    """The options in ``SOJOURN`` are upper limits."""
    month = 30 * 86_400
    session = SessionStore()
    session.set_expiry(month)
    session.save()
    assert (session.expires_at - session.seen_at).days == 30
    with override_settings(SOJOURN={"store": "memory://", "timeout": "1 hour"}):
        session = SessionStore()
        session.set_expiry(month)
        session.save()
        assert (session.expires_at - session.seen_at).total_seconds() == 3600


def test_set_expiry_none_restores_the_settings():
    """A17: also the absolute expiry after a date was set."""
    session = SessionStore()
    session.set_expiry(timedelta(minutes=1))
    session.save()
    session.set_expiry(None)
    session.save()
    assert (session.expires_at - session.seen_at) > timedelta(days=13)


def test_expiry_in_the_past_expires_the_session():
    """The same as with Django's own sessions."""
    session = SessionStore()
    session["a"] = 1
    session.set_expiry(-timedelta(seconds=10))
    session.save()
    assert "a" not in SessionStore(session.session_key)


def test_clearsessions_purges():
    """The management command of Django removes expired records."""
    clock, store = FakeClock(), MemoryStore()
    with override_settings(SOJOURN={"store": store, "clock": clock}):
        session_id = bytes.fromhex(stored(a=1).id)
        assert store.peek(session_id) is not None
        clock.advance("15 days")
        call_command("clearsessions")
        assert store.peek(session_id) is None


def test_every_asynchronous_method():
    """Each method with the prefix ``a`` has the effect of its synchronous one."""

    async def use():
        session = SessionStore()
        await session.aset("a", 1)
        await session.aupdate({"b": [2]})
        assert await session.asetdefault("c", 3) == 3
        assert await session.apop("c") == 3
        assert await session.apop("c", None) is None
        assert await session.ahas_key("a")
        assert list(await session.akeys()) == ["a", "b"]
        assert dict(await session.aitems()) == {"a": 1, "b": [2]}
        assert list(await session.avalues()) == [1, [2]]
        await session.aset_test_cookie()
        assert await session.atest_cookie_worked()
        await session.adelete_test_cookie()
        await session.aset_expiry(60)
        assert await session.aget_expiry_age() == 60
        assert not await session.aget_expire_at_browser_close()
        await session.aset_expiry(None)
        await session.asave()
        key = session.session_key
        assert await session.aexists(key)
        other = SessionStore(key)
        assert await other.aget("a") == 1
        await other.acycle_key()
        assert not await session.aexists(key)
        assert await other.aexists(other.session_key)
        assert await other.aload() == {"a": 1, "b": [2]}
        await other.aflush()
        assert other.session_key is None
        new = SessionStore()
        await new.acreate()
        assert await new.aexists(new.session_key)
        await new.adelete()
        with pytest.raises(UpdateError):
            await new.asave()
        await SessionStore.aclear_expired()

    asyncio.run(use())


def test_a_synchronous_call_under_an_event_loop_raises_with_advice():
    """Like Django's own backends: it would block every other request."""

    async def save():
        with pytest.raises(SynchronousOnlyOperation, match=r"await session\.asave"):
            SessionStore().save()

    asyncio.run(save())


@both_middlewares
def test_number_of_store_calls_of_a_request(project, middleware):
    """A1 to A4: no cookie without a write, one load for a reader, one more call for a writer."""
    client = Client()
    assert client.get("/").cookies == {}
    assert project.store.calls == []
    assert client.get("/count/").content == b"1"
    cookie = client.cookies["sessionid"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert cookie["max-age"] == 14 * 86_400
    project.store.calls.clear()
    assert client.get("/count/").content == b"2"
    assert [call.partition(" ")[0] for call in project.store.calls] == ["load", "save"]
    response = client.get("/count/")
    assert "Cookie" in response["Vary"]


@both_middlewares
def test_asynchronous_views(project, middleware):
    """The number of store calls through Django's ASGI handler."""

    async def visit():
        client = AsyncClient()
        return [(await client.get("/acount/")).content for _ in range(3)]

    assert asyncio.run(visit()) == [b"1", b"2", b"3"]


@both_middlewares
def test_django_test_client_has_a_prepared_session(project, middleware):
    """By ``client.session`` of Django's test client."""
    client = Client()
    session = client.session
    session["cart"] = {"visits": 41}
    session.save()
    assert client.get("/count/").content == b"42"
    assert client.session["cart"] == {"visits": 42}


@both_middlewares
def test_cookie_of_a_destroyed_session_is_deleted(project, middleware):
    """A7: ``session.destroy()`` under both middlewares."""
    client = Client()
    client.get("/count/")
    session_id = client.session.id
    response = client.get("/destroy/")
    assert response.cookies["sessionid"].value == ""
    assert project.get(session_id) is None
    assert client.get("/count/").content == b"1"


@both_middlewares
def test_set_expiry_sets_the_age_of_the_cookie(project, middleware):
    """Seconds are its Max-Age; with 0 it is a session cookie of the browser."""
    client = Client()
    assert client.get("/remember/?seconds=60").cookies["sessionid"]["max-age"] == 60
    assert client.get("/remember/?seconds=0").cookies["sessionid"]["max-age"] == ""
    assert client.get("/remember/?seconds=none").cookies["sessionid"]["max-age"] in (
        14 * 86_400,
        14 * 86_400 - 1,
    )


@both_middlewares
def test_change_extends_the_cookie_after_set_expiry(project, middleware):
    """``set_expiry(60)`` is an idle timeout, also of the cookie."""
    client = Client()
    client.get("/remember/?seconds=60")
    assert client.get("/count/").cookies["sessionid"]["max-age"] == 60
    assert not client.get("/who/").cookies
    client.get("/destroy/")
    assert not client.session.items()


def test_a_late_response_does_not_send_a_replaced_ticket():
    """A7, A9: the browser already has the newer one."""

    def call(view, cookie):
        return SessionMiddleware(view)(RequestFactory().get("/", headers={"cookie": cookie}))

    def rotate(request):
        request.session.rotate()
        return HttpResponse()

    def limit(request):
        newer = call(rotate, request.headers["cookie"]).cookies["sessionid"].value
        assert newer != key
        request.session.set_expiry(60)
        return HttpResponse()

    key = stored(n=1).session_key
    late = call(limit, f"sessionid={key}").cookies["sessionid"].value
    assert SessionStore().exists(late)  # the current ticket


@both_middlewares
def test_failing_view_drops_the_changes(project, middleware):
    """A10."""
    client = Client(raise_request_exception=False)
    client.get("/count/")
    assert client.get("/fail/").status_code == 500
    assert client.session.get("n") is None


@pytest.mark.parametrize("middleware", [DJANGOS], indirect=True)
def test_a_session_that_ends_during_the_request_is_interrupted(project):
    """A7: Django's own middleware responds with 400 (SessionInterrupted) and sends no cookie."""
    client = Client()
    client.get("/count/")
    response = client.get("/interrupted/")
    assert response.status_code == 400
    assert not response.cookies


@pytest.mark.parametrize("middleware", [OURS], indirect=True)
def test_session_key_of_a_request_is_no_valid_cookie(project):
    """A18: an application may store ``session_key``; it is valid in server code only."""
    client = Client()
    client.get("/count/")
    shown = client.get("/key/").content.decode()
    assert len(shown) == 40
    assert SessionStore(shown).id == client.session.id
    thief = Client()
    thief.cookies["sessionid"] = shown
    assert thief.get("/count/").content == b"1"


@pytest.mark.parametrize("middleware", [OURS], indirect=True)
def test_key_sent_by_a_visitor_opens_no_other_session(project, ada):
    """A8, A18: ``allauth.headless`` and ``channels`` pass client input to ``SessionStore``."""
    owner, thief = Client(), Client()
    owner.force_login(ada)
    key = owner.get("/key/").content.decode()
    assert owner.get("/open/", {"key": key}).content == str(ada.pk).encode()
    assert thief.get("/open/", {"key": key}).content == b"None"
    thief.force_login(get_user_model().objects.get_or_create(username="eve")[0])
    assert thief.get("/open/", {"key": key}).content == b"None"

    async def connect():  # like ASGI applications outside Django
        in_thread = await sync_to_async(lambda: SessionStore(key).get("_auth_user_id"))()
        return in_thread, await SessionStore(key).aget("_auth_user_id")

    assert asyncio.run(connect()) == (None, None)
    assert SessionStore(key)["_auth_user_id"] == str(ada.pk)  # a command, a shell, a worker


@pytest.mark.parametrize("middleware", [OURS], indirect=True)
def test_key_opens_other_sessions_of_the_same_user(project, ada):
    """``allauth.usersessions`` reads them; the session of the request is not replaced."""
    one, two = Client(), Client()
    one.force_login(ada)
    two.force_login(ada)
    key = two.get("/key/").content.decode()
    assert one.get("/open/", {"key": key}).content == str(ada.pk).encode()
    assert one.get("/open/", {"key": key, "password": "another"}).status_code == 200
    assert len(project.list_user(ada.pk)) == 1
    assert one.get("/who/").content == b"ada"
    assert two.get("/who/").content == b""


@pytest.mark.parametrize("subclass", [None, f"{__name__}.OwnMiddleware"])
@pytest.mark.parametrize("middleware", [DJANGOS], indirect=True)
def test_session_key_is_invalid_under_djangos_middleware(project, subclass):
    """A8: Django's middleware accepts every valid key as a cookie; so does a subclass."""
    store = SessionStore()
    store["a"] = 1
    store.save()
    key = project.session_keys.make(bytes.fromhex(store.id))
    with override_settings(MIDDLEWARE=[subclass or DJANGOS]):
        assert SessionStore(key).get("a") is None
        assert not SessionStore().exists(key)


class OwnMiddleware(DjangoSessionMiddleware):
    """A project's own subclass of Django's middleware."""


@pytest.mark.parametrize("middleware", [OURS], indirect=True)
@pytest.mark.parametrize("key", ["!" + "a" * 39, "a" * 40, "é" * 40, "=" * 40])
def test_text_of_another_format_gives_an_empty_session(project, key):
    """A8: any text that a visitor sends, without an error."""
    assert not SessionStore().exists(key)
    assert SessionStore(key).get("a") is None
    SessionStore().delete(key)


@pytest.mark.parametrize("middleware", [OURS], indirect=True)
def test_view_saves_its_session_and_opens_it_again(project):
    """By ``request.session.__class__(key)``, as in ``allauth.socialaccount``."""
    client = Client()
    assert client.get("/reopen/").content == b"1 2"
    assert dict(client.session) == {"before": 1, "after": 2}


def test_types_that_json_accepts_are_accepted():
    """Subclasses of dict, list, tuple and str become their base types, at any depth."""
    store = SessionStore()
    store["ordered"] = OrderedDict(a=defaultdict(list, b=[mark_safe("x")]))
    store["query"] = QueryDict("a=1&a=2")
    store["point"] = Point(1, 2)
    store.setdefault("counts", Counter("aab"))
    store.update({mark_safe("key"): Counter("a")})
    store.save()
    assert SessionStore(store.session_key).load() == {
        "ordered": {"a": {"b": ["x"]}},
        "query": {"a": "2"},
        "point": [1, 2],
        "counts": {"a": 2, "b": 1},
        "key": {"a": 1},
    }
    with pytest.raises(NotSerializable, match="SimpleLazyObject"):
        store["lazy"] = SimpleLazyObject(lambda: "text")


@pytest.mark.parametrize("middleware", [OURS], indirect=True)
def test_a_failing_store_is_503(project):
    """A23: with Retry-After, on load and commit, in the form that the client prefers."""
    client = Client()
    client.get("/count/")
    for verb in ("load", "save"):
        project.store.fail(verb, times=1)
        response = client.get("/count/", headers={"accept": "application/json"})
        assert response.status_code == 503
        assert response["Retry-After"]
        assert response["Content-Type"] == "application/json"
    assert client.get("/count/").content == b"2"


@pytest.mark.parametrize("middleware", [OURS], indirect=True)
def test_handler503_of_the_urlconf_responds_to_a_failing_store(project):
    """A23: next to Django's ``handler404`` and ``handler500``."""
    from django.http import HttpResponse

    from tests.frameworks.apps import django_urls

    def handler503(request, exception):
        return HttpResponse(f"closed {type(exception).__name__}", status=503)

    def handler500(request):
        return HttpResponse("my page", status=500)

    client = Client()
    client.get("/count/")
    for names, expected in (
        ({"handler503": handler503}, b"closed StoreUnavailable"),
        ({"handler500": handler500}, b"my page"),
    ):
        urls = SimpleUrls(urlpatterns=django_urls.urlpatterns, **names)
        project.store.fail("load", times=1)
        with override_settings(ROOT_URLCONF=urls):
            response = client.get("/count/")
        assert (response.status_code, response.content) == (503, expected)


class SimpleUrls(SimpleNamespace):
    """A URLconf that Django can cache."""

    __hash__ = object.__hash__


@pytest.mark.parametrize("middleware", [OURS], indirect=True)
def test_session_errors_of_views_have_their_response(project):
    """A23: a missing login is 401; a session over the limit is Django's page for 500."""
    client = Client(raise_request_exception=False)
    assert client.get("/require/").status_code == 401
    client.get("/count/")
    assert client.get("/large/").status_code == 500
    assert client.get("/count/").content == b"2"


@pytest.mark.parametrize("middleware", [OURS], indirect=True)
def test_a_stream_commits_at_its_end(project):
    """A11."""
    client = Client()
    client.get("/count/")
    assert b"".join(client.get("/stream/").streaming_content) == b"first last"
    assert client.session["n"] == 1
