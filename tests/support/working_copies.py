"""The working copy behind a session, which tests of the core and the web layer examine."""

from typing import Any

from sojourn._core.working_copy import WorkingCopy
from sojourn.session import Session


def copy_of(session: Session[Any]) -> WorkingCopy:
    """Return the working copy of a session, which its public members do not show."""
    return session._copy


async def commit(session: Session[Any], *, failed: bool = False) -> None:
    """Commit the changes of a session, as an adapter does at the end of a request."""
    await session._engine.commit(session._copy, failed=failed)
