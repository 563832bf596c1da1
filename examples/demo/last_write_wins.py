"""A cart that is loaded and saved as a whole, for comparison with the cart in the session."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

#: Sessions; beyond it the cart that was saved least recently is dropped.
_MAX_CARTS: Final = 100


class LastWriteWinsCarts:
    """Carts by session ID. Of two parallel saves the later one replaces the earlier one."""

    def __init__(self) -> None:
        self._carts: OrderedDict[str, dict[str, str]] = OrderedDict()

    def load(self, session_id: str) -> dict[str, str]:
        """Return a copy of the cart."""
        return dict(self._carts.get(session_id, {}))

    def save(self, session_id: str, cart: dict[str, str]) -> None:
        """Replace the cart."""
        self._carts[session_id] = cart
        self._carts.move_to_end(session_id)
        if len(self._carts) > _MAX_CARTS:
            self._carts.popitem(last=False)
