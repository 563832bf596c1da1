"""Replaying: what one commit makes of the newest record it meets.

What lives here: the amendment that the engine gives to the writer for a handler's changes. What
must not: the changes themselves (``operations.py``), how a view hands them over (``view.py``) and
the loop that asks (``writer.py``).
"""

from __future__ import annotations

import msgspec

from sojourn._core.changes import ChangeTracker
from sojourn._core.operations import Log
from sojourn.record import Contents, Record


class Replaying(msgspec.Struct, eq=False, gc=False):
    """Takes a view's changes once, and does them again on each newer record.

    No closure, and unknown to the garbage collector: while the store answers, every waiting request
    holds one, and what waits is looked at by each collection of young objects. Nothing that it
    holds refers back to it.

    Attributes:
        base: the record whose data the changes were made on.
        failed: the request fails, so its changes stay out.
        log: what was taken; None until then.
        data: what the changes make of the base's data.
    """

    view: ChangeTracker
    base: Record
    failed: bool
    log: Log | None = None
    data: dict[str, bytes] = {}

    def __call__(self, current: Record, contents: Contents) -> dict[str, bytes]:
        """Return the data that ``current`` should have."""
        if self.failed:
            return contents.data
        log = self.log
        if log is None:  # taken when the turn has come: a cancelled wait takes nothing away
            log, self.data = self.view.take()
            self.log = log
        return self.data if current is self.base else log.replay(contents.data)
