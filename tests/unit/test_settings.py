"""Options: every wrong one is refused when the application is built, by name, with a remedy.

Read next: ``test_sessions.py``.
"""

import re
from dataclasses import dataclass, fields
from datetime import timedelta
from io import StringIO
from typing import Annotated

import pytest

from sojourn import CallbackStore, Created, Merge, Sessions
from sojourn._core.policy import Limits
from sojourn.errors import ConfigurationError
from sojourn.settings import DEFAULT_STORE, DEFAULTS, Options, resolve
from sojourn.store import LimitPolicy, SessionLimit
from sojourn.stores.memory import MemoryStore
from sojourn.web.transport import Transport

HOUR, DAY = 3_600, 86_400
SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"
OTHER = "b7Rk1mXq9ZtVw4Ys8LpCn3HdJf6GaUe2"


@dataclass
class Shop:
    counter: Annotated[int, Merge.SUM] = 0


async def coroutine(line):
    """Write a line later: too late for an audit."""


def settle(*, state=None, environment=(), **options):
    return resolve({"store": "memory://", **options}, state, dict(environment))


BAD = {
    "store": [
        ("", "expects a URL"), ("sessions.db", "expects a URL"), (5, "expects a URL or an object"),
        ("sqllite:///x", "Did you mean 'sqlite'?"), ("memory:", "expects a URL"),
        (MemoryStore, "expects a URL or an object"), ("memory://?limit=0", "limit of 1 or more"),
        ("memory://?limit=x", "expects int"), ("memory://?limt=5", "Did you mean 'limit'?"),
        ("memory://host", "no host and no path"), ("redis://[::1", "wrong: Invalid IPv6 URL"),
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
        ("x", "^absolute_timeout expects"), ("5 minutes", "must not be shorter"),
        (0, "^absolute_timeout expects"), ("unset", "^absolute_timeout expects"),
    ],
    "anonymous_timeout": [
        ("x", "^anonymous_timeout expects"), (None, "^anonymous_timeout expects"),
        (-1, "^anonymous_timeout expects"), ("13 hours", "^anonymous_absolute_timeout .* shorter"),
    ],
    "anonymous_absolute_timeout": [
        (True, "^anonymous_absolute_timeout expects"),
        ("5 minutes", "must not be shorter than anonymous_timeout .1800000 ms."),
    ],
    "remember_timeout": [
        ([], "^remember_timeout expects"), (None, "^remember_timeout expects"),
        ("31 days", r"^remember_absolute_timeout .2592000000 ms. must not be shorter"),
    ],
    "remember_absolute_timeout": [
        ("x", "^remember_absolute_timeout expects"),
        ("13 days", "must not be shorter than remember_timeout .1209600000 ms."),
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
    "merge": [
        (None, "a dict from key to rule"), ({"a": "sums"}, "one of last, sum, dict, union, append"),
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
    def test_is_refused_by_name_with_a_remedy(self, option, value, text):
        with pytest.raises(ConfigurationError, match=text):
            settle(**{option: value})

    def test_every_option_has_a_bad_value_here(self):
        assert set(BAD) == set(DEFAULTS) == set(Options.__annotations__)

    @pytest.mark.parametrize(
        ("name", "meant"),
        [("tiemout", "timeout"), ("secrets", "secret"), ("samesite", "same_site"), ("zzz", None)],
    )
    def test_an_unknown_one_gets_a_suggestion(self, name, meant):
        with pytest.raises(ConfigurationError) as caught:
            settle(**{name: 1})
        text = str(caught.value)
        assert f"there is no option {name!r}" in text
        assert (f"Did you mean {meant!r}?" in text) if meant else ("known are store" in text)

    def test_two_names_of_one_option(self):
        with pytest.raises(ConfigurationError, match="two names of one option"):
            settle(timeout=5, idle_timeout=5)

    @pytest.mark.parametrize(
        "options",
        [
            {"cookie": "__Host-sid", "domain": "example.com"},
            {"cookie": "__Host-sid", "path": "/x"},
            {"same_site": "none", "secure": False},
            {"partitioned": True, "secure": False},
        ],
    )
    def test_what_a_browser_would_reject(self, options):
        """ASVS 3.3.3, RFC 6265bis."""
        with pytest.raises(ConfigurationError):
            settle(**options)

    def test_a_state_that_is_no_class(self):
        with pytest.raises(ConfigurationError, match=r"a dataclass or a msgspec\.Struct"):
            settle(state=dict)

    @pytest.mark.parametrize("option", sorted(set(BAD) - {"store"}))
    def test_a_wrong_one_makes_no_file(self, option, tmp_path):
        """The store comes last, because it may make files and threads."""
        with pytest.raises(ConfigurationError):
            Sessions(store=f"sqlite:///{tmp_path}/s.db", **{option: BAD[option][0][0]})
        assert list(tmp_path.iterdir()) == []


class TestGoodOptions:
    def test_defaults_are_the_documented_ones(self):
        """api.md."""
        settings = settle()
        minute, hour, day = 60_000, 3_600_000, 86_400_000
        assert settings.policy.ordinary == Limits(30 * minute, 12 * hour)
        assert settings.policy.anonymous == settings.policy.ordinary
        assert settings.policy.remembered == Limits(14 * day, 30 * day)
        assert settings.policy.touch_interval == minute
        assert settings.policy.unconfirmed_timeout is settings.policy.rotate_interval is None
        assert settings.max_bytes == 64 * 1024
        assert settings.realm == "default"
        assert settings.secrets is None
        assert settings.rules.autoload
        assert not settings.rules.save_on_error
        assert not settings.rules.protect
        assert settings.rules.passive is None
        assert settings.rules.clear_site_data.header(Transport.SECURE) is None
        assert settings.rules.allowed_origins == frozenset()
        assert (settings.limit, settings.encrypt, settings.audit) == (None, False, None)
        assert settings.revoke_reused
        assert (settings.merges, settings.check_labels, settings.clock) == ({}, (), None)
        assert DEFAULT_STORE == "sqlite:///.sojourn/sessions.db"

    @pytest.mark.parametrize("name", ["timeout", "idle_timeout"])
    def test_the_timeout_has_two_names(self, name):
        assert settle(**{name: timedelta(minutes=5)}).policy.ordinary.idle_timeout == 300_000

    @pytest.mark.parametrize(
        ("options", "anonymous", "ordinary", "remembered"),
        [
            # What is not said of visitors who have not logged in follows from what is.
            ({"timeout": 60, "absolute_timeout": 600}, (60, 600), (60, 600), (14 * DAY, 30 * DAY)),
            ({"anonymous_timeout": 60}, (60, 12 * HOUR), (1_800, 12 * HOUR), (14 * DAY, 30 * DAY)),
            ({"anonymous_absolute_timeout": "1 hour", "remember_timeout": "2 days"},
             (1_800, HOUR), (1_800, 12 * HOUR), (2 * DAY, 30 * DAY)),
            ({"remember_timeout": "20d", "remember_absolute_timeout": "60d"},
             (1_800, 12 * HOUR), (1_800, 12 * HOUR), (20 * DAY, 60 * DAY)),
            ({"absolute_timeout": None}, (1_800, None), (1_800, None), (14 * DAY, None)),
            ({"anonymous_absolute_timeout": None, "remember_absolute_timeout": None},
             (1_800, None), (1_800, 12 * HOUR), (14 * DAY, None)),
            # Being remembered never shortens a session.
            ({"timeout": "20d", "absolute_timeout": "50d"},
             (20 * DAY, 50 * DAY), (20 * DAY, 50 * DAY), (20 * DAY, 50 * DAY)),
            ({"preset": "aal1"}, (30 * DAY, 30 * DAY), (30 * DAY, 30 * DAY), (30 * DAY, 30 * DAY)),
            ({"preset": "aal2"}, (HOUR, DAY), (HOUR, DAY), (HOUR, DAY)),
            ({"preset": "aal3"}, (900, 12 * HOUR), (900, 12 * HOUR), (900, 12 * HOUR)),
            ({"preset": "aal2", "timeout": "5m", "remember_absolute_timeout": "12h"},
             (300, DAY), (300, DAY), (HOUR, 12 * HOUR)),
        ],
    )  # fmt: skip
    def test_each_kind_of_session_has_its_limits(self, options, anonymous, ordinary, remembered):
        """ASVS 7.1.1, 7.3.1, 7.3.2; NIST SESS-14, REAUTH-02."""
        policy = settle(**options).policy
        for found, wanted in [
            (policy.anonymous, anonymous),
            (policy.ordinary, ordinary),
            (policy.remembered, remembered),
        ]:
            idle, absolute = wanted
            assert found == Limits(idle * 1_000, absolute and absolute * 1_000)

    @pytest.mark.parametrize(
        "options",
        [
            {"preset": "aal2", "timeout": "61 minutes"},
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
            settle(**options)

    def test_rotation_is_as_asked_for(self):
        assert settle(rotate_interval="15 minutes").policy.rotate_interval == 900_000
        assert settle(rotate_interval=None).policy.rotate_interval is None
        assert not settle(on_reuse="ignore").revoke_reused

    @pytest.mark.parametrize("on_limit", ["evict_oldest", "evict_idlest", "refuse"])
    def test_a_number_of_sessions(self, on_limit):
        assert settle(max_sessions=3, on_limit=on_limit).limit == SessionLimit(
            3, LimitPolicy(on_limit)
        )
        assert settle(max_sessions=None, on_limit=on_limit).limit is None

    def test_a_number_of_sessions_needs_lists(self):
        """The error names what can be done, and no limit is silently left out."""
        store = CallbackStore()
        with pytest.raises(
            ConfigurationError, match=r"max_sessions needs a store that keeps lists"
        ):
            settle(store=store, max_sessions=3)
        assert settle(store=store).limit is None

    @pytest.mark.parametrize("encrypt", [False, True, "ticket"])
    def test_encryption_is_as_asked_for(self, encrypt):
        assert settle(encrypt=encrypt).encrypt == encrypt

    def test_protection_and_every_origin_contradict_each_other(self):
        """B-60."""
        with pytest.raises(ConfigurationError, match=r"protect=True refuses"):
            settle(protect=True, allowed_origins="*")
        assert settle(protect=True, allowed_origins=["https://a.example"]).rules.protect

    def test_directives_are_those_of_the_header(self):
        """ASVS 14.3.1."""
        clearing = settle(clear_site_data=["cache", "storage"]).rules.clear_site_data
        assert clearing.header(Transport.SECURE) == b'"cache", "storage"'

    def test_passive_paths_are_patterns(self):
        passive = settle(passive=["/poll", "/live/*"]).rules.passive
        assert passive.match("/poll")
        assert passive.match("/live/orders")
        assert not passive.match("/poll/x")

    def test_an_audit_has_the_clock_of_the_installation(self):
        lines = []
        settle(audit=lines.append, clock=lambda: 7).audit.write(Created("0f" * 16))
        assert lines == [
            f'{{"time":"1970-01-01T00:00:00.007Z","event":"Created","session":"{"0f" * 16}"}}'
        ]

    def test_merges_of_the_state_and_of_the_option_come_together(self):
        settings = settle(state=Shop, merge={"a": "sum", "b": Merge.DICT})
        assert settings.merges == {"counter": Merge.SUM, "a": Merge.SUM, "b": Merge.DICT}

    def test_the_option_overrules_the_state(self):
        assert settle(state=Shop, merge={"counter": "last"}).merges == {"counter": Merge.LAST}

    @pytest.mark.parametrize(
        "origins", ["https://a.example", ["https://a.example"], {"https://a.example"}]
    )
    def test_origins_may_be_one_or_several(self, origins):
        assert settle(allowed_origins=origins).rules.allowed_origins == {"https://a.example"}

    @pytest.mark.parametrize("realm", ["a", "shop-2", "A_b", "x" * 32])
    def test_realms(self, realm):
        assert settle(realm=realm).realm == realm

    def test_a_store_object_is_taken_although_it_is_empty(self):
        """One that tells its length must not count as none."""

        class Sized(MemoryStore):
            def __len__(self):
                return 0

        store = Sized()
        assert settle(store=store).store is store


class TestEnvironment:
    def test_comes_after_keywords_and_before_defaults(self):
        """api.md."""
        environment = {"SOJOURN_STORE": "memory://?limit=7", "SOJOURN_SECRET": SECRET}
        from_environment = resolve({}, None, environment)
        assert "of 7 records" in repr(from_environment.store)
        assert from_environment.secrets == (SECRET.encode(),)
        given = resolve({"store": "memory://", "secret": OTHER}, None, environment)
        assert "of 7" not in repr(given.store)
        assert given.secrets == (OTHER.encode(),)

    def test_several_secrets_are_separated_by_commas(self):
        settings = settle(environment={"SOJOURN_SECRET": f" {SECRET}, {OTHER},\n"})
        assert settings.secrets == (SECRET.encode(), OTHER.encode())

    def test_a_secret_may_have_spaces_inside(self):
        phrase = "eleven grey herons read the tide table"
        assert settle(environment={"SOJOURN_SECRET": phrase}).secrets == (phrase.encode(),)

    def test_an_empty_one_is_none(self):
        assert settle(environment={"SOJOURN_SECRET": ""}).secrets is None

    def test_a_bad_one_is_named(self):
        with pytest.raises(ConfigurationError, match=r"^SOJOURN_SECRET has 3 bytes"):
            settle(environment={"SOJOURN_SECRET": "N84"})
        with pytest.raises(ConfigurationError, match=r"^SOJOURN_SECRET is an empty list"):
            settle(environment={"SOJOURN_SECRET": "  "})


def test_nothing_shows_a_secret():
    """A18."""
    settings = settle(secret=[SECRET, OTHER], environment={})
    shown = repr(settings) + str(settings)
    assert SECRET not in shown
    assert OTHER not in shown
    assert "secrets" in {field.name for field in fields(settings)}
    assert re.search("SECRET|secret", shown) is None
