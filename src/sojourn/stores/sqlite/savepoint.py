"""Savepoint: a part of a transaction that can be undone alone."""

from __future__ import annotations

import sqlite3
from types import TracebackType
from typing import Self


class Savepoint:
    """A part of a transaction that an exception or ``roll_back`` undoes alone."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> Self:
        """Begin the part."""
        self._connection.execute("SAVEPOINT part")
        return self

    def roll_back(self) -> None:
        """Undo the part so far."""
        self._connection.execute("ROLLBACK TO part")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the part; undo it after an exception."""
        if self._connection.in_transaction:  # otherwise SQLite rolled back the whole transaction
            if error is not None:
                self.roll_back()
            self._connection.execute("RELEASE part")
