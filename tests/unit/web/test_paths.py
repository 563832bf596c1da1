"""Path patterns: which paths have a session."""

import pytest

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
