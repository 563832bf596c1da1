"""Properties of a login, through every adapter.

The rules of the core are in ``tests/unit/core/test_identity.py``.
"""

from itertools import pairwise

import pytest

from sojourn._crypto.rotation import VerifierChain
from sojourn._crypto.tickets import KeyRing, hash_verifier
from sojourn.errors import RecentAuthRequired
from sojourn.testing import HandlerResponse
from sojourn.testing.app_suite.served_app import SECRET

pytestmark = pytest.mark.anyio


async def look(session):
    return HandlerResponse(body=f"{session.user} {','.join(session.methods)}".encode())


async def password(session):
    """Do the first of two steps: store the candidate user in the session data."""
    session["pending"] = {"user": "ada"}
    session["user"], session["methods"] = "ada", ["password", "totp"]


async def totp(session):
    session.login(session.pop("pending")["user"], methods=("password", "totp"))


async def again(session):
    session.login("ada", methods=("password",))


async def rotate(session):
    session.rotate()


async def sensitive(session):
    try:
        session.require_recent("10 minutes", methods=["totp"])
    except RecentAuthRequired as error:
        return HandlerResponse(401, body=",".join(error.missing).encode())


HANDLERS = {
    "/look": look,
    "/password": password,
    "/totp": totp,
    "/again": again,
    "/rotate": rotate,
    "/sensitive": sensitive,
}


def ticket_of(cookie):
    return KeyRing([SECRET.encode()], realm="default").unseal(cookie.split("=")[1], name=b"sid")


async def test_no_user_is_logged_in_before_the_second_factor(kit):
    """B-45: keys that a handler sets after the first factor do not set a user."""
    async with kit.serve(HANDLERS) as site:
        browser = site.browser()
        await browser.get("/password")
        assert (await browser.get("/look")).body == b"None "
        assert (await browser.get("/sensitive")).status == 401
        assert await site.sessions.alist_user("ada") == []
        copied = site.browser(browser.cookie)
        await browser.get("/totp")
        assert (await browser.get("/look")).body == b"ada password,totp"
        assert (await browser.get("/sensitive")).status == 200
        assert (await copied.get("/look")).body == b"None "


async def test_each_login_has_a_random_ticket(kit):
    """SESS-07: new random bits, which do not depend on the previous ticket."""
    async with kit.serve(HANDLERS) as site:
        browser = site.browser()
        await browser.get("/password")
        tickets = [ticket_of(browser.cookie)]
        for path in ("/totp", "/again", "/again"):
            reply = await browser.get(path)
            assert len(reply.all("set-cookie")) == 1
            tickets.append(ticket_of(browser.cookie))
        assert len({ticket.session_id for ticket in tickets}) == 1
        assert len({ticket.verifier for ticket in tickets}) == len(tickets)
        chain = VerifierChain([SECRET.encode()], realm="default")
        for before, after in pairwise(tickets):
            hashed = hash_verifier(after.verifier)
            assert chain.descendant(before.session_id, before.verifier, hashed=hashed) is None


async def test_methods_are_those_of_the_last_login(kit):
    """SESS-08: methods of an earlier login are not added."""
    async with kit.serve(HANDLERS) as site:
        browser = site.browser()
        await browser.get("/password")
        await browser.get("/totp")
        await browser.get("/again")
        assert (await browser.get("/look")).body == b"ada password"
        reply = await browser.get("/sensitive")
        assert (reply.status, reply.body) == (401, b"totp")


@pytest.mark.parametrize("name", ["user", "methods", "authenticated_at", "remembered"])
async def test_only_a_login_sets_the_user(kit, name):
    """SESS-08, ASVS 7.2.4: no other public call does."""

    async def pretend(session):
        with pytest.raises(AttributeError):
            setattr(session, name, "ada")
        with pytest.raises(ValueError, match="reserved"):
            session["\0auth"] = {"methods": ["totp"]}

    async with kit.serve({"/pretend": pretend, "/look": look}) as site:
        browser = site.browser()
        assert (await browser.get("/pretend")).status == 200
        assert (await browser.get("/look")).body == b"None "


async def test_activity_restarts_the_idle_timeout_and_a_login_both_timeouts(kit):
    """REAUTH-09, REAUTH-10."""
    async with kit.serve(HANDLERS, timeout="20 minutes", absolute_timeout="1 hour") as site:
        browser = site.browser()
        await browser.get("/again")
        for _ in range(3):
            site.clock.advance("19 minutes")
            assert (await browser.get("/look")).body == b"ada password"
        await browser.get("/again")  # three minutes before the timeout
        for _ in range(3):
            site.clock.advance("19 minutes")
            assert (await browser.get("/look")).body == b"ada password"
        site.clock.advance("3 minutes")
        assert (await browser.get("/look")).body == b"None "


async def test_a_replaced_ticket_is_valid_for_the_grace_period(kit):
    """OWASP-4, A9: until the new one was used, plus two seconds for requests in flight."""
    async with kit.serve(HANDLERS, on_reuse="ignore") as site:
        browser = site.browser()
        await browser.get("/again")
        former = browser.cookie
        await browser.get("/rotate")
        assert browser.cookie != former
        site.clock.advance("15 minutes")
        assert (await site.browser(former).get("/look")).body == b"ada password"
        assert (await browser.get("/look")).body == b"ada password"
        site.clock.advance("1999 ms")
        assert (await site.browser(former).get("/look")).body == b"ada password"
        site.clock.advance("1 ms")
        assert (await site.browser(former).get("/look")).body == b"None "
        assert (await browser.get("/look")).body == b"ada password"
