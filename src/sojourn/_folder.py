"""The folder of the local files: the default database and the generated secret."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

#: The name of the default folder. Only this one gets a ``.gitignore``: a folder that the developer
#: named may also hold files that belong into a repository.
DEFAULT_FOLDER: Final = ".sojourn"


def create_private_folder(folder: Path) -> None:
    """Create a folder, with access for its owner only, and its missing parents.

    The default folder gets a ``.gitignore`` that keeps sessions and secret out of a repository. A
    folder that exists is left as it is.

    Raises:
        OSError: it cannot be created.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
    if missing and folder.name == DEFAULT_FOLDER:
        with (
            contextlib.suppress(FileExistsError),
            open(folder / ".gitignore", "x", opener=_open_private) as file,
        ):
            file.write("*\n")


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
