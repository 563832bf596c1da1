"""The caching headers of responses whose handler accessed the session (A13).

Tests with real caching proxies and frameworks are elsewhere.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.web import cache_headers as headers

COOKIE = b"__Host-sid=x; Path=/; Secure; HttpOnly; SameSite=Lax"


def raw(pairs):
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


def apply(pairs, *, accessed=True, private=False, set_cookie=None, overruled=None):
    """Return what `cache_headers.apply` sends, as text."""
    sent = headers.apply(
        raw(pairs), accessed=accessed, private=private, set_cookie=set_cookie, overruled=overruled
    )
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent]


def values(sent, name):
    return [value for key, value in sent if key.lower() == name]


@pytest.mark.parametrize("own", [[], [("Vary", "Accept")]], ids=["no vary", "vary"])
@pytest.mark.parametrize(("private", "expected"), [(False, "private"), (True, "private, no-store")])
def test_only_a_logged_in_users_page_is_no_store(own, private, expected):
    """A13, B-7: also if the application sends its own Vary."""
    sent = apply(own, private=private)
    assert values(sent, "cache-control") == [expected]
    assert values(sent, "vary") == ["Accept, Cookie" if own else "Cookie"]


PLAIN = [("content-type", "text/plain"), ("content-length", "5")]


class TestUntouched:
    @pytest.mark.parametrize("private", [True, False])
    def test_without_a_session_the_same_list_is_sent(self, private):
        """A1: no cookie and no access to the session."""
        own = [(b"Vary", b"Accept")]
        assert headers.apply(own, accessed=False, private=private, set_cookie=None) is own

    @pytest.mark.parametrize("own", [[("Vary", "Accept"), ("Cache-Control", "public")], PLAIN])
    @pytest.mark.parametrize("set_cookie", [None, COOKIE])
    def test_the_list_of_the_application_is_never_changed(self, own, set_cookie):
        given_ = raw(own)
        headers.apply(given_, accessed=True, private=False, set_cookie=set_cookie)
        assert given_ == raw(own)


class TestVary:
    @pytest.mark.parametrize(
        ("said", "sent"),
        [
            ([], "Cookie"),
            ([""], "Cookie"),
            (["Accept-Encoding"], "Accept-Encoding, Cookie"),
            (["Accept", "Origin"], "Accept, Origin, Cookie"),
            (["Cookie"], "Cookie"),
            (["cookie"], "cookie"),
            (["Accept,COOKIE"], "Accept,COOKIE"),
            (["Accept", "Cookie"], "Accept, Cookie"),
            (["*"], "*"),
            (["Accept, *"], "Accept, *"),
            (["X-Cookie, Cookie-Consent"], "X-Cookie, Cookie-Consent, Cookie"),
        ],
    )
    @pytest.mark.parametrize("how", [{"accessed": True}, {"accessed": False, "set_cookie": COOKIE}])
    def test_vary_names_cookie_once(self, said, sent, how):
        """A13, B-1, B-4, B-5: also for a cookie without an access; ``*`` is never replaced."""
        pairs = [("Vary" if i else "vary", value) for i, value in enumerate(said)]
        assert values(apply([*PLAIN, *pairs], **how), "vary") == [sent]


class TestCacheControl:
    def test_reading_response_is_private(self):
        """A13, B-2."""
        assert values(apply(PLAIN), "cache-control") == ["private"]

    def test_response_to_a_logged_in_user_is_no_store(self):
        """A13, B-7, ASVS 14.3.2."""
        assert values(apply(PLAIN, private=True), "cache-control") == ["private, no-store"]

    @pytest.mark.parametrize("accessed", [True, False])
    def test_response_with_a_cookie_is_no_store(self, accessed):
        """A13, B-1, B-6."""
        sent = apply(PLAIN, accessed=accessed, set_cookie=COOKIE)
        assert values(sent, "cache-control") == ["private, no-store"]
        assert values(sent, "set-cookie") == [COOKIE.decode()]

    @pytest.mark.parametrize("private", [True, False])
    @pytest.mark.parametrize("said", ["public, max-age=60", "no-cache", "private", "max-age=0"])
    def test_header_of_the_application_is_kept_if_no_cookie_is_sent(self, said, private):
        """A13: the application's own directives take precedence."""
        sent = apply([("Cache-Control", said)], private=private)
        assert values(sent, "cache-control") == [said]
        sent = apply([("Cache-Control", said), ("cache-control", "no-transform")])
        assert values(sent, "cache-control") == [f"{said}, no-transform"]

    @pytest.mark.parametrize(
        "said",
        [
            "public",
            "PUBLIC, max-age=60",
            "max-age=60",
            "s-maxage=60",
            "S-MaxAge = 60, private",
            "no-cache",
            "must-revalidate",
            "immutable, max-age=31536000",
            "public, no-store",
            "private, public",
            "must-understand, no-store",
            'private="x-name"',
            'private="x-name", no-cache="set-cookie"',
            'no-cache="a, private, no-store"',
            'no-cache="a, private',
            "not-private, x-no-store",
        ],
    )
    def test_shared_caching_directives_are_replaced_if_a_cookie_is_sent(self, said):
        """A13, B-6, B-8: the caller is notified once."""
        reports = []
        sent = apply([("Cache-Control", said)], set_cookie=COOKIE, overruled=reports.append)
        assert values(sent, "cache-control") == ["private, no-store"]
        assert reports == [f"cache-control: {said}"]
        assert apply([("Cache-Control", said)], set_cookie=COOKIE) == sent

    @pytest.mark.parametrize(
        ("said", "kept"),
        [
            ("no-store", "no-store"),
            ("No-Store, max-age=0", "No-Store, max-age=0"),
            ("private, no-store", "private, no-store"),
            ("private", "private, no-store"),
            ("private, max-age=60", "private, max-age=60, no-store"),
            ("", "private, no-store"),
        ],
    )
    def test_private_gets_no_store_if_a_cookie_is_sent(self, said, kept):
        """security.md A.6: no Set-Cookie without no-store; it is added without a warning."""
        reports = []
        sent = apply([("Cache-Control", said)], set_cookie=COOKIE, overruled=reports.append)
        assert values(sent, "cache-control") == [kept]
        assert reports == []

    def test_several_cache_control_headers_are_combined(self):
        """B-8: each of two headers is read."""
        pairs = [("Cache-Control", "private"), ("cache-control", "public")]
        assert values(apply(pairs, set_cookie=COOKIE), "cache-control") == ["private, no-store"]

    @pytest.mark.parametrize(
        "name", ["CDN-Cache-Control", "Vercel-CDN-Cache-Control", "surrogate-control"]
    )
    def test_headers_for_shared_caches_only_are_removed(self, name):
        """B-6, RFC 9213: shared caches obey these headers instead of Cache-Control."""
        reports = []
        pairs = [*PLAIN, (name, "max-age=60")]
        sent = apply(pairs, set_cookie=COOKIE, overruled=reports.append)
        assert values(sent, name.lower()) == []
        assert reports == [f"{name}: max-age=60"]
        assert apply(pairs, set_cookie=COOKIE) == sent
        assert values(apply(pairs), name.lower()) == ["max-age=60"]


names = st.sampled_from(
    ["Vary", "vary", "Cache-Control", "cache-control", "Set-Cookie", "X-Name", "CDN-Cache-Control"]
)
texts = st.sampled_from(
    ["", "public", "private", "no-store", "max-age=1", "Accept", "*", "Cookie", 'a="b', "\xff"]
) | st.text(st.characters(max_codepoint=255), max_size=8)


anything = given(
    pairs=st.lists(st.tuples(names, texts), max_size=6),
    accessed=st.booleans(),
    private=st.booleans(),
    set_cookie=st.sampled_from([None, COOKIE]),
)


class TestAnyResponse:
    @anything
    def test_other_headers_are_unchanged(self, pairs, accessed, private, set_cookie):
        """Also cookies that the application sets itself."""
        sent = apply(pairs, accessed=accessed, private=private, set_cookie=set_cookie)
        others = [pair for pair in pairs if pair[0] in ("Set-Cookie", "X-Name")]
        if set_cookie is not None:
            others.append(("set-cookie", set_cookie.decode()))
        assert [pair for pair in sent if pair[0].lower() in ("set-cookie", "x-name")] == others

    @anything
    def test_response_with_a_cookie_is_never_cacheable_by_shared_caches(
        self, pairs, accessed, private, set_cookie
    ):
        """B-1, B-2, B-3, B-4, B-5, B-6, B-7, B-8: for any headers of the application."""
        sent = apply(pairs, accessed=accessed, private=private, set_cookie=set_cookie)
        if set_cookie is not None:
            (control,) = values(sent, "cache-control")
            (vary,) = values(sent, "vary")
            directives = [part.strip() for part in control.lower().split(",")]
            assert "no-store" in directives
            assert "public" not in directives
            assert {"cookie", "*"} & {part.strip() for part in vary.lower().split(",")}
            assert values(sent, "cdn-cache-control") == []


class TestTicketHeader:
    """With ``transport="header"``, the ticket is in another header than Set-Cookie."""

    def test_ticket_header_is_sent_and_named_in_vary(self):
        sent = headers.apply(
            [(b"Vary", b"authorization")],
            accessed=True,
            private=False,
            set_cookie=b"ticket",
            ticket_name=b"session-ticket",
            vary=(b"vary", b"Cookie, Authorization"),
        )
        assert sent == [
            (b"vary", b"authorization, Cookie"),
            (b"cache-control", b"private, no-store"),
            (b"session-ticket", b"ticket"),
        ]

    @pytest.mark.parametrize("own", [[], [(b"Cache-Control", b"private")]])
    def test_a_response_without_a_ticket_varies_by_the_header(self, own):
        vary = (b"vary", b"Authorization")
        sent = headers.apply(own, accessed=True, private=False, set_cookie=None, vary=vary)
        assert sent == [vary, (b"cache-control", b"private")]


class TestFrameworkHeaders:
    """The headers of frameworks that have them as text."""

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("Vary", True),
            ("CACHE-CONTROL", True),
            ("CDN-Cache-Control", True),
            ("Surrogate-Control", True),
            ("X-Name", False),
            ("Set-Cookie", False),
        ],
    )
    def test_headers_that_a_session_may_replace_are_found(self, name, expected):
        assert headers.has_caching([*PLAIN, (name, "x"), *PLAIN]) is expected

    def test_headers_that_a_session_may_replace_are_selected(self):
        """Those of caches, and Retry-After, which belongs to a failing store."""
        selected = [
            ("Vary", "Accept"),
            ("cache-control", "caf\xe9"),
            ("CDN-Cache-Control", "x"),
            ("Surrogate-Control", "x"),
            ("Retry-After", "5"),
        ]
        others = [("X-Vary", "x"), ("Access-Control", "x"), ("X-Retry-After", "1"), *PLAIN]
        assert headers.select_caching([*others, *selected, *others]) == raw(selected)

    def test_a_character_that_no_header_can_carry_is_replaced(self):
        assert headers.select_caching([("Vary", "\u2603")]) == [(b"Vary", b"?")]

    def test_the_selected_headers_are_replaced(self):
        own = [("X-Name", "1"), ("Vary", "Accept"), ("vary", "Origin"), ("Set-Cookie", "a=1")]
        removed = []

        def remove(name):
            removed.append(name)
            own[:] = [header for header in own if header[0] != name]

        sent = [(b"vary", b"Accept, Cookie"), (b"set-cookie", b"b=\xe9")]
        headers.replace_caching(
            headers.select_caching(own),
            sent,
            remove=remove,
            add=lambda name, value: own.append((name, value)),
        )
        assert sorted(removed) == ["Vary", "vary"]
        assert own == [
            ("X-Name", "1"),
            ("Set-Cookie", "a=1"),
            ("vary", "Accept, Cookie"),
            ("set-cookie", "b=\xe9"),
        ]

    def test_headers_without_a_change_are_not_written(self):
        selected = headers.select_caching([("Vary", "Accept")])
        headers.replace_caching(selected, selected, remove=pytest.fail, add=pytest.fail)
