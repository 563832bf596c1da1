"""http_errors: the HTTP errors that stand for errors of sojourn, in Flask and Quart."""

from __future__ import annotations

from werkzeug.exceptions import (
    HTTPException,
    InternalServerError,
    ServiceUnavailable,
    Unauthorized,
)

from sojourn.errors import SessionRequired, SojournError, StoreError


def http_errors(error: SojournError) -> tuple[HTTPException, ...]:
    """Return the HTTP errors that stand for an error of sojourn, for ``errorhandler(503)``.

    Args:
        error: that no handler for its class, or a base class, has answered.

    Returns:
        In the order in which the application's handlers are called; empty for none.
    """
    if isinstance(error, StoreError):
        return ServiceUnavailable(), InternalServerError(original_exception=error)
    if isinstance(error, SessionRequired):
        return (Unauthorized(),)
    return ()
