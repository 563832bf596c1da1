"""IncompleteList: a list of sessions over two stores, one of which failed."""

from __future__ import annotations

from collections.abc import Sequence

from sojourn.errors import StoreUnavailable
from sojourn.record import Record


class IncompleteList(StoreUnavailable):
    """One of two stores failed, so that its sessions are missing in a list.

    Attributes:
        records: of the store that answered.
    """

    def __init__(self, text: str, records: Sequence[Record] = ()) -> None:
        super().__init__(text)
        self.records: Sequence[Record] = records
