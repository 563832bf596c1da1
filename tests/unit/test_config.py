"""Options: an invalid one is refused when the application is built, by name, with a remedy."""

import re
from dataclasses import dataclass, fields
from datetime import timedelta
from io import StringIO
from typing import Annotated, get_args

import pytest

from sojourn import CallbackStore, Created, Merge, Sessions
from sojourn._core.policy import PRESETS, Limits, Policy
from sojourn.config import (
    OPTIONS,
    AllOptions,
    Options,
    Preset,
    build_config,
    build_policy,
    options_from_mapping,
)
from sojourn.errors import ConfigurationError
from sojourn.record import FOREVER
from sojourn.store import LimitPolicy, SessionLimit
from sojourn.stores.memory import MemoryStore
from sojourn.web.transport_security import TransportSecurity

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"
OTHER = "b7Rk1mXq9ZtVw4Ys8LpCn3HdJf6GaUe2"


@dataclass
class Shop:
    counter: Annotated[int, Merge.SUM] = 0


async def coroutine(line):
    """A coroutine function, which an audit cannot call."""


def config(*, environment=(), **options):
    return build_config({"store": "memory://", **options}, dict(environment))


BAD = {
    "store": [
        ("", "expects a URL"), ("sessions.db", "expects a URL"), (5, "expects a URL or an object"),
        ("sqllite:///x", "Did you mean 'sqlite'?"), ("memory:", "expects a URL"),
        (MemoryStore, "expects a URL or an object"), ("memory://?limit=0", "limit of 1 or more"),
        ("memory://?limit=x", "expects int"), ("memory://?limt=5", "Did you mean 'limit'?"),
        ("memory://host", "no host and no path"),
        ("redis://[::1", "an invalid one: Invalid IPv6 URL"),
        ("redis:user:hunter2@host", r"found 'host'"),
    ],
    "secret": [
        ("N84", "3 bytes"), (5, "found int"), ([], "empty list"), ("changeme" * 4, "repeats it"),
    ],
    "cookie": [(5, "expects text"), ("a b", "."), ("", ".")],
    "secure": [("yes", "True, False or 'auto'"), (None, "True, False")],
    "same_site": [("laxx", "'lax'"), (None, "'lax'")],
    "path": [(5, "expects text"), ("account", "begins with '/'"), ("", "begins with '/'")],
    "domain": [(5, "expects text"), ("a b", ".")],
    "partitioned": [("no", "True or False"), (1, "True or False")],
    "persistent": [(None, "True or False")],
    "timeout": [("soon", "a duration"), (None, "a duration"), (0, "a duration")],
    "idle_timeout": [(0, "timeout expects"), ("5", "timeout expects")],
    "absolute_timeout": [
        ("x", "^absolute_timeout expects"), (-5, "^absolute_timeout expects"),
        (0, "^absolute_timeout expects"), ("unset", "^absolute_timeout expects"),
    ],
    "anonymous_timeout": [
        ("x", "^anonymous_timeout expects"), (None, "^anonymous_timeout expects"),
        (-1, "^anonymous_timeout expects"), ("13", "^anonymous_timeout expects"),
    ],
    "anonymous_absolute_timeout": [
        (True, "^anonymous_absolute_timeout expects"),
    ],
    "remember_timeout": [
        ([], "^remember_timeout expects"), (None, "^remember_timeout expects"),
    ],
    "remember_absolute_timeout": [
        ("x", "^remember_absolute_timeout expects"),
    ],
    "preset": [
        ("aal4", "^preset expects one of aal1, aal2, aal3, found 'aal4'"),
        ("AAL2", "^preset expects one of"), (2, "^preset expects one of"),
        (["aal2"], "^preset expects one of"),
    ],
    "touch_interval": [
        ("1 hour", "must be shorter"), (-1, "touch_interval expects"),
        (None, "touch_interval expects"),
    ],
    "unconfirmed_timeout": [(0, "unconfirmed_timeout expects")],
    "rotate_interval": [
        (0, "^rotate_interval expects"), ("often", "^rotate_interval expects"),
        (True, "^rotate_interval expects"),
    ],
    "on_reuse": [
        ("log", "^on_reuse expects one of revoke, ignore, found 'log'"),
        (None, "^on_reuse expects"), (True, "^on_reuse expects"),
    ],
    "max_sessions": [
        (0, "^max_sessions expects a whole number above zero"),
        (10**30, "^max_sessions expects 1000000 at most"), (True, "^max_sessions expects"),
        ("3", "^max_sessions expects"), (1.5, "^max_sessions expects"),
    ],
    "on_limit": [
        ("evict", "^on_limit expects one of evict_oldest, evict_idlest, refuse, found 'evict'"),
        (None, "^on_limit expects"),
    ],
    "encrypt": [
        ("secret", "^encrypt expects False, True or 'ticket', found 'secret'"),
        (1, "^encrypt expects"), (None, "^encrypt expects"), (["ticket"], "^encrypt expects"),
    ],
    "on_invalid_state": [("ignore", '"error", "default" or a function'), (None, "error")],
    "state_version": [(0, "above zero"), ("1", "whole number"), (True, "whole number")],
    "upgrade": [("upgrade", "a function of the stored version")],
    "merge": [
        (None, "a dict from key to rule"),
        ({"a": "sums"}, "one of last, sum, dict, dict of sum, union"),
        ({"a": "edit"}, "one of"), ({1: "sum"}, "strings"), ({"a": []}, "one of"),
        (["a"], "a dict"),
    ],
    "max_bytes": [(0, "above zero"), (True, "above zero"), ("64 KiB", "above"), (1.5, "above")],
    "store_timeout": [(0, "store_timeout expects"), ("x", "store_timeout expects")],
    "recheck_interval": [
        (0, "^recheck_interval expects"), (None, "^recheck_interval expects"),
    ],
    "on_store_failure": [
        ("ignore", "^on_store_failure expects one of error, anonymous, found 'ignore'"),
        (None, "^on_store_failure expects a list of texts"),
        (["page"], "^on_store_failure expects paths such as"),
    ],
    "save_on_error": [("no", "True or False")],
    "realm": [
        ("", "1 to 32"), ("x" * 33, "1 to 32"), ("a b", "1 to 32"), ("é", "1 to 32"), ("-", "1 to"),
        (None, "1 to 32"), ("a\n", "1 to 32"), ("a:b", "1 to 32"), ("../x", "1 to 32"),
    ],
    "allowed_origins": [
        (5, "a list of texts"), ([5], "a list of texts"), (["example.com"], "with a scheme"),
        (["https://example.com/"], "without path"), (["wss://example.com"], "https://example.com"),
        (None, "a list of texts"),
    ],
    "protect": [("yes", "^protect expects True or False"), (None, "^protect expects")],
    "clear_site_data": [
        ("cache", "^clear_site_data expects a list of texts"),
        (["Cache"], "^clear_site_data expects some of 'cache', 'cookies', 'storage'"),
        (['"cache"'], "without quotes inside"), (None, "^clear_site_data expects"),
    ],
    "audit": [
        (5, "^audit expects a path, a file open for writing or a plain function, found 5"),
        (StringIO, "^audit expects"), (coroutine, "^audit expects"), ("", "^audit cannot write to"),
    ],
    "history": [
        (0, "^history expects a duration above zero"), ("often", "^history expects a duration"),
        (True, "^history expects"), ([30], "^history expects"),
    ],
    "passive": [
        ("/poll", "^passive expects a list of texts"), (["poll"], "^passive expects paths such as"),
        (None, "^passive expects"),
    ],
    "include": [("/a", "a list of texts"), (None, "a list"), (["a"], "begin it"), ([5], "a list")],
    "exclude": [("/a", "a list of texts"), (5, "a list of texts"), ([""], "begin it with '/'")],
    "autoload": [("yes", "True or False")],
    "check_labels": [(["ip"], "address, browser"), ("address", "a list of"), (5, "a list")],
    "clock": [(5, "a function that returns milliseconds")],
}  # fmt: skip


class TestBadOptions:
    @pytest.mark.parametrize(
        ("option", "value", "text"),
        [(option, value, text) for option, rows in BAD.items() for value, text in rows],
    )
    def test_an_invalid_value_is_refused_by_name_with_a_remedy(self, option, value, text):
        with pytest.raises(ConfigurationError, match=text):
            config(**{option: value})

    @pytest.mark.parametrize("name", sorted(OPTIONS))
    def test_every_option_refuses_a_plain_object(self, name):
        """Including options that are added later."""
        with pytest.raises(ConfigurationError, match=name):
            config(**{name: object()})

    def test_every_invalid_value_belongs_to_an_option(self):
        assert set(BAD) <= set(OPTIONS)

    @pytest.mark.parametrize(
        ("name", "meant"),
        [("tiemout", "timeout"), ("secrets", "secret"), ("samesit", "same_site"), ("zzz", None)],
    )
    def test_an_unknown_option_is_refused_with_a_suggestion(self, name, meant):
        with pytest.raises(ConfigurationError) as caught:
            config(**{name: 1})
        text = str(caught.value)
        assert f"there is no option {name!r}" in text
        assert (f"Did you mean {meant!r}?" in text) if meant else ("known are store" in text)

    @pytest.mark.parametrize(
        ("name", "ours"),
        [
            ("max_age", "timeout"), ("https_only", "secure"), ("secret_key", "secret"),
            ("session_cookie", "cookie"), ("samesite", "same_site"), ("cookie_name", "cookie"),
            ("lifetime", "timeout"), ("SECRET_KEY", "secret"), ("SESSION_COOKIE_NAME", "cookie"),
            ("SESSION_COOKIE_AGE", "timeout"), ("SESSION_COOKIE_DOMAIN", "domain"),
            ("SESSION_COOKIE_PATH", "path"), ("SESSION_COOKIE_SECURE", "secure"),
            ("SESSION_COOKIE_SAMESITE", "same_site"), ("SESSION_COOKIE_PARTITIONED", "partitioned"),
            ("SESSION_ENGINE", "store"), ("SESSION_TYPE", "store"),
            ("SESSION_PERMANENT", "persistent"), ("SESSION_COOKIE_HTTPS_ONLY", "secure"),
            ("SESSION_KEY_PREFIX", "realm"), ("PERMANENT_SESSION_LIFETIME", "timeout"),
        ],
    )  # fmt: skip
    def test_an_option_of_another_library_is_refused_with_that_of_sojourn(self, name, ours):
        """Of Starlette, Django, Flask and Flask-Session."""
        with pytest.raises(ConfigurationError) as caught:
            config(**{name: 1})
        assert str(caught.value) == f"{name} is called {ours} here; use that name"

    @pytest.mark.parametrize(
        ("name", "answer"),
        [
            ("httponly", "always HttpOnly"), ("SESSION_COOKIE_HTTPONLY", "always HttpOnly"),
            ("SESSION_EXPIRE_AT_BROWSER_CLOSE", "pass persistent=True"),
            ("SESSION_SAVE_EVERY_REQUEST", "see touch_interval"),
            ("SESSION_REFRESH_EACH_REQUEST", "see touch_interval"), ("rolling", "touch_interval"),
            ("SESSION_SERIALIZER", "msgpack"), ("SESSION_USE_SIGNER", "always sealed"),
        ],
    )  # fmt: skip
    def test_an_option_that_is_not_needed_is_refused_with_an_explanation(self, name, answer):
        with pytest.raises(ConfigurationError, match=f"^{name} is no option here: .*{answer}"):
            config(**{name: 1})

    def test_a_name_of_another_library_is_mapped_to_one_option(self):
        names = [name for option in OPTIONS.values() for name in option.other_names]
        assert len(set(names)) == len(names)
        assert not set(names) & set(OPTIONS)

    def test_two_names_of_one_option_are_refused(self):
        with pytest.raises(ConfigurationError, match="two names of one option"):
            config(timeout=5, idle_timeout=5)

    @pytest.mark.parametrize(
        "options",
        [
            {"cookie": "__Host-sid", "domain": "example.com"},
            {"cookie": "__Host-sid", "path": "/x"},
            {"same_site": "none", "secure": False},
            {"partitioned": True, "secure": False},
        ],
    )
    def test_a_cookie_that_browsers_reject_is_refused(self, options):
        """ASVS 3.3.3, RFC 6265bis."""
        with pytest.raises(ConfigurationError):
            config(**options)

    def test_options_that_need_each_other_are_refused_alone(self):
        with pytest.raises(ConfigurationError, match="upgrade needs state_version="):
            config(upgrade=lambda version, data: data)
        with pytest.raises(ConfigurationError, match="on_invalid_state needs state="):
            config(on_invalid_state="default")
        assert config(state_version=2).state.upgrade.version == 2
        assert config().state.upgrade is None

    def test_a_state_that_is_not_a_class_is_refused(self):
        with pytest.raises(ConfigurationError, match=r"a msgspec\.Struct or a pydantic"):
            config(state=dict)

    @pytest.mark.parametrize("option", sorted(set(BAD) - {"store"}))
    def test_an_invalid_option_creates_no_file(self, option, tmp_path):
        """The store is created last, because it may create files and threads."""
        with pytest.raises(ConfigurationError):
            Sessions(store=f"sqlite:///{tmp_path}/s.db", **{option: BAD[option][0][0]})
        assert list(tmp_path.iterdir()) == []


class TestGoodOptions:
    def test_defaults_are_the_documented_ones(self):
        found = config()
        assert found.core.policy.authenticated == Limits(30 * MINUTE, 12 * HOUR)
        assert found.core.policy.anonymous == found.core.policy.authenticated
        assert found.core.policy.remembered == Limits(14 * DAY, 30 * DAY)
        assert found.core.policy.touch_interval == MINUTE
        assert found.core.policy.unconfirmed_timeout is found.core.policy.rotate_interval is None
        assert found.core.max_bytes == 64 * 1024
        assert found.realm == "default"
        assert found.secrets is None
        assert found.web.autoload
        assert not found.web.save_on_error
        assert not found.web.protect
        assert found.web.passive is None
        assert found.web.clear_site_data.header(TransportSecurity.SECURE) is None
        assert found.web.allowed_origins == frozenset()
        assert (found.core.session_limit, found.encrypt, found.audit) == (None, False, None)
        assert found.core.revoke_reused
        assert (found.merges, found.core.check_labels, found.clock) == ({}, (), None)
        assert OPTIONS["store"].default == "sqlite:///.sojourn/sessions.db"

    @pytest.mark.parametrize("name", ["timeout", "idle_timeout"])
    def test_timeout_and_idle_timeout_are_the_same_option(self, name):
        assert (
            config(**{name: timedelta(minutes=5)}).core.policy.authenticated.idle_timeout == 300_000
        )

    @pytest.mark.parametrize(
        ("options", "anonymous", "authenticated", "remembered"),
        [
            # The limits of anonymous sessions follow from those of authenticated ones.
            ({"timeout": 60, "absolute_timeout": 600},
             (MINUTE, 10 * MINUTE), (MINUTE, 10 * MINUTE), (14 * DAY, 30 * DAY)),
            ({"anonymous_timeout": 60},
             (MINUTE, 12 * HOUR), (30 * MINUTE, 12 * HOUR), (14 * DAY, 30 * DAY)),
            ({"anonymous_absolute_timeout": "1 hour", "remember_timeout": "2 days"},
             (30 * MINUTE, HOUR), (30 * MINUTE, 12 * HOUR), (2 * DAY, 30 * DAY)),
            ({"remember_timeout": "20d", "remember_absolute_timeout": "60d"},
             (30 * MINUTE, 12 * HOUR), (30 * MINUTE, 12 * HOUR), (20 * DAY, 60 * DAY)),
            ({"absolute_timeout": None},
             (30 * MINUTE, None), (30 * MINUTE, None), (14 * DAY, None)),
            ({"anonymous_absolute_timeout": None, "remember_absolute_timeout": None},
             (30 * MINUTE, None), (30 * MINUTE, 12 * HOUR), (14 * DAY, None)),
            # "Remember me" never shortens a session.
            ({"timeout": "20d", "absolute_timeout": "50d"},
             (20 * DAY, 50 * DAY), (20 * DAY, 50 * DAY), (20 * DAY, 50 * DAY)),
            # One of the two alone: the default of the other gives way.
            ({"timeout": "14 days"},
             (14 * DAY, 14 * DAY), (14 * DAY, 14 * DAY), (14 * DAY, 30 * DAY)),
            ({"timeout": "60 days"},
             (60 * DAY, 60 * DAY), (60 * DAY, 60 * DAY), (60 * DAY, 60 * DAY)),
            ({"absolute_timeout": "5 minutes"},
             (5 * MINUTE, 5 * MINUTE), (5 * MINUTE, 5 * MINUTE), (14 * DAY, 30 * DAY)),
            ({"timeout": "14 days", "absolute_timeout": "20 days"},
             (14 * DAY, 20 * DAY), (14 * DAY, 20 * DAY), (14 * DAY, 30 * DAY)),
            ({"timeout": "14 days", "absolute_timeout": None},
             (14 * DAY, None), (14 * DAY, None), (14 * DAY, None)),
            ({"anonymous_timeout": "13 hours"},
             (13 * HOUR, 13 * HOUR), (30 * MINUTE, 12 * HOUR), (14 * DAY, 30 * DAY)),
            ({"anonymous_absolute_timeout": "5 minutes"},
             (5 * MINUTE, 5 * MINUTE), (30 * MINUTE, 12 * HOUR), (14 * DAY, 30 * DAY)),
            ({"remember_timeout": "31 days"},
             (30 * MINUTE, 12 * HOUR), (30 * MINUTE, 12 * HOUR), (31 * DAY, 31 * DAY)),
            ({"remember_absolute_timeout": "1 day"},
             (30 * MINUTE, 12 * HOUR), (30 * MINUTE, 12 * HOUR), (DAY, DAY)),
            ({"preset": "aal1", "absolute_timeout": "1 day"},
             (DAY, DAY), (DAY, DAY), (30 * DAY, 30 * DAY)),
            ({"preset": "aal1"}, (30 * DAY, 30 * DAY), (30 * DAY, 30 * DAY), (30 * DAY, 30 * DAY)),
            ({"preset": "aal2"}, (HOUR, DAY), (HOUR, DAY), (HOUR, DAY)),
            ({"preset": "aal3"},
             (15 * MINUTE, 12 * HOUR), (15 * MINUTE, 12 * HOUR), (15 * MINUTE, 12 * HOUR)),
            ({"preset": "aal2", "timeout": "5m", "remember_absolute_timeout": "12h"},
             (5 * MINUTE, DAY), (5 * MINUTE, DAY), (HOUR, 12 * HOUR)),
        ],
    )  # fmt: skip
    def test_each_kind_of_session_has_its_limits(
        self, options, anonymous, authenticated, remembered
    ):
        """ASVS 7.1.1, 7.3.1, 7.3.2; NIST SESS-14, REAUTH-02."""
        policy = config(**options).core.policy
        for found, wanted in [
            (policy.anonymous, anonymous),
            (policy.authenticated, authenticated),
            (policy.remembered, remembered),
        ]:
            assert found == Limits(*wanted)

    @pytest.mark.parametrize(
        "options",
        [
            {"preset": "aal2", "timeout": "61 minutes"},
            {"preset": "aal2", "timeout": "25 hours"},
            {"preset": "aal2", "absolute_timeout": "25 hours"},
            {"preset": "aal2", "absolute_timeout": None},
            {"preset": "aal3", "remember_timeout": "16 minutes"},
            {"preset": "aal1", "remember_absolute_timeout": "31 days"},
            {"preset": "aal1", "remember_absolute_timeout": None},
        ],
    )
    def test_a_preset_is_not_weakened(self, options):
        """NIST SESS-14."""
        (option,) = set(options) - {"preset"}
        text = f"preset='{options['preset']}' allows no {option} beyond .* leave one of the two out"
        with pytest.raises(ConfigurationError, match=text):
            config(**options)

    def test_rotate_interval_is_passed_to_the_policy(self):
        assert config(rotate_interval="15 minutes").core.policy.rotate_interval == 900_000
        assert config(rotate_interval=None).core.policy.rotate_interval is None
        assert not config(on_reuse="ignore").core.revoke_reused

    @pytest.mark.parametrize("on_limit", ["evict_oldest", "evict_idlest", "refuse"])
    def test_max_sessions_is_passed_to_the_session_limit(self, on_limit):
        assert config(max_sessions=3, on_limit=on_limit).core.session_limit == SessionLimit(
            3, LimitPolicy(on_limit)
        )
        assert config(max_sessions=None, on_limit=on_limit).core.session_limit is None

    def test_max_sessions_needs_a_store_with_a_user_index(self):
        """The error names the remedy; the limit is never silently ignored."""
        store = CallbackStore()
        with pytest.raises(
            ConfigurationError, match=r"max_sessions needs a store with an index of users"
        ):
            config(store=store, max_sessions=3)
        assert config(store=store).core.session_limit is None

    def test_history_needs_a_store_that_keeps_one(self):
        assert config(history="1 day").history == DAY
        assert config().history is None
        with pytest.raises(
            ConfigurationError, match=r"^history needs a store with a history.*leave history"
        ):
            config(store=CallbackStore(), history="1 day")

    @pytest.mark.parametrize("encrypt", [False, True, "ticket"])
    def test_encrypt_is_passed_to_the_cipher(self, encrypt):
        assert config(encrypt=encrypt).encrypt == encrypt

    def test_protection_with_every_origin_allowed_is_refused(self):
        """B-60."""
        with pytest.raises(ConfigurationError, match=r"protect=True refuses"):
            config(protect=True, allowed_origins="*")
        assert config(protect=True, allowed_origins=["https://a.example"]).web.protect

    def test_clear_site_data_accepts_the_directives_of_the_header(self):
        """ASVS 14.3.1."""
        clearing = config(clear_site_data=["cache", "storage"]).web.clear_site_data
        assert clearing.header(TransportSecurity.SECURE) == b'"cache", "storage"'

    def test_passive_paths_are_patterns(self):
        passive = config(passive=["/poll", "/live/*"]).web.passive
        assert passive.match("/poll")
        assert passive.match("/live/orders")
        assert not passive.match("/poll/x")

    def test_the_audit_uses_the_clock_of_the_installation(self):
        lines = []
        config(audit=lines.append, clock=lambda: 7).audit.write(Created("0f" * 16))
        assert lines == [
            f'{{"time":"1970-01-01T00:00:00.007Z","event":"Created","session":"{"0f" * 16}"}}'
        ]

    def test_merges_of_the_state_class_and_of_the_option_are_combined(self):
        found = config(state=Shop, merge={"a": "sum", "b": Merge.DICT})
        assert found.merges == {"counter": Merge.SUM, "a": Merge.SUM, "b": Merge.DICT}

    def test_the_option_merge_overrides_the_state_class(self):
        assert config(state=Shop, merge={"counter": "last"}).merges == {"counter": Merge.LAST}

    @pytest.mark.parametrize(
        "origins", ["https://a.example", ["https://a.example"], {"https://a.example"}]
    )
    def test_allowed_origins_can_be_one_string_or_several(self, origins):
        assert config(allowed_origins=origins).web.allowed_origins == {"https://a.example"}

    @pytest.mark.parametrize("realm", ["a", "shop-2", "A_b", "x" * 32])
    def test_a_realm_is_accepted(self, realm):
        assert config(realm=realm).realm == realm

    def test_an_empty_store_with_a_length_is_accepted(self):
        """It must not count as no store because it is false."""

        class Sized(MemoryStore):
            def __len__(self):
                return 0

        store = Sized()
        assert config(store=store).store is store


class TestBuildPolicy:
    def test_the_touch_interval_follows_from_the_idle_timeout(self):
        """A tenth of the idle timeout, at most 60 s."""
        assert build_policy().touch_interval == MINUTE
        assert build_policy(touch_interval="5 s").touch_interval == 5_000
        assert build_policy(timeout="100 s").touch_interval == 10_000

    def test_every_duration_is_checked_under_its_own_name(self):
        for option, name in [
            ("timeout", "timeout"),
            ("absolute_timeout", "absolute_timeout"),
            ("touch_interval", "touch_interval"),
            ("unconfirmed_timeout", "unconfirmed_timeout"),
        ]:
            with pytest.raises(ConfigurationError, match=f"^{name} expects"):
                build_policy(**{option: "soon"})

    @pytest.mark.parametrize("touch", ["30 minutes", "31 minutes"])
    def test_a_touch_interval_that_is_too_long_is_refused(self, touch):
        with pytest.raises(ConfigurationError, match="would be logged out"):
            build_policy(touch_interval=touch)

    def test_an_absolute_timeout_shorter_than_the_idle_timeout_is_refused_with_the_remedy(self):
        for options in (
            {"timeout": "2 days", "absolute_timeout": "1 day"},
            {"anonymous_timeout": "2 days", "absolute_timeout": "1 day"},
            {"anonymous_timeout": "2 days", "anonymous_absolute_timeout": "1 day"},
            {"remember_timeout": "2 days", "remember_absolute_timeout": "1 day"},
        ):
            with pytest.raises(ConfigurationError, match=r"longer .*absolute_timeout="):
                build_policy(**options)
        assert (
            build_policy(timeout="2 days", absolute_timeout=None).authenticated.absolute_timeout
            is None
        )

    def test_no_absolute_limit_must_be_explicit(self):
        """ASVS 7.1.1."""
        assert build_policy().authenticated.absolute_at(5) == 5 + 12 * HOUR
        assert build_policy(absolute_timeout=None).authenticated.absolute_at(5) == FOREVER

    def test_the_unconfirmed_timeout_is_at_most_the_idle_timeout(self):
        assert build_policy().initial_idle_timeout() == 30 * MINUTE
        assert build_policy(unconfirmed_timeout="1 minute").initial_idle_timeout() == MINUTE
        assert build_policy(unconfirmed_timeout="2 hours").initial_idle_timeout() == 30 * MINUTE

    def test_defaults_of_every_kind_of_session(self):
        """ASVS 7.1.1: the limits of logged-in, anonymous and remembered sessions."""
        assert build_policy() == Policy(
            Limits(30 * MINUTE, 12 * HOUR),
            Limits(30 * MINUTE, 12 * HOUR),
            Limits(14 * DAY, 30 * DAY),
            MINUTE,
        )

    def test_each_kind_of_session_can_have_its_own_limits(self):
        policy = build_policy(
            anonymous_timeout="1 hour",
            anonymous_absolute_timeout="2 hours",
            remember_timeout="3 hours",
            remember_absolute_timeout=None,
        )
        assert policy.limits(None, persistent=False) == Limits(HOUR, 2 * HOUR)
        assert policy.limits("ada", persistent=False) == Limits(30 * MINUTE, 12 * HOUR)
        assert policy.limits("ada", persistent=True) == Limits(3 * HOUR, None)

    def test_remember_never_shortens_a_session(self):
        policy = build_policy(timeout="20 days", absolute_timeout=None)
        assert policy.remembered == Limits(20 * DAY, None)
        assert build_policy(timeout="40 days", absolute_timeout="50 days").remembered == Limits(
            40 * DAY, 50 * DAY
        )

    @pytest.mark.parametrize(
        ("preset", "idle", "overall"),
        [("aal1", 30 * DAY, 30 * DAY), ("aal2", HOUR, DAY), ("aal3", 15 * MINUTE, 12 * HOUR)],
    )
    def test_presets_are_the_limits_of_nist(self, preset, idle, overall):
        """NIST SP 800-63B-4 REAUTH-02 to 07, SESS-14."""
        policy = build_policy(preset=preset)
        assert (
            policy.authenticated == policy.anonymous == policy.remembered == Limits(idle, overall)
        )
        assert build_policy(preset=preset, timeout="5 minutes").authenticated == Limits(
            5 * MINUTE, overall
        )

    @pytest.mark.parametrize(
        "beyond",
        [
            {"timeout": "16 minutes"},
            {"absolute_timeout": "13 hours"},
            {"absolute_timeout": None},
            {"remember_timeout": "1 hour"},
            {"remember_absolute_timeout": "1 day"},
        ],
    )
    def test_an_option_that_exceeds_a_preset_is_refused(self, beyond):
        """NIST SP 800-63B-4 REAUTH-06."""
        (option,) = beyond
        with pytest.raises(ConfigurationError, match=f"preset='aal3' allows no {option}"):
            build_policy(preset="aal3", **beyond)

    def test_an_unknown_preset_is_named_in_the_error(self):
        with pytest.raises(ConfigurationError, match="one of aal1, aal2, aal3, found 'aal4'"):
            build_policy(preset="aal4")


class TestEnvironment:
    def test_the_environment_precedes_defaults_and_follows_keywords(self):
        environment = {"SOJOURN_STORE": "memory://?limit=7", "SOJOURN_SECRET": SECRET}
        from_environment = build_config({}, environment)
        assert "of 7 records" in repr(from_environment.store)
        assert from_environment.secrets == (SECRET.encode(),)
        given = config(environment=environment, secret=OTHER)
        assert "of 7" not in repr(given.store)
        assert given.secrets == (OTHER.encode(),)

    def test_the_history_is_set_by_the_environment(self):
        """For programs without options of their own, such as the command line."""
        assert config(environment={"SOJOURN_HISTORY": "30 days"}).history == 30 * DAY
        assert config(environment={"SOJOURN_HISTORY": "1 day"}, history="2 days").history == (
            2 * DAY
        )
        with pytest.raises(ConfigurationError, match=r"^SOJOURN_HISTORY expects a duration"):
            config(environment={"SOJOURN_HISTORY": "long"})

    def test_several_secrets_are_separated_by_commas(self):
        found = config(environment={"SOJOURN_SECRET": f" {SECRET}, {OTHER},\n"})
        assert found.secrets == (SECRET.encode(), OTHER.encode())

    def test_a_secret_can_contain_spaces(self):
        phrase = "eleven grey herons read the tide table"
        assert config(environment={"SOJOURN_SECRET": phrase}).secrets == (phrase.encode(),)

    def test_an_empty_variable_is_ignored(self):
        assert config(environment={"SOJOURN_SECRET": ""}).secrets is None

    def test_an_invalid_variable_is_named_in_the_error(self):
        with pytest.raises(ConfigurationError, match=r"^SOJOURN_SECRET has 3 bytes"):
            config(environment={"SOJOURN_SECRET": "N84"})
        with pytest.raises(ConfigurationError, match=r"^SOJOURN_SECRET expects .* empty list"):
            config(environment={"SOJOURN_SECRET": "  "})


class TestOptionsFromMapping:
    def test_options_are_the_keys_with_the_prefix(self):
        """Such as in Django's settings; other keys are ignored."""
        mapping = {
            "SOJOURN_TIMEOUT": "1 hour",
            "SOJOURN_STATE": Shop,
            "DEBUG": True,
            "sojourn_x": 1,
        }
        assert options_from_mapping(mapping) == {"timeout": "1 hour", "state": Shop}
        assert options_from_mapping({"APP_REALM": "shop"}, prefix="APP_") == {"realm": "shop"}

    def test_the_mapping_has_the_options_of_sessions(self):
        options = options_from_mapping({"SOJOURN_STORE": "memory://", "SOJOURN_TIMEOUT": 300})
        assert Sessions(**options).config.core.policy.authenticated.idle_timeout == 5 * MINUTE

    @pytest.mark.parametrize(
        ("key", "text"),
        [
            ("SOJOURN_TIEMOUT", "^there is no option 'SOJOURN_TIEMOUT'.* 'SOJOURN_TIMEOUT'"),
            ("SOJOURN_COOKIE_AGE", "^SOJOURN_COOKIE_AGE is called SOJOURN_TIMEOUT here"),
            ("SOJOURN_HTTPONLY", "^SOJOURN_HTTPONLY is no option here: .* always HttpOnly"),
        ],
    )
    def test_a_key_that_is_not_an_option_is_named_in_the_error(self, key, text):
        with pytest.raises(ConfigurationError, match=text):
            options_from_mapping({key: 1})

    def test_the_mapping_is_only_searched_for_known_names(self):
        mapping = {"SOJOURN_REALM": "shop", "SOJOURN_TIMEOUT": 5, "SOJOURN_DEMO": "1"}
        assert options_from_mapping(mapping, names=["realm", "path"]) == {"realm": "shop"}

    def test_only_the_documented_environment_variables_are_read(self):
        """Others belong to other programs, such as ``SOJOURN_DEMO``."""
        environment = {"SOJOURN_REALM": "a", "SOJOURN_DEMO": "1", "SOJOURN_STORE": "memory://"}
        assert build_config({}, environment).realm == "default"
        assert {name for name, option in OPTIONS.items() if option.env} == {
            "store",
            "secret",
            "history",
        }


def test_every_option_is_defined_once():
    """The names of `Options`, and `state`, which is a separate parameter."""
    assert (
        set(OPTIONS) == set(Options.__annotations__) | {"state"} == set(AllOptions.__annotations__)
    )
    assert get_args(Preset) == tuple(PRESETS)


def test_reprs_contain_no_secret():
    """A18."""
    found = config(secret=[SECRET, OTHER], environment={})
    shown = repr(found) + str(found)
    assert SECRET not in shown
    assert OTHER not in shown
    assert "secrets" in {field.name for field in fields(found)}
    assert re.search("SECRET|secret", shown) is None


def test_options_of_the_core_are_passed_to_the_engine_as_one_object():
    """No module copies them one by one, so a new option is added in three files."""
    sessions = Sessions(store="memory://", max_bytes=1234)
    assert sessions.engine.context.config is sessions.config.core
    assert sessions.config.core.max_bytes == 1234
