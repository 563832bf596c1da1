"""Invalid tickets, through every adapter: flaws of other libraries."""

import base64
import re

import pytest

from sojourn._crypto.tickets import KeyRing, Ticket
from sojourn.events import Rejected
from sojourn.testing import HandlerResponse
from sojourn.testing.app_suite.served_app import SECRET

pytestmark = pytest.mark.anyio

IDS = {
    "path": "../../etc/passwd",
    "absolute path": "/etc/passwd",
    "NUL": "a\0b",
    "slash": "a/b",
    "300 characters": "a" * 300,
    "key of a cache": "sojourn:default:s:00",
    "dashes": "-" * 66,
    "letters beyond ASCII": "\u017f" * 66,
    "digits beyond ASCII": "\u0661" * 66,
    "empty": "",
    "blank": " ",
    "None": "None",
    "null": "null",
    "undefined": "undefined",
    "zeros": "0" * 32,
    "JSON": '{"user":1}',
    "base64 of JSON": base64.b64encode(b'{"user": 1, "name": "admin", "more": "padding"}').decode(),
}


async def read(session):
    return HandlerResponse(body=f"{session.get('n')} {session.id}".encode())


async def write(session):
    session.increment("n")
    return HandlerResponse(body=session.id.encode())


def stored(site):
    return [record.session_id for record in site.memory._records.values()]


@pytest.mark.parametrize("kind", IDS)
async def test_an_id_chosen_by_the_visitor_is_ignored(kit, kind):
    """A8, B-22, B-23, B-24, B-30, B-31, ASVS 7.2.1, SESS-01, OWASP-2: no store call, no record."""
    value = IDS[kind].encode().decode("latin-1")
    async with kit.serve({"/read": read, "/write": write}) as site:
        assert (await site.browser(f"sid={value}").get("/read")).body.startswith(b"None ")
        assert site.memory._records == {}
        assert "load" not in site.take_trace()
        browser = site.browser(f"sid={value}")
        given = (await browser.get("/write")).body.decode()
        assert stored(site) == [given]
        assert given not in value
        assert re.fullmatch(r"[0-9a-f]{32}", given)
        assert re.fullmatch(r"sid=[A-Za-z0-9_-]{66}", browser.cookie)


async def test_session_id_is_no_valid_ticket(kit):
    """B-42, B-46, B-47, OWASP-2: in any encoding; and it destroys no session."""
    async with kit.serve({"/read": read, "/write": write}) as site:
        browser = site.browser()
        shown = (await browser.get("/write")).body.decode()
        raw = bytes.fromhex(shown)
        spellings = [
            *(shown, shown.upper(), raw.decode("latin-1"), base64.b64encode(raw).decode()),
            *(base64.urlsafe_b64encode(raw + bytes(33)).decode(), f"{shown}{'A' * 34}"),
        ]
        site.take_trace()
        for value in spellings:
            answer = await site.browser(f"sid={value}").get("/read")
            assert answer.body.startswith(b"None ")
            assert shown.encode() not in answer.body
        assert "load" not in site.take_trace()
        assert (await browser.get("/read")).body == f"1 {shown}".encode()


async def test_only_the_session_cookie_is_read(kit):
    """B-23, B-28, ASVS 14.2.1: other headers and other cookies are ignored."""
    async with kit.serve({"/read": read, "/write": write}) as site:
        browser = site.browser()
        await browser.get("/write")
        ticket = browser.cookie.partition("=")[2]
        site.take_trace()
        for headers in (
            [("authorization", f"Bearer {ticket}")],
            [("x-session-id", ticket), ("x-sid", ticket), ("sid", ticket)],
            [("cookie2", f"sid={ticket}")],
            [("set-cookie", f"sid={ticket}")],
            [("referer", f"http://localhost/?sid={ticket}")],
            [("x-cookie", f"sid={ticket}"), ("x-forwarded-cookie", f"sid={ticket}")],
        ):
            answer = await site.browser().get("/read", headers=headers)
            assert answer.body.startswith(b"None ")
        for name in ("session", "SID", "sid2", "xsid", "Sid", "PHPSESSID", "sid.0"):
            answer = await site.browser(f"{name}={ticket}").get("/read")
            assert answer.body.startswith(b"None ")
        assert "load" not in site.take_trace()
        answer = await site.browser(f"other=1; sid={ticket}; more=2").get("/read")
        assert answer.body.startswith(b"1 ")


async def test_chunked_cookies_are_not_joined(kit):
    """B-56: numbered cookies and their counts are ignored."""
    async with kit.serve({"/read": read, "/write": write}) as site:
        browser = site.browser()
        await browser.get("/write")
        ticket = browser.cookie.partition("=")[2]
        site.take_trace()
        for cookie in (
            f"sid.0={ticket[:33]}; sid.1={ticket[33:]}",
            f"sid={ticket[:33]}; sid={ticket[33:]}",
            f"sid-count=99999999999; sid-0={ticket}",
            f"sid=1000000000|{ticket}",
            "; ".join(f"sid.{n}=x" for n in range(2000)),
        ):
            answer = await site.browser(cookie).get("/read")
            assert answer.body.startswith(b"None ")
            assert answer.all("set-cookie") == []
        assert "load" not in site.take_trace()


async def test_every_session_has_a_different_ticket(kit):
    """ASVS 7.2.2, 7.2.3, SESS-11: 500 tickets have only their length in common."""
    async with kit.serve({"/write": write}) as site:
        tickets = []
        for _ in range(500):
            browser = site.browser()
            await browser.get("/write")
            tickets.append(browser.cookie.partition("=")[2])
    assert len(set(tickets)) == len({ticket[:20] for ticket in tickets}) == len(tickets)
    assert {len(ticket) for ticket in tickets} == {66}
    # 500 uniform draws of 64 letters have more than 20 different ones.
    for place in range(65):
        assert len({ticket[place] for ticket in tickets}) > 20
    assert not any(SECRET in ticket for ticket in tickets)


async def test_cookie_contains_no_readable_data(kit):
    """ASVS 14.3.3, COOK-08, OWASP-1, SESS-04: sealed bytes, a neutral name, no expiry."""

    async def private(session):
        session["email"] = "ada@example.com"
        session["id again"] = session.id

    async with kit.serve({"/private": private, "/read": read}) as site:
        browser = site.browser()
        [header] = (await browser.get("/private")).all("set-cookie")
        name, _, value = browser.cookie.partition("=")
        session_id = (await browser.get("/read")).body.split()[-1].decode()
    assert name == "sid"
    sealed = base64.urlsafe_b64decode(value + "==")
    # Long words: three given letters are in one of 4,000 random tickets.
    words = (b"ada@example.com", b"example", b"email")
    for plaintext in (*words, bytes.fromhex(session_id), session_id.encode()):
        assert plaintext not in sealed + value.encode()
    assert "max-age" not in header.lower()
    assert "expires" not in header.lower()


async def test_rejected_tickets_are_reported(kit):
    """ASVS 16.3.3, OWASP-3: forged, unknown and duplicate tickets, each with its reason."""
    async with kit.serve({"/write": write, "/read": read}) as site:
        events = []
        site.sessions.on(Rejected, events.append)
        browser = site.browser()
        session_id = (await browser.get("/write")).body.decode()
        good = browser.cookie
        await site.browser("sid=" + "A" * 66).get("/read")
        await site.browser(f"{good}; sid=other").get("/read")
        await site.sessions.arevoke(session_id)
        await site.browser(good).get("/read")
    assert [(event.session_id, event.reason) for event in events] == [
        ("", "forged"),
        ("", "duplicate"),
        (session_id, "revoked"),
    ]


async def test_leaked_secret_gives_access_to_no_session(kit):
    """B-11, B-48, ASVS 7.2.1: key and ID suffice to seal a ticket, but the verifier is missing."""
    async with kit.serve({"/write": write, "/read": read}) as site:
        victim = site.browser()
        session_id = (await victim.get("/write")).body.decode()
        keyring = KeyRing([SECRET.encode()], realm="default")
        opened = keyring.unseal(victim.cookie.partition("=")[2], name=b"sid")
        assert opened is not None, "this is the key"
        for verifier in (bytes(16), bytes.fromhex(session_id), b"\xff" * 16):
            forged = keyring.seal(Ticket(opened.session_id, verifier), name=b"sid")
            answer = await site.browser(f"sid={forged}").get("/read")
            assert answer.body.startswith(b"None ")
        assert (await victim.get("/read")).body.startswith(b"1 ")
