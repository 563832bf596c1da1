"""``sojourn bench``: what the calls of a store cost from this machine."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import click
import msgspec

from sojourn.cli.exit_codes import ExitCode, Failure
from sojourn.cli.formatting import print_json
from sojourn.cli.progress import Report, progress_bar
from sojourn.cli.target import Target, TargetCommand
from sojourn.cli.unused_record import unused_record
from sojourn.record import Record, pack_body
from sojourn.store import Store, SupportsBulk

#: Milliseconds that the sessions of the measurement live, if the process is killed.
_LIFETIME: Final = 600_000

#: Sessions that are deleted together.
_DELETE_BATCH: Final = 100

_OPERATIONS: Final = ("create", "load", "save", "touch", "batch", "delete")


@dataclass(slots=True)
class _Bench:
    """One measurement.

    Attributes:
        target: whose store is measured.
        size: bytes of data in a session.
        batch: sessions that are loaded together.
        records: the sessions that are in the store.
        seconds: of each call, by operation.
    """

    target: Target
    size: int
    batch: int
    records: list[Record] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """The store that is measured."""
        return self.target.sessions.store

    def measure(self, operation: str, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a call and record its duration; return its result."""
        coroutine = call()
        started = time.perf_counter()
        result = self.target.run(coroutine)
        self.seconds.setdefault(operation, []).append(time.perf_counter() - started)
        return result

    def run(self, count: int, report: Report) -> None:
        """Measure every operation with so many sessions."""
        for operation, step in (
            ("create", self._create),
            ("load", self._load),
            ("save", self._save),
            ("touch", self._touch),
            ("batch", self._load_batch),
            ("delete", self._delete),
        ):
            steps = max(count // self.batch, 1) if operation == "batch" else count
            for number in range(steps):
                step(number % count)
                report(_OPERATIONS.index(operation) * count + number, operation)

    def _create(self, number: int) -> None:
        del number  # each call creates another record
        record = self._new_record()
        self.records.append(record)  # before the call, so that it is deleted if the call is cut off
        self.measure("create", lambda: self.store.create(record))

    def _load(self, number: int) -> None:
        found = self.measure("load", lambda: self.store.load(self.records[number].id))
        if found is None:
            raise Failure(
                "a session that was just created is not in the store; check for an evicting "
                "policy with `sojourn doctor`",
                ExitCode.NOT_FOUND,
            )

    def _save(self, number: int) -> None:
        record = self.records[number]
        newer = msgspec.structs.replace(record, version=record.version + 1, body=self._body())
        self.measure("save", lambda: self.store.save(newer, record.version))
        self.records[number] = newer

    def _touch(self, number: int) -> None:
        record = self.records[number]
        seen = record.with_seen_at(record.seen_at + 1)
        self.measure("touch", lambda: self.store.touch(seen))

    def _load_batch(self, number: int) -> None:
        ids = [self.records[(number + each) % len(self.records)].id for each in range(self.batch)]

        async def load() -> None:
            await asyncio.gather(*(self.store.load(each) for each in ids))

        started = time.perf_counter()
        self.target.run_in_loop(load())
        self.seconds.setdefault("batch", []).append(time.perf_counter() - started)

    def _delete(self, number: int) -> None:
        del number  # each call deletes the last record
        record = self.records[-1]
        self.measure("delete", lambda: self.store.delete(record.id))
        self.records.pop()

    def clean_up(self) -> None:
        """Delete the records that are still stored."""
        store = self.store
        while self.records:
            some = [record.id for record in self.records[-_DELETE_BATCH:]]
            if isinstance(store, SupportsBulk):
                self.target.run(store.delete_many(some))
            else:
                for each in some:
                    self.target.run(store.delete(each))
            del self.records[-_DELETE_BATCH:]

    def _new_record(self) -> Record:
        return unused_record(self.target.sessions.engine.clock(), _LIFETIME, self._body())

    def _body(self) -> bytes:
        value = msgspec.msgpack.encode("x" * self.size)
        return pack_body(None, {"made_by": "sojourn bench"}, {"data": value})


@click.command(cls=TargetCommand, short_help="Measure what the store costs from here.")
@click.option(
    "--count", type=click.IntRange(min=1, max=100_000), default=500, show_default=True,
    help="Sessions, and calls of each kind.",
)  # fmt: skip
@click.option(
    "--size", type=click.IntRange(min=0, max=1_000_000), default=500, show_default=True,
    help="Bytes of data in a session.",
)  # fmt: skip
@click.option(
    "--batch", type=click.IntRange(min=1, max=1000), default=32, show_default=True,
    help="Sessions that are loaded together, as the requests of one event-loop tick are.",
)  # fmt: skip
@click.pass_obj
def bench(target: Target, *, count: int, size: int, batch: int) -> None:
    """Measure what this store costs from here: create, load, save, touch, batch, delete.

    It works on sessions of its own, which have no tickets, and deletes them at the end, also after
    Ctrl-C. Applications may run meanwhile.
    """
    sessions = target.sessions
    target.run(sessions.aping())
    target.run(sessions.engine.context.synchronize_clock())
    measurement = _Bench(target, size, batch)
    try:
        with progress_bar(target, "calls", count * len(_OPERATIONS)) as report:
            measurement.run(count, report)
    finally:
        measurement.clean_up()
    results = {
        name: _summary(measurement.seconds[name], batch if name == "batch" else 1)
        for name in _OPERATIONS
    }
    if target.is_json:
        print_json({"store": target.store_url, "batch": batch, "size": size, "calls": results})
    else:
        _print_table(target, results, batch)


def _summary(seconds: list[float], sessions: int) -> dict[str, float]:
    """Return figures of one operation.

    Args:
        seconds: of each call.
        sessions: that one call is for.
    """
    ordered = sorted(seconds)
    return {
        "count": len(ordered),
        "median_ms": round(statistics.median(ordered) * 1000, 4),
        "p99_ms": round(ordered[(len(ordered) - 1) * 99 // 100] * 1000, 4),
        "sessions_per_second": round(len(ordered) * sessions / sum(ordered)),
    }


def _print_table(target: Target, results: dict[str, dict[str, float]], batch: int) -> None:
    from rich.table import Table
    from rich.text import Text

    target.console.print(Text(target.store_url, "bold"))
    table = Table(box=None, pad_edge=False)
    table.add_column("call")
    for name in ("calls", "median ms", "p99 ms", "sessions/s"):
        table.add_column(name, justify="right")
    for name, figures in results.items():
        table.add_row(
            f"load {batch} together" if name == "batch" else name,
            f"{figures['count']:,.0f}",
            f"{figures['median_ms']:.3f}",
            f"{figures['p99_ms']:.3f}",
            f"{figures['sessions_per_second']:,.0f}",
        )
    target.console.print(table)
