"""The standard streams: open, and able to show every character."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Final

_MODES: Final = {"stdin": "r", "stdout": "w", "stderr": "w"}


def prepare_streams() -> None:
    """Open the streams that are closed; escape what the encoding of the output does not have."""
    for name, mode in _MODES.items():
        if getattr(sys, name) is None:  # closed by the parent process, as with `>&-`
            null = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - it stays open
            setattr(sys, name, null)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Write nothing more to the standard output, which cannot be written."""
    with contextlib.suppress(OSError):  # a replaced stream has no file descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
