"""What each Sentinel of a service answers about it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from sojourn._core.concurrency import run
from sojourn.stores.redis.connection import BlockingStream, Connection, ServerAddress
from sojourn.stores.redis.errors import ConnectionLost, ServerError, has_code


@dataclass(frozen=True, slots=True)
class SentinelAnswer:
    """What one Sentinel answers about the service.

    Attributes:
        address: of the Sentinel.
        failure: why it gave no answer; empty if it did.
        service_error: why it does not monitor the service; empty if it does.
        primary: host and port.
        replicas: the number of replicas that it lists.
        sentinels: the number of Sentinels that it lists for the service.
        quorum_error: why the Sentinels cannot agree on a failover; empty if they can.
    """

    address: str
    failure: str = ""
    service_error: str = ""
    primary: str = ""
    replicas: int = 0
    sentinels: int = 0
    quorum_error: str = ""


def query_sentinels(
    sentinels: Sequence[ServerAddress], service: str, timeout: float
) -> list[SentinelAnswer]:
    """Query each Sentinel about a service, all at the same time.

    Args:
        sentinels: addresses and credentials.
        service: the name under which they monitor it.
        timeout: seconds that each may take.
    """
    with ThreadPoolExecutor(len(sentinels)) as threads:
        return list(threads.map(partial(_query, service=service, timeout=timeout), sentinels))


def _query(sentinel: ServerAddress, *, service: str, timeout: float) -> SentinelAnswer:
    address = str(sentinel)

    async def locate(_: float) -> ServerAddress:
        return sentinel

    connection = Connection(locate, BlockingStream.open)
    lines = (("SENTINEL", "MASTER", service), ("SENTINEL", "CKQUORUM", service))
    try:
        replies = run(connection.exchange(lines, (), time.monotonic() + timeout))
    except (ConnectionLost, ServerError) as error:
        return SentinelAnswer(address, failure=str(error))
    finally:
        connection.close()
    return _interpret(address, *replies)


def _interpret(address: str, monitored: Any, quorum: Any) -> SentinelAnswer:
    if has_code(monitored, "NOPERM"):
        return SentinelAnswer(address, failure=str(monitored))
    if isinstance(monitored, ServerError):
        return SentinelAnswer(address, service_error=str(monitored))
    texts = [part.decode("utf-8", "replace") for part in monitored]
    fields = dict(zip(texts[::2], texts[1::2], strict=False))
    return SentinelAnswer(
        address,
        primary=f"{fields.get('ip', '')}:{fields.get('port', '')}",
        replicas=int(fields.get("num-slaves", "0")),
        sentinels=int(fields.get("num-other-sentinels", "0")) + 1,
        quorum_error=str(quorum) if has_code(quorum, "NOQUORUM") else "",
    )
