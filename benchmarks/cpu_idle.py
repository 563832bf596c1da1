"""Keeping the processors awake while requests are timed.

A processor with nothing to do goes to sleep, and whoever has work for it pays for waking it; on a
virtual machine that is a call of the hypervisor. In a closed loop the payer is the server: with
each answer it wakes a load generator that has to wait for the next, so a slow server pays more
often than a fast one, for something that in use is another machine's. What was measured of it is in
README.md. Linux lets a program forbid it for as long as it holds a file open (its PM QoS
interface); elsewhere, and without the right to write that file, processors sleep as they like.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LATENCY = Path("/dev/cpu_dma_latency")


def allowed() -> bool:
    """Tell whether this process may keep the processors awake; to open the file changes nothing."""
    try:
        _LATENCY.open("wb", buffering=0).close()
    except OSError:
        return False
    return True


@contextmanager
def awake() -> Iterator[None]:
    """Keep every processor of this machine awake, where that is allowed."""
    if not allowed():
        yield
        return
    with _LATENCY.open("wb", buffering=0) as file:
        file.write(struct.pack("i", 0))  # microseconds that waking may take
        yield
