"""The effect of a near cache over Valkey: `python -m benchmarks.near_cache`.

One or four servers share a core and a Valkey server; each session has one connection to each of
them and reads in a closed loop, so that each record is loaded once a second. Servers with
and without the cache are measured in turn, in rotating order. CPU time and instructions do not
depend on the load of the machine as the throughput does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks import instructions
from benchmarks.asgi_client import run
from benchmarks.candidates import find
from benchmarks.candidates.candidate import VALKEY_URL_VARIABLE
from benchmarks.candidates.starlette import NEAR_CACHE_VARIABLE
from benchmarks.load_generator import Load, Visitor
from benchmarks.processes import choose_cores, run_valkey
from benchmarks.server import pin
from tests.integration.proxy import Proxy

CANDIDATES = ("bare", "least-valkey", "sojourn-valkey", "sojourn-near-cache")
CONNECTIONS = 48
_TICKS = os.sysconf("SC_CLK_TCK")


class Servers:
    """The servers of one candidate, and their visitors.

    Attributes:
        rates: requests per second in each round.
        latencies: nanoseconds, of all rounds.
        cpu_times: microseconds of CPU for each request, in each round.
    """

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]], ports: Sequence[int]) -> None:
        self._processes = processes
        self._ports = ports
        self._visitors: list[Visitor] = []
        self.rates: list[float] = []
        self.latencies: array[int] = array("q")
        self.cpu_times: list[float] = []

    async def connect(self) -> None:
        """Open the connections; each session has one to each server."""
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS // len(self._ports)):
            cookie = b""
            for port in self._ports:
                _, visitor = await loop.create_connection(Visitor, "127.0.0.1", port)
                visitor.cookie = cookie
                if not cookie:
                    await visitor.get("/seed")
                    cookie = visitor.cookie
                await visitor.get("/read")
                visitor.set_path("/read")
                self._visitors.append(visitor)

    async def connect_one(self) -> Visitor:
        """Open one connection with a session."""
        loop = asyncio.get_running_loop()
        _, visitor = await loop.create_connection(Visitor, "127.0.0.1", self._ports[0])
        await visitor.get("/seed")
        await visitor.get("/read")
        return visitor

    async def measure(self, seconds: float) -> None:
        """Read for some seconds, after a fifth as long to warm up."""
        await Load(self._visitors, seconds=seconds / 5, rate=None).run()
        before = self._cpu_ticks()
        result = await Load(self._visitors, seconds=seconds, rate=None).run()
        spent = (self._cpu_ticks() - before) / _TICKS
        self.rates.append(result.per_second)
        self.latencies.extend(result.latencies)
        self.cpu_times.append(spent / len(result.latencies) * 1e6)

    def _cpu_ticks(self) -> int:
        total = 0
        for process in self._processes:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total

    def row(self, name: str) -> str:
        """Return the row of the table."""
        ordered = sorted(self.latencies)
        p50, p99 = (ordered[int(len(ordered) * share)] / 1e6 for share in (0.5, 0.99))
        return (
            f"| {find(name).title} | {median(self.rates):,.0f} | {p50:.2f} | {p99:.2f} "
            f"| {median(self.cpu_times):.1f} |"
        )


@contextmanager
def run_servers(name: str, number: int, parent: Path, core: int | None) -> Iterator[Servers]:
    """Run servers of one candidate on one core."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        ports = []
        for each in range(number):
            directory = parent / f"{name}-{number}-{each}"
            directory.mkdir(mode=0o700)
            command = [sys.executable, "-m", "benchmarks.server", name, str(directory)]
            if core is not None:
                command += ["--core", str(core)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ)
            )
            processes.append(process)
            assert process.stdout is not None
            ports.append(int(process.stdout.readline()))
        yield Servers(processes, ports)
    finally:
        for process in processes:
            process.communicate()  # closes standard input, which ends the server


async def measure(number: int, *, rounds: int, seconds: float) -> str:
    """Measure every candidate with a number of servers; return the table."""
    server_core, load_core = choose_cores()
    pin(load_core)
    with ExitStack() as stack:
        parent = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ[VALKEY_URL_VARIABLE] = stack.enter_context(run_valkey(parent, load_core))
        running = {
            name: stack.enter_context(run_servers(name, number, parent, server_core))
            for name in CANDIDATES
        }
        for servers in running.values():
            await servers.connect()
        order = list(running.values())
        for _ in range(rounds):
            for servers in order:
                await servers.measure(seconds)
            order.append(order.pop(0))
        return "\n".join(
            (
                f"| {number} server{'s' * (number > 1)} | reads/s | p50 ms | p99 ms | CPU µs |",
                "|---|--:|--:|--:|--:|",
                *(servers.row(name) for name, servers in running.items()),
            )
        )


async def measure_latency(delay: float, *, rounds: int) -> str:
    """Return a table of the latencies of one connection that waits for each answer.

    Args:
        delay: seconds added to each reply of Valkey, like a network.
        rounds: of 100 requests to each server.
    """
    with ExitStack() as stack:
        parent = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(run_valkey(parent, None))
        if delay:
            proxy = Proxy(int(url.rpartition(":")[2].partition("/")[0]))
            stack.callback(proxy.close)
            proxy.delay, url = delay, proxy.url
        os.environ[VALKEY_URL_VARIABLE] = url
        visitors: dict[str, Visitor] = {}
        for name in CANDIDATES:
            servers = stack.enter_context(run_servers(name, 1, parent, None))
            visitors[name] = await servers.connect_one()
        latencies: dict[str, list[float]] = {name: [] for name in CANDIDATES}
        for _ in range(rounds):
            for name, visitor in visitors.items():
                for _ in range(100):
                    sent_at = perf_counter()
                    await visitor.get("/read")
                    latencies[name].append(1000 * (perf_counter() - sent_at))
        rows = [f"| Valkey {1000 * delay:g} ms away, one connection | p50 ms |", "|---|--:|"]
        rows += [f"| {find(n).title} | {median(found):.3f} |" for n, found in latencies.items()]
        return "\n".join(rows)


def count_instructions() -> str:
    """Return the instructions of a read, of the whole process."""
    with ExitStack() as stack:
        parent = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ[VALKEY_URL_VARIABLE] = stack.enter_context(run_valkey(parent, None))
        # Under callgrind a second passes too soon.
        os.environ[NEAR_CACHE_VARIABLE] = "10 seconds"
        return "\n".join(
            f"{find(name).title}: {instructions.count(find(name), ('read',))['read']:,.0f} "
            "instructions for a read"
            for name in CANDIDATES
        )


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each stretch")
    arguments = parser.parse_args()
    for number in (1, 4):
        table = run(measure(number, rounds=arguments.rounds, seconds=arguments.seconds))
        print(table, end="\n\n", flush=True)
    for delay in (0.0, 0.001):
        print(run(measure_latency(delay, rounds=arguments.rounds)), end="\n\n", flush=True)
    if shutil.which("valgrind") is not None:
        print(count_instructions())


if __name__ == "__main__":
    main()
