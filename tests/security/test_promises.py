"""Security requirements of stored, compared and sent data, through every relevant adapter."""

import base64
import os
import pickle

import msgspec
import pytest
from pydantic import SecretStr

from sojourn import Sessions
from sojourn._core.codec import encode
from sojourn._core.concurrency import run
from sojourn.errors import InsecureTransport, NotSerializable
from sojourn.events import Created, Expired, Rejected, Revoked, StoreFailed, Written
from sojourn.record import pack_body
from sojourn.stores.memory import MemoryStore
from sojourn.stores.sqlite import SQLiteStore
from sojourn.testing import FaultyStore, HandlerResponse, Visitor
from sojourn.testing.app_suite.drivers import Request
from sojourn.web import cache_headers as headers
from tests.contract.test_applications import TestBareASGI
from tests.support.working_copies import copy_of

pytestmark = pytest.mark.anyio

EVIL = "https://evil.example/phish"


async def write(session):
    return HandlerResponse(body=str(session.increment("n")).encode())


async def read(session):
    return HandlerResponse(body=str(session.get("n")).encode())


async def destroy(session):
    session.destroy()


class FromAnotherBrowser(Request):
    """A request of the same visitor with another User-Agent."""

    def all_headers(self):
        headers = [(k, v) for k, v in Request.all_headers(self) if k != "user-agent"]
        return [*headers, ("user-agent", "Mozilla/5.0 Firefox/200.0")]


class Watched:
    """A store that records every argument it receives."""

    def __init__(self):
        self.store = MemoryStore()
        self.given = []

    def __getattr__(self, verb):
        call = getattr(self.store, verb)

        def noted(*arguments):
            self.given.extend(arguments)
            return call(*arguments)

        return noted


def bytes_of(given):
    """Return every field of the arguments of a store, as bytes."""
    for value in given:
        if isinstance(value, msgspec.Struct):
            yield from bytes_of(msgspec.structs.astuple(value))
        elif isinstance(value, bytes):
            yield value
        else:
            yield repr(value).encode()


async def test_no_verifier_is_passed_to_a_store():
    """B-18, B-48: a store receives the session ID and compares no secret."""
    verifiers, ids, watched = [], [], Watched()

    async def note(session):
        session.increment("n")
        await session.acommit()
        verifiers.append(copy_of(session).verifier)
        ids.append(bytes.fromhex(session.id))

    handlers = {"/note": note, "/destroy": destroy}
    async with TestBareASGI().serve(handlers, store=FaultyStore(watched)) as site:
        browser = site.browser()
        for _ in range(3):
            await browser.get("/note")
        ticket = browser.cookie.partition("=")[2].encode()
        await browser.get("/destroy")
    text = b"\n".join(bytes_of(watched.given))
    [session_id], [verifier] = set(ids), set(verifiers)
    assert len(verifier) == 16
    assert session_id in text
    for secret in (verifier, verifier.hex().encode(), base64.b64encode(verifier)[:20], ticket):
        assert secret not in text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
async def test_bytes_planted_in_the_store_are_never_executed(kit, protocol, tmp_path):
    """B-10, B-11, ASVS 1.5.2: pickles as record, as body and as value."""
    crater = tmp_path / "crater"

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(crater),))

    payload = pickle.dumps(Bomb(), protocol)
    async with kit.serve({"/write": write, "/read": read}) as site:
        for body in (
            payload,
            pack_body(None, {}, {"n": payload}),
            pack_body(None, {}, {"n": encode("n", payload)}),
        ):
            browser = site.browser()
            await browser.get("/write")
            [record] = site.memory._records.values()
            planted = msgspec.structs.replace(record, version=record.version + 1, body=body)
            await site.memory.save(planted, record.version)
            await browser.start("/read").done()
            await browser.start("/write").done()
            site.memory._records.clear()
    assert not crater.exists()


@pytest.mark.parametrize("kind", [SecretStr, lambda text: memoryview(text.encode()), Exception])
async def test_secret_types_are_rejected(kit, kind):
    """B-51: at the assignment; the error does not contain the value."""
    refused = []

    async def keep(session):
        for put in (
            lambda: session.update(password=kind("hunter2")),
            lambda: session.update(form={"password": [kind("hunter2")]}),
            lambda: session.append("log", kind("hunter2")),
        ):
            with pytest.raises(NotSerializable) as error:
                put()
            refused.append(str(error.value))

    async with kit.serve({"/keep": keep}) as site:
        assert (await site.browser().get("/keep")).status == 200
        assert site.count() == 0
    assert len(refused) == 3
    assert "hunter2" not in "".join(refused)


async def test_no_response_of_sojourn_redirects(kit):
    """B-59: not at expiry, failure or rejection, with any Referer and Host."""
    evil = [("referer", EVIL), ("origin", EVIL), ("x-forwarded-host", "evil.example")]
    async with kit.serve({"/write": write, "/destroy": destroy}, timeout="10 minutes") as site:
        browser = site.browser()
        answers = [await browser.get("/write", headers=evil)]
        site.clock.advance("11 minutes")
        answers.append(await browser.get("/write", headers=evil))
        site.store.fail(times=1)
        answers.append(await browser.get("/write", headers=evil))
        answers.append(await browser.get("/destroy", headers=evil))
        refused = await site.browser().start("/write", host="shop.example", headers=evil).done()
        answers.append(refused)
        if refused.error is not None:
            assert isinstance(refused.error, InsecureTransport)
            assert "evil" not in str(refused.error)
    for answer in answers:
        assert not 300 <= answer.status < 400
        assert {"location", "refresh", "content-location"}.isdisjoint(dict(answer.headers))
        assert b"evil" not in answer.body + repr(answer.headers).encode()


async def test_failing_store_denies_access(kit):
    """A15, ASVS 16.5.3, B-36: 503; no user is logged in or logged out."""
    async with kit.serve({"/write": write, "/read": read}) as site:
        browser = site.browser()
        await browser.get("/write")
        before = browser.cookie
        for verb in ("load", "save"):
            site.store.fail(verb, times=1)
            answer = await browser.get("/write")
            assert answer.status == 503
            assert answer.all("set-cookie") == []
        assert browser.cookie == before
        assert (await browser.get("/read")).body == b"1"


async def test_a_change_takes_effect_in_the_next_request(kit):
    """A5, ASVS 8.3.2: a revoked permission is absent in the next request of every process."""

    async def grant(session):
        session["role"] = "admin"

    async def withdraw(session):
        session["role"] = "reader"

    async def role(session):
        return HandlerResponse(body=session["role"].encode())

    handlers = {"/grant": grant, "/withdraw": withdraw, "/role": role}
    async with kit.serve(handlers) as site, site.another() as elsewhere:
        browser = site.browser()
        await browser.get("/grant")
        there = elsewhere.browser(browser.cookie)
        assert (await there.get("/role")).body == b"admin"
        await browser.get("/withdraw")
        assert (await there.get("/role")).body == b"reader"


async def test_a_one_time_value_is_available_once_in_its_session(kit):
    """ASVS 10.1.2, B-42: it is absent in the session of another visitor."""

    async def begin(session):
        session["oauth_state"] = "s-17"

    async def finish(session):
        state = await session.aclaim("oauth_state") if "oauth_state" in session else None
        return HandlerResponse(body=str(state).encode())

    async with kit.serve({"/begin": begin, "/finish": finish}) as site:
        browser = site.browser()
        await browser.get("/begin")
        assert (await site.browser().get("/finish")).body == b"None"
        assert (await browser.get("/finish")).body == b"s-17"
        assert (await browser.get("/finish")).body == b"None"


@pytest.mark.parametrize("said", [[], [(b"vary", b"Accept")], [(b"x-own", b"1")]])
def test_a_page_of_a_logged_in_user_is_not_stored(said):
    """B-7, ASVS 14.3.2: unless its own Cache-Control allows it; also with its own Vary."""
    sent = headers.apply(said, accessed=True, private=True, set_cookie=None)
    assert dict(sent)[b"cache-control"] == b"private, no-store"
    assert b"Cookie" in dict(sent)[b"vary"]


async def test_the_lifetime_of_the_cookie_does_not_extend_the_session(kit):
    """A17, SESS-06, COOK-05, REAUTH-08: the server enforces timeouts and deletes the record."""
    options = {"timeout": "10 minutes", "absolute_timeout": "1 hour", "persistent": True}
    async with kit.serve({"/write": write, "/read": read}, **options) as site:
        browser = site.browser()
        [header] = (await browser.get("/write")).all("set-cookie")
        assert "max-age=3600" in header.lower()
        eternal = browser.cookie
        site.clock.advance("11 minutes")
        assert (await site.browser(eternal).get("/read")).body == b"None"
        assert site.memory._records == {}


async def test_every_event_of_a_session_can_be_logged(kit):
    """OWASP-5, ASVS 16.3.3: creation, change, failure and end, each with the session ID."""
    events = []
    async with kit.serve({"/write": write, "/destroy": destroy}, timeout="10 minutes") as site:
        for event_type in (Created, Written, StoreFailed, Revoked, Expired, Rejected):
            site.sessions.on(event_type, events.append)
        browser, other = site.browser(), site.browser()
        await browser.get("/write")
        before = browser.cookie
        await browser.get("/write")
        site.store.fail("load", times=1)
        await browser.get("/write")
        await browser.get("/destroy")
        await site.browser(before).get("/write")
        await other.get("/write")
        site.clock.advance("11 minutes")
        await other.get("/destroy")
    kinds = [type(event).__name__ for event in events]
    assert kinds[:5] == ["Created", "Written", "StoreFailed", "Revoked", "Rejected"]
    assert kinds[-1] == "Expired"
    assert len({event.session_id for event in events[:5]}) == 1


async def test_address_and_browser_are_checked_only_with_check_labels(kit):
    """OWASP-6: by default both may change."""
    for options, kept in (({}, b"2"), ({"check_labels": ("browser",)}, b"1")):
        async with kit.serve({"/write": write}, **options) as site:
            browser = site.browser()
            await browser.get("/write")
            request = FromAnotherBrowser(path="/write", cookie=browser.cookie)
            assert (await site.driver.start(request).done()).body == kept


@pytest.mark.parametrize("name", ["../sessions", "a\0b", "/etc/x", "x" * 300, "ü", ".", "-"])
async def test_request_data_never_names_a_file(tmp_path, name):
    """B-20, B-30, B-50: the folder of the store contains the same files after any request."""
    store = SQLiteStore(tmp_path / "store" / "sessions.db")
    sessions = Sessions(store=store, secret="a secret for files 5Wq8Zr1T")
    try:
        visitor = Visitor(sessions)
        async with visitor.visit() as session:
            session["name"] = name
        before = sorted(path.name for path in (tmp_path / "store").iterdir())
        stranger = Visitor(sessions, cookie=f"sid={name}".encode().decode("latin-1"))
        stranger.cookie = stranger.cookie.encode("utf-8").decode("utf-8")
        async with stranger.visit() as session:
            session[name] = name
            assert session.new
        assert await sessions.aget(name) is None
        assert await sessions.arevoke(name) is False
        assert sorted(path.name for path in (tmp_path / "store").iterdir()) == before
        assert [path.name for path in tmp_path.iterdir()] == ["store"]
    finally:
        sessions.close()


def test_revoking_an_unknown_id_revokes_no_session():
    """B-47: neither another ID nor an invalid one is found."""
    sessions = Sessions(store="memory://", secret="a secret for handles 2Lm9Xc4")
    visitor = Visitor(sessions)

    async def begin():
        async with visitor.visit() as session:
            session["n"] = 1
            return session.id

    session_id = run(begin())
    for other in ("0" * 32, session_id[:-1], session_id + "0", session_id[::-1], "", "*", "%"):
        assert sessions.revoke(other) is False
    assert sessions.get(session_id) is not None
    assert sessions.revoke(session_id) is True
    sessions.close()
