"""What a database contains, read without the store, which would create and migrate tables."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from sojourn.stores.sqlite.database import APPLICATION_ID
from sojourn.stores.sqlite.schema import realms_of


def list_realms(path: Path) -> list[str]:
    """Return the realms that have tables in a database.

    Returns:
        An empty list if the file is not a database of sojourn, or cannot be read.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=2.0)) as connection:
            if connection.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
                return []
            return realms_of(connection)
    except sqlite3.Error:
        return []
