"""Keeps the processors out of idle states while requests are timed.

An idle processor enters a sleep state, and waking it costs time of the process that wakes it; on a
virtual machine it is a hypervisor call. In a closed loop this cost falls on the server: each
response wakes the load generator, so a slow server has this cost more often than a fast one. In
production the clients run on another machine (measured in README.md). Linux forbids
idle states for as long as a process holds `/dev/cpu_dma_latency` open (PM QoS interface).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LATENCY_FILE = Path("/dev/cpu_dma_latency")


def can_forbid_idle_states() -> bool:
    """Return whether this process may forbid idle states; opening the file changes nothing."""
    try:
        _LATENCY_FILE.open("wb", buffering=0).close()
    except OSError:
        return False
    return True


@contextmanager
def no_idle_states() -> Iterator[None]:
    """Forbid idle states of all processors, if that is permitted."""
    if not can_forbid_idle_states():
        yield
        return
    with _LATENCY_FILE.open("wb", buffering=0) as file:
        file.write(struct.pack("i", 0))  # maximum wake-up latency in microseconds
        yield
