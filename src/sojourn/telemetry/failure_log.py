"""FailureLog: logs the first error of an exporter; no error of an exporter fails a request."""

from __future__ import annotations

import logging

logger: logging.Logger = logging.getLogger("sojourn")


class FailureLog:
    """Logs one error: every request may meet it (security.md B-34)."""

    def __init__(self) -> None:
        self._failed = False

    def report(self, error: Exception) -> None:
        """Log the first error, with its traceback."""
        if not self._failed:
            self._failed = True
            logger.error(
                "telemetry failed; this is logged once, requests are not affected", exc_info=error
            )
