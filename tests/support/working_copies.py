"""The working copy behind a session: what tests of the core and of the web layer examine."""

from typing import Any

from sojourn._core.working_copy import WorkingCopy
from sojourn.session import Session


def copy_of(session: Session[Any]) -> WorkingCopy:
    """Return the working copy of a session, which its public members do not show."""
    return session._copy
