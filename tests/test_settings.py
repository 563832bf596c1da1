"""Options: every wrong one is refused when the application is built, by name, with a remedy.

Read next: ``test_sessions.py``.
"""

import re
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Annotated

import pytest

from sojourn import Merge, Sessions
from sojourn.errors import ConfigurationError
from sojourn.settings import DEFAULT_STORE, DEFAULTS, Options, resolve
from sojourn.stores.memory import MemoryStore

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"
OTHER = "b7Rk1mXq9ZtVw4Ys8LpCn3HdJf6GaUe2"


@dataclass
class Shop:
    counter: Annotated[int, Merge.SUM] = 0


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
    "absolute_timeout": [("x", "absolute_timeout expects"), ("5 minutes", "must not be shorter")],
    "touch_interval": [("1 hour", "must be shorter"), (-1, "touch_interval expects")],
    "unconfirmed_timeout": [(0, "unconfirmed_timeout expects")],
    "merge": [
        (None, "a dict from key to rule"), ({"a": "sums"}, "one of last, sum, dict, union, append"),
        ({"a": "edit"}, "one of"), ({1: "sum"}, "strings"), ({"a": []}, "one of"),
        (["a"], "a dict"),
    ],
    "max_bytes": [(0, "above zero"), (True, "above zero"), ("64 KiB", "above"), (1.5, "above")],
    "store_timeout": [(0, "store_timeout expects"), ("x", "store_timeout expects")],
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
        assert settings.policy.idle_timeout == 30 * 60_000
        assert settings.policy.absolute_timeout == 12 * 3_600_000
        assert settings.max_bytes == 64 * 1024
        assert settings.realm == "default"
        assert settings.secrets is None
        assert settings.rules.autoload
        assert not settings.rules.save_on_error
        assert settings.rules.allowed_origins == frozenset()
        assert (settings.merges, settings.check_labels, settings.clock) == ({}, (), None)
        assert DEFAULT_STORE == "sqlite:///.sojourn/sessions.db"

    @pytest.mark.parametrize("name", ["timeout", "idle_timeout"])
    def test_the_timeout_has_two_names(self, name):
        assert settle(**{name: timedelta(minutes=5)}).policy.idle_timeout == 300_000

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
