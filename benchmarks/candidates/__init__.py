"""The applications that are compared: the same five routes with each kind of session.

Every candidate answers the same bytes from the same amount of application code, so its session
layer is the only difference. Routes: `/` does not use the session; `/seed` and `/seed-large` fill
one and answer its counter; `/read` answers the counter; `/write` sets it to the next number and
answers that. Every body has twelve bytes, so that a client can check it without parsing.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.candidates import (
    asgi_frameworks,
    fastapi,
    flask,
    litestar,
    own_servers,
    postgresql,
    round_trips,
    starlette,
    wsgi_frameworks,
)
from benchmarks.candidates.candidate import Candidate

IN_PROCESS: tuple[Candidate, ...] = (
    *starlette.MEMORY_AND_SQLITE,
    litestar.BARE,
    litestar.MEMORY,
)
"""Candidates that cpu_time.py and instructions.py can measure: none waits for a server."""

ALL: tuple[Candidate, ...] = (
    *IN_PROCESS,
    *starlette.OVER_VALKEY,
    litestar.OVER_VALKEY,
    *fastapi.FASTAPI,
    *flask.FLASK,
)

FRAMEWORKS: tuple[Candidate, ...] = (
    *asgi_frameworks.ASGI,
    *wsgi_frameworks.WSGI,
    *own_servers.OWN,
    *round_trips.ROUND_TRIPS,
)
"""Further candidates of `python -m benchmarks.frameworks`."""

POSTGRESQL: tuple[Candidate, ...] = postgresql.POSTGRESQL
"""Further candidates of `python -m benchmarks.postgresql`."""

__all__ = ["ALL", "FRAMEWORKS", "IN_PROCESS", "POSTGRESQL", "Candidate", "find", "select"]


def find(name: str) -> Candidate:
    """Return the candidate of a name.

    Raises:
        SystemExit: the name is unknown.
    """
    known = (*ALL, *FRAMEWORKS, *POSTGRESQL, starlette.NEAR_CACHE)
    for candidate in known:
        if candidate.name == name:
            return candidate
    raise SystemExit(f"unknown candidate {name}; known: {', '.join(c.name for c in known)}")


def select(names: str | None, offered: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the named candidates with their baselines and least layers.

    Args:
        names: comma-separated; None selects all that are offered.
        offered: the candidates that the command can measure.

    Raises:
        SystemExit: a name is unknown or not offered.
    """
    if names is None:
        return tuple(offered)
    known = {candidate.name: candidate for candidate in offered}
    selected = set(names.split(","))
    if unknown := selected - known.keys():
        raise SystemExit(
            f"unknown candidate {', '.join(sorted(unknown))}; known: {', '.join(known)}"
        )
    for name in list(selected):
        selected |= {n for n in (known[name].baseline, known[name].least_layer) if n is not None}
    return tuple(candidate for candidate in offered if candidate.name in selected)
