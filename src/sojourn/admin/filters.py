"""Filters: what the list of sessions is searched for, read from the query of its address."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from urllib.parse import urlencode

#: The choices of "last seen": their value in the address, their name and their length.
PERIODS: Final = (
    ("1h", "in the last hour", timedelta(hours=1)),
    ("1d", "in the last 24 hours", timedelta(days=1)),
    ("7d", "in the last 7 days", timedelta(days=7)),
    ("30d", "in the last 30 days", timedelta(days=30)),
)

_ID: Final = re.compile("[0-9a-f]{32}")


@dataclass(slots=True)
class Filters:
    """The fields of the search form, as typed, and what is wrong with them.

    Attributes:
        user: as typed: their name or identifier; empty for all.
        user_id: exactly as given to ``session.login``, in place of ``user``. Links have it,
            because a user may be named as another user's identifier.
        session_id: a public ID; empty for all.
        label: such as ``address=192.0.2.1``; empty for all.
        since: the value of one of ``PERIODS``; empty for any time.
        errors: a text for each field that is wrong, by its name.
    """

    user: str = ""
    user_id: str = ""
    session_id: str = ""
    label: str = ""
    since: str = ""
    errors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Filters:
        """Read the filters of an address."""
        found = cls(
            user=query.get("user", "").strip(),
            user_id=query.get("user_id", ""),
            session_id=query.get("id", "").strip().lower(),
            label=query.get("label", "").strip(),
            since=query.get("since", ""),
        )
        if found.session_id and not _ID.fullmatch(found.session_id):
            found.errors["id"] = "Enter a session ID of 32 hexadecimal digits"
        if found.label and not found.labels():
            found.errors["label"] = "Enter a label as name=value, such as address=192.0.2.1"
        if found.since not in ("", *(value for value, _, _ in PERIODS)):
            found.errors["since"] = "Choose one of the periods"
        return found

    @classmethod
    def read_user(cls, query: Mapping[str, str]) -> Filters:
        """Read the filters of an address of the ended sessions, which has those of the user."""
        return cls(user=query.get("user", "").strip(), user_id=query.get("user_id", ""))

    def labels(self) -> dict[str, str]:
        """Return the label as a filter of ``sessions.list_page``; empty for none."""
        name, separator, value = self.label.partition("=")
        return {name.strip(): value.strip()} if separator and name.strip() else {}

    def period(self) -> timedelta | None:
        """Return the length of "last seen"; None for any time."""
        return next((length for value, _, length in PERIODS if value == self.since), None)

    def parameters(self) -> dict[str, str]:
        """Return the parameters of an address with these filters."""
        user = {"user_id": self.user_id} if self.user_id else {"user": self.user}
        found = {**user, "label": self.label, "since": self.since}
        return {name: value for name, value in found.items() if value}

    def query(self, **further: str) -> str:
        """Return the query of an address with these filters, with its question mark."""
        return "?" + urlencode({**self.parameters(), **further})

    def without(self, name: str) -> str:
        """Return the query of an address without one of the filters."""
        removed = ("user", "user_id") if name == "user" else (name,)
        kept = {key: value for key, value in self.parameters().items() if key not in removed}
        return "?" + urlencode(kept)

    def chips(self) -> list[tuple[str, str, str]]:
        """Return the filters in use: the parameter, its name and its value as shown."""
        found = []
        if self.user:
            found.append(("user", "User", self.user))
        if self.label:
            found.append(("label", "Label", self.label))
        found += [("since", "Last seen", name) for value, name, _ in PERIODS if value == self.since]
        return found
