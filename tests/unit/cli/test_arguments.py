"""Arguments of the command line: text, users, numbers."""

import os

import click
import pytest

from sojourn.cli.arguments import FiniteRange, Label, Text, User


@pytest.mark.parametrize("convert", [Text().convert, Label().convert, User().convert])
def test_other_bytes_than_utf_8_are_refused(convert):
    with pytest.raises(click.BadParameter, match="expected text in UTF-8, found other bytes"):
        convert(os.fsdecode(b"a=\xff"), None, None)


def test_utf_8_is_decoded_in_the_locale_c():
    """There Python decodes ASCII alone and keeps the other bytes as surrogates."""
    given = "Zoë 東京".encode().decode("ascii", "surrogateescape")
    assert Text().convert(given, None, None) == "Zoë 東京"
    assert Label().convert(f"name={given}", None, None) == ("name", "Zoë 東京")


@pytest.mark.parametrize("user", ["", "x" * 256])
def test_a_user_has_1_to_255_characters(user):
    with pytest.raises(click.BadParameter, match=f"1 to 255 characters, found {len(user)}"):
        User().convert(user, None, None)
    assert User().convert("x" * 255, None, None) == "x" * 255


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_a_number_is_finite(text):
    with pytest.raises(click.BadParameter, match="expected a finite number"):
        FiniteRange().convert(text, None, None)
    assert FiniteRange(min=0.1).convert("2", None, None) == 2.0
