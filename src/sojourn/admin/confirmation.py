"""Confirmation: the form that has to be filled in before sessions are revoked."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Final

from sojourn.admin.formatting import visible
from sojourn.admin.request import AdminRequest

#: The last digits of a session ID that are typed to confirm its revocation.
TYPED_DIGITS: Final = 6

#: Characters of a phrase.
_MAX_TYPED: Final = 64

_MAX_REASON: Final = 200
_DEFAULT_REASON: Final = "revoked by an administrator"


@dataclass(slots=True)
class Confirmation:
    """What is typed into a form of a revocation, and what is wrong with it.

    Attributes:
        phrase: what has to be typed.
        ends_own: the visitor's own session ends as well, which needs a second confirmation.
        typed: into the field of the phrase.
        reason: for the event, the history and the visitor of the session.
        accepts_own: the second confirmation was given.
        keeps_own: the visitor's own session is to be kept.
        errors: a text for each field that is wrong, by its name.
    """

    phrase: str
    ends_own: bool = False
    typed: str = ""
    reason: str = _DEFAULT_REASON
    accepts_own: bool = False
    keeps_own: bool = True
    errors: dict[str, str] = field(default_factory=dict)

    def read(self, request: AdminRequest) -> bool:
        """Read a form; return whether the revocation is confirmed."""
        form = request.form
        self.typed = form.get("typed", "")
        self.reason = form.get("reason", "").strip()
        self.accepts_own = form.get("accepts_own") == "yes"
        self.keeps_own = form.get("keeps_own") == "yes"
        if _normalize(self.typed) != _normalize(self.phrase):
            self.errors["typed"] = f"Type “{self.phrase}” to confirm"
        if not self.reason:
            self.errors["reason"] = "Enter a reason"
        elif len(self.reason) > _MAX_REASON or not self.reason.isprintable():
            self.errors["reason"] = (
                f"Enter a reason of one line and at most {_MAX_REASON} characters"
            )
        if self.ends_own and not self.accepts_own:
            self.errors["accepts_own"] = "Confirm that your own session ends"
        return not self.errors


def _normalize(text: str) -> str:
    # Keyboards compose letters such as "é"; the stored text may have them decomposed.
    return unicodedata.normalize("NFC", text.strip())


def can_be_typed(text: str) -> bool:
    """Return whether a user can type a text as a confirmation."""
    return (
        len(text) <= _MAX_TYPED
        and text == visible(text).strip()
        and all(char == " " or not char.isspace() for char in text)
        and "  " not in text
    )


def phrase_of_user(user: str) -> str:
    """Return what is typed to revoke the sessions of a user: their name if that is possible."""
    return user if can_be_typed(user) else "revoke user"


def phrase_of_label(value: str) -> str:
    """Return what is typed to revoke the sessions with a label: its value if that is possible."""
    return value if can_be_typed(value) else "revoke label"
