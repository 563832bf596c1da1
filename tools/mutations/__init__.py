"""The table of deliberate faults that ``tools/mutate.py`` applies one by one.

What lives here: all of them together. What must not: rows; those of one subject are in one file
each. Read next: ``row.py`` for what a row means, ``places.py`` for the names of files and tests.
"""

from tools.mutations import (
    across,
    audit,
    caches,
    channels,
    cookies,
    ends,
    limits,
    lists,
    logins,
    origins,
    records,
    redis,
    requests,
    rotations,
    sealing,
    sockets,
    stores,
    tickets,
)
from tools.mutations.row import Mutation

__all__ = ["TABLE", "Mutation"]

TABLE: tuple[Mutation, ...] = (
    *stores.FAULTS,
    *lists.FAULTS,
    *redis.FAULTS,
    *channels.FAULTS,
    *requests.FAULTS,
    *logins.FAULTS,
    *rotations.FAULTS,
    *ends.FAULTS,
    *limits.FAULTS,
    *sockets.FAULTS,
    *across.FAULTS,
    *sealing.FAULTS,
    *origins.FAULTS,
    *audit.FAULTS,
    *caches.FAULTS,
    *records.FAULTS,
    *tickets.FAULTS,
    *cookies.FAULTS,
)
