"""The options ``protect``, ``passive``, ``clear_site_data`` and ``audit`` through ASGI and WSGI.

Complete requests through the adapters; the store records its calls. The audit test uses a real
server.
"""

import json
from collections import Counter

import httpx
import pytest

from sojourn._crypto.tickets import KeyRing
from sojourn.testing import HandlerResponse
from sojourn.testing.app_suite.served_app import SECRET
from tests.contract import test_applications as adapters
from tests.support.servers import Server

pytestmark = pytest.mark.anyio

HOST = "shop.example.com"
OURS, SIBLING, FOREIGN = f"https://{HOST}", "https://blog.example.com", "https://evil.test"
CROSS_SITE = (("Sec-Fetch-Site", "cross-site"), ("Origin", FOREIGN))
UNSAFE = ("POST", "PUT", "PATCH", "DELETE", "PROPFIND", "get")
PAST = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"


async def count(session):
    return HandlerResponse(body=str(session.increment("n")).encode())


async def look(session):
    return HandlerResponse(body=str(session.get("n")).encode())


async def logout(session):
    session.logout()


async def logout_with_message(session):
    session.logout()
    session.flash("See you.")


async def logout_and_fail(session):
    session.logout()
    return HandlerResponse(500)


async def ignore(session):
    assert session is None


HANDLERS = {
    "/write": count,
    "/read": look,
    "/poll": count,
    "/poll/read": look,
    "/logout": logout,
    "/logout/message": logout_with_message,
    "/logout/fail": logout_and_fail,
    "/free": ignore,
}


@pytest.fixture(params=["TestBareASGI", "TestBareWSGI"])
def serve(request):
    """Return a function that serves the handlers; ``ran`` records the handlers that were called."""

    def serve(**options):
        ran = []

        def noting(path, handler):
            async def noted(session):
                ran.append(path)
                return await handler(session)

            return noted

        kit = getattr(adapters, request.param)()
        site = kit.serve({path: noting(path, each) for path, each in HANDLERS.items()}, **options)
        site.ran = ran
        return site

    return serve


def remote_client(site, cookie=None):
    """Return a function that requests pages over https from a remote client with a cookie jar."""
    browser = site.browser(cookie)

    async def fetch(path, method="GET", headers=()):
        reply = await browser.get(path, method=method, headers=headers, scheme="https", host=HOST)
        fetch.cookie = browser.cookie
        return reply

    return fetch


class TestProtect:
    @pytest.mark.parametrize("method", UNSAFE)
    @pytest.mark.parametrize(
        "headers",
        [
            CROSS_SITE,
            [("Sec-Fetch-Site", "same-site"), ("Origin", SIBLING)],
            [("Origin", FOREIGN)],
            [("Origin", "null")],
            [],  # with a ticket: a browser whose headers a proxy stripped
        ],
        ids=["cross-site", "same-site", "foreign", "null", "silent"],
    )
    async def test_cross_origin_request_is_refused_before_any_store_call(
        self, serve, method, headers
    ):
        """ASVS 3.5.1, 3.5.3: with 403; no handler runs, and no cookie is set."""
        async with serve(protect=True) as site:
            fetch = remote_client(site)
            await fetch("/write")
            cookie = fetch.cookie
            site.take_trace()
            site.ran.clear()
            reply = await fetch("/write", method, headers)
            assert reply.status == 403
            assert site.take_trace() == ["start", "body", "end"]
            assert site.ran == []
            assert reply.body.startswith(b"This request was refused because it ")
            assert reply.get("content-length") == str(len(reply.body))
            assert reply.get("cache-control") == "no-store"
            assert reply.get("vary") == "Sec-Fetch-Site, Origin, Cookie"
            assert reply.get("set-cookie") is None
            assert fetch.cookie == cookie
            assert (await fetch("/read")).body == b"1"

    async def test_cross_origin_request_is_refused_while_the_store_fails(self, serve):
        """A15."""
        async with serve(protect=True) as site:
            fetch = remote_client(site)
            await fetch("/write")
            site.store.fail()
            assert (await fetch("/write", "POST", CROSS_SITE)).status == 403
            assert (await fetch("/write", "POST", [("Origin", OURS)])).status == 503

    async def test_cross_origin_login_is_refused(self, serve):
        """ASVS 3.5.1: login CSRF, which needs no ticket."""
        async with serve(protect=True) as site:
            assert (await remote_client(site)("/write", "POST", CROSS_SITE)).status == 403
            assert site.count() == 0

    @pytest.mark.parametrize("method", UNSAFE)
    @pytest.mark.parametrize(
        "header",
        [
            ("Sec-Fetch-Site", "same-origin"),
            ("Sec-Fetch-Site", "none"),
            ("Origin", OURS),
            ("Origin", OURS.upper()),
        ],
    )
    async def test_same_origin_requests_are_accepted(self, serve, method, header):
        async with serve(protect=True) as site:
            fetch = remote_client(site)
            await fetch("/write")
            assert (await fetch("/write", method, [header])).body == b"2"

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
    async def test_safe_methods_are_accepted_from_every_origin(self, serve, method):
        """ASVS 3.5.3: links on other sites work."""
        async with serve(protect=True) as site:
            assert (await remote_client(site)("/read", method, CROSS_SITE)).status == 200
            assert site.ran == ["/read"]

    async def test_same_site_requests_are_accepted_if_allowed(self, serve):
        async with serve(protect=True, allowed_origins=[SIBLING]) as site:
            sibling = [("Sec-Fetch-Site", "same-site"), ("Origin", SIBLING)]
            assert (await remote_client(site)("/write", "POST", sibling)).status == 200

    @pytest.mark.parametrize("cookie", [None, "other=1", "__Host-sid=" + "A" * 66])
    async def test_programs_without_a_ticket_are_accepted(self, serve, cookie):
        """Without a ticket there is no authority to abuse."""
        async with serve(protect=True) as site:
            assert (await remote_client(site, cookie)("/write", "POST")).status == 200

    async def test_local_programs_with_a_ticket_are_accepted(self, serve):
        """Test clients send neither header; browsers do, also for localhost."""
        async with serve(protect=True) as site:
            browser = site.browser()
            await browser.get("/write")
            assert (await browser.get("/write", method="POST")).body == b"2"
            by_page = await browser.get("/write", method="POST", headers=[("Origin", FOREIGN)])
            assert by_page.status == 403

    async def test_no_request_is_refused_by_default(self, serve):
        async with serve() as site:
            assert (await remote_client(site)("/write", "POST", CROSS_SITE)).status == 200

    async def test_paths_without_sessions_are_not_protected(self, serve):
        """After ``uninstall``, no path is (A20)."""
        async with serve(protect=True, exclude=["/free"]) as site:
            assert (await remote_client(site)("/free", "POST", CROSS_SITE)).status == 200
            assert (await remote_client(site)("/write", "POST", CROSS_SITE)).status == 403
            site.sessions.web.active = False
            assert (await remote_client(site)("/free", "POST", CROSS_SITE)).status == 200


class TestPassive:
    OPTIONS = {"passive": ["/poll", "/poll/*"], "timeout": "30 minutes"}  # noqa: RUF012

    @pytest.mark.parametrize("path", ["/poll", "/poll/read"])
    async def test_polling_does_not_extend_the_session(self, serve, path):
        """ASVS 7.3.1: the session expires although an open page polls every minute."""
        async with serve(**self.OPTIONS) as site:
            browser = site.browser()
            await browser.get("/write")
            for _ in range(29):
                site.clock.advance("1 minute")
                assert (await browser.get(path)).body != b"None"
            site.clock.advance("1 minute")
            assert (await browser.get("/read")).body == b"None"

    @pytest.mark.parametrize("path", ["/write", "/read"])
    async def test_requests_to_other_paths_extend_the_session(self, serve, path):
        """The counterpart of the test before."""
        async with serve(**self.OPTIONS) as site:
            browser = site.browser()
            await browser.get("/write")
            for _ in range(60):
                site.clock.advance("1 minute")
                assert (await browser.get(path)).body != b"None"

    async def test_passive_write_is_stored_and_extends_nothing(self, serve):
        async with serve(**self.OPTIONS) as site:
            browser = site.browser()
            await browser.get("/write")
            (before,) = site.memory._records.values()
            site.clock.advance("10 minutes")
            site.take_trace()
            assert (await browser.get("/poll")).body == b"2"
            assert site.take_trace()[:2] == ["load", "save"]
            (after,) = site.memory._records.values()
            assert after.version == before.version + 1
            assert after.seen_at == before.seen_at
            assert after.expires_at == before.expires_at

    async def test_passive_request_does_not_touch_the_record(self, serve):
        async with serve(**self.OPTIONS) as site:
            browser = site.browser()
            await browser.get("/write")
            site.clock.advance("10 minutes")
            site.take_trace()
            await browser.get("/poll/read")
            assert site.take_trace() == ["load", "start", "body", "end"]

    async def test_passive_request_may_begin_a_session(self, serve):
        """A2."""
        async with serve(**self.OPTIONS) as site:
            browser = site.browser()
            assert (await browser.get("/poll")).body == b"1"
            assert (await browser.get("/read")).body == b"1"


class TestClearSiteData:
    OPTIONS = {"clear_site_data": ["cache", "cookies"]}  # noqa: RUF012

    @pytest.mark.parametrize(("path", "status"), [("/logout", 200), ("/logout/fail", 500)])
    async def test_header_is_sent_at_logout_over_https(self, serve, path, status):
        """ASVS 14.3.1, A10: also if the request fails after the logout."""
        async with serve(**self.OPTIONS) as site:
            fetch = remote_client(site)
            assert (await fetch("/write")).get("clear-site-data") is None
            assert (await fetch("/read")).get("clear-site-data") is None
            reply = await fetch(path)
            assert reply.status == status
            assert reply.all("clear-site-data") == ['"cache", "cookies"']
            assert reply.all("set-cookie") == [
                f"__Host-sid=; {PAST}; Path=/; Secure; HttpOnly; SameSite=Lax"
            ]
            assert (await fetch("/logout")).get("clear-site-data") is None

    async def test_header_is_not_sent_over_http(self, serve):
        """NIST SESS-13: a network attacker could inject the header."""
        async with serve(**self.OPTIONS) as site:
            browser = site.browser()
            await browser.get("/write")
            reply = await browser.get("/logout")
            assert reply.get("clear-site-data") is None
            assert reply.all("set-cookie") == [f"sid=; {PAST}; Path=/; HttpOnly; SameSite=Lax"]

    async def test_header_is_not_sent_for_a_new_session(self, serve):
        async with serve(**self.OPTIONS) as site:
            fetch = remote_client(site)
            await fetch("/write")
            before = fetch.cookie
            reply = await fetch("/logout/message")
            assert reply.all("clear-site-data") == ['"cache"']
            assert fetch.cookie not in (None, before)

    async def test_header_is_not_sent_for_a_revoked_session(self, serve):
        """A7: a late response must not delete data of a newer session."""
        async with serve(**self.OPTIONS) as site:
            fetch = remote_client(site)
            await fetch("/write")
            (record,) = site.memory._records.values()
            await site.sessions.arevoke(record.session_id)
            assert (await fetch("/logout")).get("clear-site-data") is None

    async def test_header_is_not_sent_by_default(self, serve):
        async with serve() as site:
            fetch = remote_client(site)
            await fetch("/write")
            assert (await fetch("/logout")).get("clear-site-data") is None


class TestAudit:
    async def test_audit_of_a_real_server_has_one_line_per_event_and_no_secret(self, tmp_path):
        """ASVS 16.3, 16.2.5, A18."""
        command = ["uvicorn", "tests.security.busy_app:app", "--port", "{port}"]
        options = {"store": "sqlite:///s.db", "secret": SECRET, "audit": "audit.jsonl"}
        cookies = []
        with Server(command, tmp_path, options=options) as server:
            async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
                for ending in ("/logout", "/revoke/{}"):
                    client.cookies.clear()
                    public_id = (await client.get("/write")).text
                    cookies.append(client.cookies["sid"])
                    await client.get("/show")
                    await client.get(ending.format(public_id))
                await client.get("/show", headers={"Cookie": "sid=" + "A" * 66})
            log = server.log
        entries = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
        audited = Counter(entry["event"] for entry in entries)
        assert audited == {"Created": 2, "Revoked": 2, "Rejected": 1}
        # The application registers listeners too, and prints each event.
        assert audited == Counter({kind: log.count(f"event {kind}(") for kind in audited})
        assert log.count("event ") > len(entries)  # the audit omits reads and writes
        assert [entry["reason"] for entry in entries if entry["event"] == "Revoked"] == [
            "destroyed",
            "revoked",
        ]
        audited = (tmp_path / "audit.jsonl").read_bytes()
        for cookie in cookies:
            ticket = KeyRing([SECRET.encode()], realm="default").unseal(cookie, name=b"sid")
            for secret in (cookie, ticket.verifier.hex(), repr(ticket.verifier)[2:-1], SECRET):
                assert secret.encode() not in audited
