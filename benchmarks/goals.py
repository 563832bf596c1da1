"""Goals for the figures, each with the measured value and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks import instructions
from benchmarks.throughput import median_ratio

Figures = Mapping[str, Mapping[str, Any]]

_PATHS = ("/read", "/write")

PEERS_ON_FASTAPI = ("fastapi-redis-sdk", "starsessions-fastapi", "litestar-valkey")
"""Server-side peers on Valkey under ASGI; each is compared by its share of its own framework."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound for one figure.

    Attributes:
        subject: what is measured.
        bound: the largest or smallest value that meets the goal.
        measured: None if it was not measured.
        at_most: whether `bound` is the largest value.
        unit: of both values.
        digits: decimal places of the measured value.
    """

    subject: str
    bound: float
    measured: float | None
    at_most: bool = False
    unit: str = ""
    digits: int = 2

    @property
    def holds(self) -> bool | None:
        """Whether the goal holds; None if it was not measured."""
        if self.measured is None:
            return None
        return self.measured <= self.bound if self.at_most else self.measured >= self.bound

    def row(self) -> list[str]:
        """Return the cells of its row."""
        bound = f"{'≤' if self.at_most else '≥'} {self.bound:g}{self.unit}"
        if self.measured is None:
            return [self.subject, bound, "-", "not measured"]
        verdict = "holds" if self.holds else "**missed**"
        return [self.subject, bound, f"{self.measured:.{self.digits}f}{self.unit}", verdict]


HEADER = ["goal", "bound", "measured", ""]


def list_goals(
    cpu_time: Figures,
    counts: Figures | None,
    throughput: Figures,
    valkey_memory: Mapping[str, float],
) -> list[Goal]:
    """Return all goals.

    Args:
        cpu_time: microseconds by candidate and kind of request (cpu_time.py).
        counts: instructions likewise (instructions.py); None if they could not be counted.
        throughput: the fields of `throughput.Figures` by candidate and path.
        valkey_memory: the fields of `valkey_memory.Memory`.
    """
    return [
        *_instructions(counts),
        *_shares(throughput, "sojourn-memory", "memory: share of the least layer", (0.74, 0.64)),
        *_shares(
            throughput, "sojourn-valkey", "Valkey: share of the joined round trips", (0.92, 0.88)
        ),
        *_shares(throughput, "sojourn-sqlite", "SQLite: share of the least layer", (0.85, 0.75)),
        Goal(
            "SQLite: write p99.9 at half load, times that without sessions",
            3,
            throughput["sojourn-sqlite"]["/write"]["half_load"][2]
            / throughput["bare"]["/write"]["half_load"][2],
            at_most=True,
        ),
        *_times_best_peer(throughput, (2.2, 2.0)),
        Goal(
            "memory: 20 kB session, one small key read, over bare",
            15,
            cpu_time["sojourn-memory"]["large"],
            at_most=True,
            unit=" µs",
            digits=1,
        ),
        Goal(
            "Valkey: memory of a 200-byte session with user",
            340,
            valkey_memory["memory_usage"],
            at_most=True,
            unit=" B",
            digits=0,
        ),
    ]


def _instructions(counts: Figures | None) -> list[Goal]:
    return [
        Goal(
            f"memory: instructions over bare, {kind}",
            bound / 1000,
            None if counts is None else counts[instructions.CHECKED][kind] / 1000,
            at_most=True,
            unit="k",
            digits=1,
        )
        for kind, bound in instructions.GOALS.items()
    ]


def _shares(
    throughput: Figures, name: str, subject: str, bounds: tuple[float, float]
) -> list[Goal]:
    return [
        Goal(f"{subject}, {path[1:]}", bound, throughput[name][path]["share_of_least_layer"])
        for path, bound in zip(_PATHS, bounds, strict=True)
    ]


def _times_best_peer(throughput: Figures, bounds: tuple[float, float]) -> list[Goal]:
    goals = []
    for path, bound in zip(_PATHS, bounds, strict=True):
        best = max(PEERS_ON_FASTAPI, key=lambda name: throughput[name][path]["share_of_bare"])
        goals.append(
            Goal(
                f"Valkey on FastAPI: times the best server-side peer ({best}), {path[1:]}",
                bound,
                _times(throughput, best, path),
            )
        )
    return goals


def _times(throughput: Figures, peer: str, path: str) -> float:
    own, other = throughput["sojourn-fastapi"][path], throughput[peer][path]
    if peer.startswith("litestar"):  # another framework: compare the shares of the framework
        return float(own["share_of_bare"] / other["share_of_bare"])
    return median_ratio(own["rounds"], other["rounds"])
