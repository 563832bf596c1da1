"""Text of the output: nothing in it controls the terminal."""

import unicodedata

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.cli.arguments import Instant, Label, SessionID, User
from sojourn.cli.exit_codes import ExitCode, failure_of
from sojourn.cli.formatting import format_bytes, format_labels, format_number, one_line, printable
from sojourn.errors import ConfigurationError, RevocationIncomplete, StoreUnavailable


@given(st.text(alphabet=st.characters(codec=None)))
def test_no_control_or_direction_character_is_shown(text):
    """C0, C1, bidirectional overrides, line and paragraph separators, lone surrogates."""
    shown = printable(text)
    assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    shown.encode()


@given(st.text(alphabet="ab\\\n\x1bxnu0"), st.text(alphabet="ab\\\n\x1bxnu0"))
def test_different_texts_look_different(one, other):
    assert (printable(one) == printable(other)) == (one == other)


def test_an_error_is_one_line():
    error = failure_of(ConfigurationError("expected\n\n    a secret\x1b[2J"))
    assert error.message == r"expected a secret\x1b[2J"
    assert one_line(r"a path C:\data") == r"a path C:\data"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("x"), ExitCode.USAGE),
        (StoreUnavailable("x"), ExitCode.STORE_UNAVAILABLE),
        (RevocationIncomplete([], None, cutoff_set=False), ExitCode.REVOCATION_INCOMPLETE),
    ],
)
def test_each_error_has_its_exit_code(error, code):
    assert failure_of(error).exit_code == code


def test_numbers_and_labels():
    assert format_number(1234567, estimated=True) == "~1,234,567"
    assert [format_bytes(each) for each in (0, 1023, 1024, 5 * 2**30, 2**50)] == [
        "0 bytes", "1,023 bytes", "1.0 KiB", "5.0 GiB", "1,024.0 TiB",
    ]  # fmt: skip
    assert format_labels({"b": "x\n", "a": "y"}) == r"a=y b=x\n"


def test_arguments():
    assert SessionID().convert("AB" * 16, None, None) == "ab" * 16
    assert Label().convert("a=b=c", None, None) == ("a", "b=c")
    assert Instant().convert("2027-01-31", None, None).isoformat() == "2027-01-31T00:00:00+00:00"
    assert Instant().convert("2 hours", None, None).tzinfo is not None
    for kind, wrong in [
        (SessionID(), "xyz"), (Label(), "a"), (Label(), "=a"), (User(), ""), (User(), "x" * 256),
        (Instant(), "yesterday"), (Instant(), "0 seconds"),
    ]:  # fmt: skip
        with pytest.raises(click.BadParameter) as caught:
            kind.convert(wrong, None, None)
        assert "xyz" not in str(caught.value)
