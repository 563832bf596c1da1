"""Options as text: each option of ``sojourn.config`` can be written in a settings file."""

import pytest

from sojourn.config import OPTIONS
from sojourn.errors import ConfigurationError
from sojourn.frameworks.text_options import options_from_settings


class State:
    """Named by the option ``state``."""


def function():
    """Named by options that are functions."""


def read(name, text):
    """Return the value of an option that is given as text."""
    return options_from_settings({f"sojourn.{name}": text}, "sojourn.")[name]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("store", "redis://cache:6379/0", "redis://cache:6379/0"),
        ("store", "memory://", "memory://"),
        ("store", f"{__name__}.State", State),
        ("secret", "one secret, another", ["one secret", "another"]),
        ("secret", "one\n  two", ["one", "two"]),
        ("secure", "auto", "auto"),
        ("secure", "False", False),
        ("same_site", "Strict", "Strict"),
        ("path", "/shop", "/shop"),
        ("persistent", "on", True),
        ("timeout", "20 minutes", "20 minutes"),
        ("timeout", "1200", 1200),
        ("absolute_timeout", "None", None),
        ("preset", "aal2", "aal2"),
        ("max_sessions", "3", 3),
        ("max_bytes", "1000", 1000),
        ("encrypt", "ticket", "ticket"),
        ("encrypt", "yes", True),
        ("merge", "a = sum\n\n b=dict of sum ", {"a": "sum", "b": "dict of sum"}),
        ("on_invalid_state", "default", "default"),
        ("on_invalid_state", f"{__name__}.function", function),
        ("upgrade", f"{__name__}:function", function),
        ("on_store_failure", "anonymous", "anonymous"),
        ("on_store_failure", "/ /news/*", ["/", "/news/*"]),
        ("on_error", f"{__name__}.function", function),
        ("allowed_origins", "https://a.b\nhttps://c.d", ["https://a.b", "https://c.d"]),
        ("clear_site_data", "cache storage", ["cache", "storage"]),
        ("audit", "/var/log/sessions.jsonl", "/var/log/sessions.jsonl"),
        ("audit", "sessions.jsonl", "sessions.jsonl"),
        ("audit", f"{__name__}:function", function),
        ("include", "/account/*", ["/account/*"]),
        ("autoload", "no", False),
        ("state", f"{__name__}.State", State),
        ("close_code", "4000", 4000),
    ],
)
def test_text_is_converted(name, text, value):
    found = read(name, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_option_can_be_text(name):
    """Its default, written as text, passes the rule of the option."""
    option = OPTIONS[name]
    if isinstance(option.default, str):
        expected = option.rule(option.default, name)
        assert option.rule(read(name, option.default), name) == expected
    elif isinstance(option.default, bool):
        assert option.rule(read(name, str(option.default)), name) is option.default
    elif isinstance(option.default, int):
        assert option.rule(read(name, str(option.default)), name) == option.default


def test_other_values_are_kept():
    settings = {"sojourn.on_error": function, "sojourn.exclude": ("/a",), "pyramid.includes": "x"}
    expected = {"on_error": function, "exclude": ("/a",)}
    assert options_from_settings(settings, "sojourn.") == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("partitioned", "maybe", r"sojourn\.partitioned expects true or false, found 'maybe'"),
        ("secure", "maybe", "true or false, auto"),
        ("merge", "counter sum", "counter = sum"),
        ("on_error", "no.such.thing", r"sojourn\.on_error expects the dotted name"),
        ("timeot", "1", r"'sojourn\.timeout'"),
    ],
)
def test_a_wrong_text_is_refused(name, text, message):
    with pytest.raises(ConfigurationError, match=message):
        read(name, text)
