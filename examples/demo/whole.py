"""WholeState: a cart kept in the usual way, beside the real one, for comparison.

What lives here: load everything, change it, save everything. What must not: any cleverness; the
same requests write to both, and the page shows what each has kept. Nothing depends on this.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

#: Sessions that are compared at a time; the oldest makes room.
_LIMIT: Final = 100


class WholeState:
    """Carts by session ID; the last writer wins, as it does where whole states are saved."""

    def __init__(self) -> None:
        self._carts: OrderedDict[str, dict[str, str]] = OrderedDict()

    def load(self, session_id: str) -> dict[str, str]:
        """Return a copy of the cart."""
        return dict(self._carts.get(session_id, {}))

    def save(self, session_id: str, cart: dict[str, str]) -> None:
        """Replace the cart."""
        self._carts[session_id] = cart
        self._carts.move_to_end(session_id)
        if len(self._carts) > _LIMIT:
            self._carts.popitem(last=False)
