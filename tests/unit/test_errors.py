"""Each error states what was expected, what was found and what to do, and has attributes."""

import copy
import inspect
import pickle

import pytest

from sojourn import errors
from sojourn.errors import (
    CommitOutcomeUnknown,
    ConfigurationError,
    ExclusiveTimeout,
    InsecureTransport,
    InvalidState,
    LimitReached,
    LoginRequired,
    NotSerializable,
    RecentAuthRequired,
    ResponseStarted,
    RevocationIncomplete,
    SessionConflict,
    SessionError,
    SessionGone,
    SessionRequired,
    SessionTooLarge,
    SojournError,
    StoreError,
    StoreUnavailable,
)

ID = "0f" * 16
TREE = {
    ConfigurationError: SojournError,
    SessionError: SojournError,
    NotSerializable: SessionError,
    InvalidState: SessionError,
    SessionTooLarge: SessionError,
    SessionGone: SessionError,
    SessionConflict: SessionError,
    CommitOutcomeUnknown: SessionConflict,
    ExclusiveTimeout: SessionError,
    RecentAuthRequired: SessionError,
    LimitReached: SessionError,
    SessionRequired: SessionError,
    LoginRequired: SessionRequired,
    ResponseStarted: SessionError,
    StoreError: SojournError,
    StoreUnavailable: StoreError,
    RevocationIncomplete: StoreUnavailable,
    InsecureTransport: SojournError,
}


@pytest.mark.parametrize(("error", "parent"), TREE.items())
def test_the_base_classes_are_the_documented_ones(error, parent):
    assert parent in error.__bases__
    assert issubclass(error, SojournError)


def test_every_error_class_is_tested():
    found = {
        x
        for x in vars(errors).values()
        if inspect.isclass(x) and issubclass(x, Exception) and x.__module__ == errors.__name__
    }
    assert found == {SojournError, *TREE}


@pytest.mark.parametrize(
    ("error", "attributes", "parts"),
    [
        (
            NotSerializable("cart", "['a'][3]", object),
            {"key": "cart", "path": "['a'][3]", "type": object},
            [
                "session['cart']['a'][3]",
                "a value of type object",
                "Convert the value first",
                "state=",
            ],
        ),
        (
            NotSerializable("cart", "", str, "text with a lone surrogate"),
            {"path": ""},
            ["session['cart'] cannot hold text with a lone surrogate"],
        ),
        (
            InvalidState("counter", str, "Expected `int`, got `str`"),
            {"field": "counter", "found": str},
            ["session.state.counter", "Expected `int`", "found str"],
        ),
        (
            SessionTooLarge(70_000, 65_536, [("big", 60_000), ("b", 2)]),
            {"size": 70_000, "limit": 65_536, "largest": (("big", 60_000), ("b", 2))},
            [
                "70000 bytes",
                "max_bytes=65536",
                "nothing was written",
                "'big' (60000 bytes)",
                "raise",
            ],
        ),
        (SessionGone(ID), {"session_id": ID}, [ID, "has ended", "nothing was written", "Stop"]),
        (
            SessionConflict(ID, 100),
            {"session_id": ID, "attempts": 100},
            [ID, "100 times", "nothing was written", "Try again"],
        ),
        (SessionConflict(ID, 0, "the lease ran out"), {"attempts": 0}, ["the lease ran out"]),
        (
            CommitOutcomeUnknown(ID, ["cart", "n"]),
            {"keys": ("cart", "n"), "session_id": ID},
            [ID, "'cart', 'n'", "it is unknown", "session.refresh()"],
        ),
        (
            ExclusiveTimeout(ID, 1.5),
            {"session_id": ID, "waited": 1.5},
            [ID, "1.5 seconds", "Try again", "wait=..."],
        ),
        (
            RevocationIncomplete([ID], [ID, ID], cutoff_set=True),
            {"revoked": (ID,), "remaining": (ID, ID), "cutoff_set": True},
            ["1 sessions were revoked, 2 sessions may be valid", "are rejected", "Revoke again"],
        ),
        (
            RevocationIncomplete([], None, cutoff_set=False),
            {"revoked": (), "remaining": None, "cutoff_set": False},
            ["an unknown number of sessions may be valid", "in progress may succeed"],
        ),
        (
            RecentAuthRequired(700.4, 600.0),
            {"age": 700.4, "limit": 600.0, "missing": ()},
            ["a login within 600 seconds", "found one 700 seconds ago", "log in again"],
        ),
        (
            RecentAuthRequired(5.0, 600.0, ["totp", "passkey"]),
            {"age": 5.0, "missing": ("totp", "passkey")},
            ["within 600 seconds, and by totp, passkey", "found one 5 seconds ago"],
        ),
        (
            RecentAuthRequired(None, 600.0),
            {"age": None, "limit": 600.0, "missing": ()},
            ["found none that counts", "call session.login()"],
        ),
        (
            LimitReached(3),
            {"limit": 3},
            ["fewer than 3 sessions", "the login was refused", "end one of them first"],
        ),
        (ResponseStarted(), {}, ["after the response", "before the first byte", "accept()"]),
    ],
)
def test_an_error_has_the_documented_attributes_and_text(error, attributes, parts):
    for name, value in attributes.items():
        assert getattr(error, name) == value
    for part in parts:
        assert part in str(error)


@pytest.mark.parametrize(
    "error",
    [
        NotSerializable("cart", "['a'][3]", object),
        InvalidState("counter", str, "Expected `int`, got `str`"),
        SessionTooLarge(70_000, 65_536, [("big", 60_000)]),
        SessionGone(ID),
        CommitOutcomeUnknown(ID, ["cart"]),
        ExclusiveTimeout(ID, 1.5),
        RevocationIncomplete([ID], None, cutoff_set=True),
        LoginRequired("expired (idle)"),
        ResponseStarted(),
        StoreUnavailable("refused"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, lambda error: pickle.loads(pickle.dumps(error))],  # noqa: S301 - made here
    ids=["copy", "pickle"],
)
def test_an_error_reaches_another_process_unchanged(error, duplicate):
    """A23: an exception that cannot be unpickled breaks a process pool."""
    error.add_note("in the worker")
    found = duplicate(error)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)


def test_errors_are_also_instances_of_the_matching_builtin_exceptions():
    assert issubclass(NotSerializable, TypeError)
    assert issubclass(InvalidState, ValueError)
    assert issubclass(ExclusiveTimeout, TimeoutError)
