"""The base class of readers of other libraries' sessions."""

import hashlib
import threading

import pytest

from sojourn.errors import ConfigurationError
from sojourn.web.legacy_reader import LegacyReader, LegacySession, call, seconds

pytestmark = pytest.mark.anyio


class Reader(LegacyReader):
    """Accepts no cookie."""

    def verify(self, value, now):
        return None


class OtherReader(Reader):
    """A reader of another library."""


def test_the_cookie_has_the_attributes_of_the_other_library():
    """Browsers keep a cookie whose deletion has another path, domain or partition."""
    reader = Reader(cookie="old", path="/shop", domain="example.com", partitioned=True)
    assert (reader.cookie, reader.path) == ("old", "/shop")
    assert (reader.domain, reader.partitioned) == ("example.com", True)
    assert repr(reader) == "<Reader of cookie 'old'>"


def test_a_cookie_has_the_path_of_the_site_and_no_other_attribute_by_default():
    reader = Reader(cookie="old")
    assert (reader.path, reader.domain, reader.partitioned) == ("/", None, False)


class TestUser:
    @pytest.mark.parametrize(
        ("user", "expected"),
        [(None, None), ("uid", 7), ("absent", None), (lambda data: data["uid"] + 1, 8)],
    )
    def test_user_is_found_by_key_or_function(self, user, expected):
        assert Reader(cookie="old", user=user).user({"uid": 7}) == expected

    @pytest.mark.parametrize(("found", "expected"), [("", None), (None, None), (0, 0), ("0", "0")])
    def test_empty_user_is_no_login(self, found, expected):
        """All visitors without a login would share one user index."""
        assert Reader(cookie="old", user="uid").user({"uid": found}) == expected

    @pytest.mark.parametrize("user", [7, ["uid"]])
    def test_user_of_an_unsupported_type_is_refused(self, user):
        with pytest.raises(ConfigurationError, match="user= expects a key of the session or"):
            Reader(cookie="old", user=user)


class TestAccept:
    async def test_every_session_is_accepted_by_default(self):
        assert await Reader(cookie="old").accepts({}) is True

    async def test_accept_may_depend_on_the_data(self):
        reader = Reader(cookie="old", accept=lambda data: not data["blocked"])
        assert await reader.accepts({"blocked": False}) is True
        assert await reader.accepts({"blocked": True}) is False

    async def test_accept_may_be_async(self):
        async def accept(data):
            return data["ok"]

        assert await Reader(cookie="old", accept=accept).accepts({"ok": 1}) is True
        assert await Reader(cookie="old", accept=accept).accepts({"ok": 0}) is False


class TestCall:
    async def test_an_async_function_is_called_in_the_thread_of_the_event_loop(self):
        async def function(value):
            return value, threading.get_ident()

        assert await call(function, "x") == ("x", threading.get_ident())

    async def test_another_function_does_not_block_the_event_loop(self):
        value, thread = await call(lambda value: (value, threading.get_ident()), "x")
        assert value == "x"
        assert thread != threading.get_ident()

    async def test_an_awaitable_result_is_awaited(self):
        """A partial or a lambda around an async function is not a coroutine function."""

        async def function(value):
            return value

        assert await call(lambda value: function(value), "x") == "x"  # noqa: PLW0108 - the case


class TestIdentity:
    def test_identity_depends_on_library_and_parts(self):
        """Two sessions with one identity would become one."""
        identities = [
            Reader(cookie="a").identify(b"x", b"yz"),
            Reader(cookie="a").identify(b"xy", b"z"),
            Reader(cookie="a").identify(b"xyz"),
            OtherReader(cookie="a").identify(b"x", b"yz"),
        ]
        assert len(set(identities)) == 4
        assert {len(identity) for identity in identities} == {32}

    def test_identity_is_stable_across_versions(self):
        """The destruction of a converted session is recorded under its identity."""
        parts = b"Reader" + b"\0\0\0\1x" + b"\0\0\0\2yz"
        assert Reader(cookie="a").identify(b"x", b"yz") == hashlib.sha256(parts).digest()

    def test_id_is_appended_to_the_key_prefix(self):
        reader = Reader(cookie="old")
        found = reader.by_id("A" * 16, "session:")
        assert found == LegacySession(
            reader.identify(b"session:" + b"A" * 16), "session:" + "A" * 16
        )

    @pytest.mark.parametrize("session_id", ["A" * 15, "A" * 129, "A" * 15 + ":", "A" * 16 + "\n"])
    def test_text_of_another_format_is_not_an_id(self, session_id):
        assert Reader(cookie="old").by_id(session_id, "") is None


@pytest.mark.parametrize(("value", "expected"), [(1, 1000), (0.25, 250), (3600, 3_600_000)])
def test_seconds_become_milliseconds(value, expected):
    assert seconds(value, option="max_age") == expected


@pytest.mark.parametrize("value", [0, -1, True, None, "60"])
def test_a_duration_is_a_number_above_zero(value):
    with pytest.raises(ConfigurationError, match="max_age expects seconds above zero, found "):
        seconds(value, option="max_age")
