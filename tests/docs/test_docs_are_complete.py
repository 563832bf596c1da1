"""The tables of the documentation and the code name the same things, in both directions."""

import inspect
import re
from pathlib import Path

import pytest

import sojourn
from sojourn import errors, events
from sojourn._core.durations import milliseconds
from sojourn._core.policy import PRESETS, Limits
from sojourn.config import OPTIONS
from sojourn.sessions import Usage
from tools import options_table

DOCS = Path(__file__).parent.parent.parent / "docs"
OPTIONS_PAGE = (DOCS / "options.md").read_text("utf-8")
SESSION = (DOCS / "session.md").read_text("utf-8")
USERS = (DOCS / "users.md").read_text("utf-8")


def table(text: str, header: str, heading: str = "") -> list[list[str]]:
    """Return the rows of the first table with this header after a heading, as lists of cells."""
    text = text.partition(heading)[2] if heading else text
    lines = text.partition(f"| {header} |")[2].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    assert rows, f"there is no table {header!r}"
    return rows


def names(cells: list[str]) -> set[str]:
    return {name for cell in cells for name in re.findall(r"`(?:session\.)?(\w+)[(`]", cell)}


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def test_the_table_of_options_matches_the_code():
    """Write it again with ``python -m tools.options_table``."""
    assert options_table.page(OPTIONS_PAGE) == OPTIONS_PAGE


def test_every_option_is_documented_and_exists():
    rows = table(OPTIONS_PAGE, "option")
    assert [row[0] for row in rows] == [f"`{name}`" for name in OPTIONS]
    assert all(row[2].endswith(".") for row in rows)


def test_option_without_a_description_is_found():
    """Editors and the page show the description."""
    source = "class Options:\n    a: int\n    b: str\n    'Text of b.'\n"
    assert options_table.texts(source) == {"b": "Text of b."}
    with pytest.raises(KeyError):
        options_table.table({"a": OPTIONS["path"]}, options_table.texts(source))


@pytest.mark.parametrize(
    ("option", "default"),
    [
        (row[0].strip("`"), row[1].strip("`"))
        for row in table(OPTIONS_PAGE, "option")
        if row[1].startswith("`")
    ],
)
def test_the_default_of_an_option_is_the_documented_one(option, default):
    if option == "cookie":
        assert sojourn.Sessions(store="memory://").config.web.cookie.over_https().name in default
    else:
        assert eval(default) == OPTIONS[option].default  # noqa: S307 - our own table


def test_the_documented_durations_are_the_defaults():
    policy = sojourn.Sessions(store="memory://").engine.policy
    rows = {row[0].strip("`"): row[1] for row in table(OPTIONS_PAGE, "option")}
    assert rows["timeout"] == "30 minutes"
    assert rows["idle_timeout"] == "as `timeout`"
    assert rows["absolute_timeout"] == "12 hours"
    assert policy.authenticated == Limits(30 * 60_000, 12 * 3_600_000)
    assert rows["anonymous_timeout"] == "as `timeout`"
    assert rows["anonymous_absolute_timeout"] == "as `absolute_timeout`"
    assert policy.anonymous == policy.authenticated
    assert rows["remember_timeout"] == "14 days"
    assert rows["remember_absolute_timeout"] == "30 days"
    assert policy.remembered == Limits(14 * 86_400_000, 30 * 86_400_000)
    assert rows["max_bytes"] == f"{OPTIONS['max_bytes'].default:,}"
    assert rows["store_timeout"] == OPTIONS["store_timeout"].default


def test_documented_timeouts_of_the_presets_are_correct():
    """NIST SESS-14, REAUTH-02."""
    documented = {
        row[0].strip('`"'): Limits(*(milliseconds(cell, option="docs") for cell in row[1:3]))
        for row in table(USERS, "`preset`")
    }
    assert documented == PRESETS


def test_usage_names_every_counter():
    (row,) = (row for row in table(OPTIONS_PAGE, "member", "## Sessions") if row[0] == "`usage()`")
    named = row[1].partition(": ")[2].split(", ")
    assert named == list(Usage.__dataclass_fields__)


def test_every_member_of_session_is_documented_and_exists():
    documented = names([row[0] for row in table(SESSION, "member")])
    assert documented - {"session", "in", "len"} == public(sojourn.Session)


def test_every_member_of_sessions_is_documented_and_exists():
    documented = names([row[0] for row in table(OPTIONS_PAGE, "member", "## Sessions")])
    assert documented == public(sojourn.Sessions)


def test_every_method_that_calls_the_store_has_an_async_twin():
    for cls in (sojourn.Sessions, sojourn.Session):
        for name in public(cls):
            function = inspect.getattr_static(cls, name)
            if inspect.iscoroutinefunction(function):
                assert name.startswith("a")
                twin = inspect.getattr_static(cls, name[1:])
                assert inspect.signature(twin).parameters == inspect.signature(function).parameters


def test_every_event_is_documented_with_its_fields_and_exists():
    rows = table(OPTIONS_PAGE, "event")
    assert names([row[0] for row in rows]) == {kind.__name__ for kind in events.KINDS}
    for row in rows:
        fields = set(getattr(events, row[0].strip("`")).__struct_fields__) - {"session_id"}
        assert names([row[2]]) == fields, row[0]


def test_every_error_is_documented_and_exists():
    documented = names([row[0] for row in table(OPTIONS_PAGE, "error")])
    existing = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert documented == existing - {"SojournError"}
