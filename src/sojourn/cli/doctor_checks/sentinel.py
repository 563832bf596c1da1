"""Checks of the Sentinels that report the primary of a service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from sojourn.cli.doctor_checks.findings import Finding, error, warning
from sojourn.stores.redis.sentinel_inspection import SentinelAnswer

UNREACHABLE: Final = warning(
    "sentinel-unreachable",
    "an answer of every Sentinel in the URL: the remaining ones must find the primary and agree "
    "on a failover",
    "start the Sentinel; check its address and sentinel_password= in the URL, and the firewall",
)
SERVICE: Final = warning(
    "sentinel-service",
    "Sentinels that all monitor the service in the URL",
    "correct the name of the service in the URL (`SENTINEL MASTERS` lists them), or add it to the "
    "configuration of this Sentinel (`sentinel monitor`)",
)
DISAGREEMENT: Final = error(
    "sentinel-disagreement",
    "Sentinels that all report the same primary: otherwise processes write to different servers, "
    "and one of them loses its sessions",
    "run the doctor again after a failover has ended; if they still differ, look for a network "
    "that is divided, and for Sentinels that monitor another service under this name",
)
QUORUM: Final = warning(
    "sentinel-quorum",
    "Sentinels that reach the quorum and the majority: otherwise none starts a failover when the "
    "primary fails",
    "start the Sentinels that are down; `SENTINEL RESET` removes those that are gone for good",
)
FEW: Final = warning(
    "sentinel-few",
    "three Sentinels or more, on different machines: two have no majority when one fails",
    "add Sentinels that monitor the same service",
)

PROBLEMS: Final = (UNREACHABLE, SERVICE, DISAGREEMENT, QUORUM, FEW)

_MIN_SENTINELS: Final = 3


def check_answers(answers: Iterable[SentinelAnswer]) -> Iterator[Finding]:
    """Compare the answers of the Sentinels with what a failover needs."""
    given = list(answers)
    silent = _join(given, lambda answer: answer.failure)
    if silent:
        yield UNREACHABLE.finding(silent)
    unaware = _join(given, lambda answer: answer.service_error)
    if unaware:
        yield SERVICE.finding(unaware)
    monitoring = [answer for answer in given if answer.primary]
    if len({answer.primary for answer in monitoring}) > 1:
        yield DISAGREEMENT.finding(_join(monitoring, lambda answer: f"reports {answer.primary}"))
    without_quorum = _join(monitoring, lambda answer: answer.quorum_error)
    if without_quorum:
        yield QUORUM.finding(without_quorum)
    known = max((answer.sentinels for answer in monitoring), default=_MIN_SENTINELS)
    if known < _MIN_SENTINELS:
        yield FEW.finding(f"{known} {'Sentinel' if known == 1 else 'Sentinels'}")


def _join(answers: Iterable[SentinelAnswer], text_of: Callable[[SentinelAnswer], str]) -> str:
    """Return the texts about the Sentinels, each with its address; leave out empty ones."""
    return "; ".join(
        f"{answer.address}: {text_of(answer)}" for answer in answers if text_of(answer)
    )
