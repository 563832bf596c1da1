"""Path patterns: which paths have a session."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.errors import ConfigurationError
from sojourn.web.paths import Patterns


@pytest.mark.parametrize(
    ("include", "exclude", "inside", "outside"),
    [
        ([], [], ["/", "/a/b", "", "*", "/é"], []),
        (["/account/*"], [], ["/account/", "/account/a/b"], ["/account", "/", "/x/account/a"]),
        (["/account*"], [], ["/account", "/account/a", "/accounts"], ["/", "/Account"]),
        (["/"], [], ["/"], ["/a", ""]),
        (["*.html"], [], ["/a.html", "/a/b.html"], ["/a.htm", "/axhtml"]),
        (["/a", "/b/*"], [], ["/a", "/b/c"], ["/b", "/a/", "/ab"]),
        (["/a*c*e"], [], ["/ace", "/abcde", "/a/c/e"], ["/ac", "/aec"]),
        ([], ["/static/*"], ["/", "/static"], ["/static/", "/static/a"]),
        (["/a/*"], ["/a/health"], ["/a/b"], ["/a/health", "/b"]),
        (["*"], ["*"], [], ["/", "/a"]),
        (["/a.b+(c)[d]"], [], ["/a.b+(c)[d]"], ["/axb+(c)[d]", "/a.bb(c)[d]"]),
        (["/a|/b"], [], ["/a|/b"], ["/a", "/b"]),
        (["/a/*"], [], ["/a/x\ny"], ["/a\n"]),
    ],
)
def test_star_matches_any_text_and_other_characters_match_themselves(
    include, exclude, inside, outside
):
    patterns = Patterns(include, exclude)
    assert [path for path in inside if not patterns.match(path)] == []
    assert [path for path in outside if patterns.match(path)] == []


@given(st.text("ab/*", max_size=6).map("/".__add__), st.text("ab/\n", max_size=9).map("/".__add__))
def test_matches_are_those_of_a_simple_model(pattern, path):
    def matches(pattern, path):
        if not pattern.startswith("*"):
            return pattern[:1] == path[:1] and (not pattern or matches(pattern[1:], path[1:]))
        return any(matches(pattern[1:], path[start:]) for start in range(len(path) + 1))

    assert Patterns([pattern], []).match(path) is matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/*/account/*/edit", "/account" * 8_000),
        ("/api/*/users/*/avatar/*/x", "/api" + "/users/avatar" * 5_000),
        ("*/a*/b*/c*/d", "/a/b/c" * 10_000),
        ("/*-*-*-*-x", "/" + "-" * 64_000),
    ],
)
@pytest.mark.timeout(20)
def test_a_long_path_costs_milliseconds(pattern, path):
    """B-57: backtracking took hours; the path comes from the client."""
    started = time.process_time()
    assert not Patterns([pattern], []).match(path)
    assert time.process_time() - started < 0.5


def test_no_pattern_is_matched_if_every_path_has_a_session():
    assert Patterns([], []).everything
    assert not Patterns(["*"], []).everything
    assert not Patterns([], ["/x"]).everything


@pytest.mark.parametrize("option", ["include", "exclude"])
@pytest.mark.parametrize("pattern", ["", "account", "account/*", " /a", "https://x/"])
def test_pattern_that_no_path_can_match_is_refused(option, pattern):
    given = {"include": [], "exclude": [], option: ["/good", pattern]}
    with pytest.raises(ConfigurationError, match=f"^{option} expects paths") as caught:
        Patterns(**given)
    assert repr(pattern) in str(caught.value)
    assert "begin it with '/'" in str(caught.value)
