"""The statuses of HTTP that decide what happens to a session."""

from __future__ import annotations

from typing import Final

#: Responses from here on mean that the request failed (law A10).
SERVER_ERROR: Final = 500

#: The response to a failing store (law A23).
UNAVAILABLE: Final = 503
