"""LateChanges: reports changes that were made after the end of a request and never saved."""

from __future__ import annotations

import logging
from typing import Protocol

from sojourn.errors import SojournError

logger: logging.Logger = logging.getLogger("sojourn")


class Changeable(Protocol):
    """What ``LateChanges`` needs of a working copy."""

    def modified(self) -> bool:
        """Return whether something is not committed."""
        ...

    def uncommitted_session_id(self) -> bytes:
        """Return the ID of the session whose changes are not committed, 16 bytes."""
        ...


class LateChanges:
    """Logs an error if a working copy is freed with changes from after the end of its request.

    The framework's integration commits until the request ends. A task that outlives it has to
    commit itself, so its first change cannot be refused: an ``acommit`` may follow.

    Args:
        copy: of the session. It refers to this object, so both are freed together.
    """

    __slots__ = ("_copy",)

    def __init__(self, copy: Changeable) -> None:
        self._copy = copy

    def __del__(self) -> None:
        """Report what was not saved."""
        copy = self._copy
        try:
            lost = copy.modified()
        except SojournError:  # a value that cannot be stored
            lost = True
        if lost:
            logger.error(
                "session %s was changed after its request had ended, and the changes were not "
                "saved; end a task or thread that outlives its request with "
                "'await session.acommit()' or session.commit()",
                copy.uncommitted_session_id().hex(),
            )
