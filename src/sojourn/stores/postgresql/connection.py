"""Connections of the store's own: one for the threads of a process or for an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import select
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeVar

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from sojourn.stores.postgresql.errors import ConnectionLost, ServerError
from sojourn.stores.postgresql.pipeline import (
    Outcome,
    Preparation,
    PreparedStatements,
    Transaction,
    Wait,
    Waiting,
    connect,
    exchange,
    is_reusable,
)

T = TypeVar("T")

#: Parameters of libpq that may name several hosts.
_LISTS: Final = ("host", "hostaddr", "port")

#: Seconds that a cancel request may take.
_CANCEL_TIMEOUT: Final = 1.0


class Transport(Protocol):
    """Executes transactions, one call at a time."""

    async def connect(self, deadline: float) -> None:
        """Connect unless there is a working connection.

        Args:
            deadline: by ``time.monotonic``.

        Raises:
            ConnectionLost: the server is unreachable or rejected the connection.
        """
        ...

    async def exchange(self, transactions: Sequence[Transaction], deadline: float) -> list[Outcome]:
        """Execute transactions in one round trip and return the outcome of each.

        Raises:
            ConnectionLost: the connection broke, or the server did not answer before the deadline.
        """
        ...

    def reset(self) -> None:
        """Replace the connection before the next exchange."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Server:
    """Where the server is, and how to connect to it.

    Args:
        parameters: of libpq. Several hosts are tried one after the other.

    Attributes:
        parameters: as given.
        name: of the server and the database, without user and password.
    """

    __slots__ = ("name", "parameters")

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self.parameters: Final = dict(parameters)
        hosts = self.parameters.get("host") or self.parameters.get("hostaddr") or "localhost"
        port = self.parameters.get("port")
        database = self.parameters.get("dbname") or self.parameters.get("service") or ""
        self.name: Final = f"{hosts}{f':{port}' if port else ''}/{database}"

    def conninfo(self) -> str:
        """Return the connection string of libpq, with the password."""
        return make_conninfo("", **self.parameters)

    def parameters_of_primary(self) -> dict[str, str]:
        """Return the parameters that find the primary if there are several hosts."""
        if any("," in self.parameters.get(name, "") for name in _LISTS):
            return {"target_session_attrs": "read-write", **self.parameters}
        return self.parameters

    def attempts(self) -> list[dict[str, str]]:
        """Return the parameters of each host, in the order in which they are tried.

        libpq would give all of the time to the first host if that does not answer.
        """
        lists = {
            name: self.parameters[name].split(",")
            for name in _LISTS
            if "," in self.parameters.get(name, "")
        }
        if not lists:
            return [self.parameters]
        number = max(map(len, lists.values()))
        common = self.parameters_of_primary()
        attempts = [
            {**common, **{name: values[at % len(values)] for name, values in lists.items()}}
            for at in range(number)
        ]
        if self.parameters.get("load_balance_hosts") == "random":
            secrets.SystemRandom().shuffle(attempts)
        return attempts


def _shares(attempts: Sequence[dict[str, str]], deadline: float) -> Iterator[tuple[str, float]]:
    """Yield connection strings and the end of each attempt, which share the remaining time."""
    for at, parameters in enumerate(attempts):
        now = time.monotonic()
        yield make_conninfo("", **parameters), now + (deadline - now) / (len(attempts) - at)


# In threads


def run_blocking(waiting: Waiting[T], deadline: float) -> T:
    """Run a generator to its end.

    Raises:
        TimeoutError: the deadline passed.
    """
    try:
        while True:
            descriptor, wait = next(waiting)
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not _wait_blocking(descriptor, wait, remaining):
                raise TimeoutError
    except StopIteration as end:
        result: T = end.value
        return result


if hasattr(select, "poll"):
    _EVENTS: Final = {
        Wait.READ: select.POLLIN,
        Wait.WRITE: select.POLLOUT,
        Wait.READ_OR_WRITE: select.POLLIN | select.POLLOUT,
    }

    def _wait_blocking(descriptor: int, wait: Wait, timeout: float) -> bool:
        poll = select.poll()
        poll.register(descriptor, _EVENTS[wait])
        return bool(poll.poll(timeout * 1000))

else:  # pragma: no cover - Windows

    def _wait_blocking(descriptor: int, wait: Wait, timeout: float) -> bool:
        read = [descriptor] if wait is not Wait.WRITE else []
        write = [descriptor] if wait is not Wait.READ else []
        return any(select.select(read, write, [], timeout))


def is_readable(pgconn: pq.abc.PGconn) -> bool:
    """Return whether a connection without a running statement has received something."""
    return _wait_blocking(pgconn.socket, Wait.READ, 0)


def is_alive(pgconn: pq.abc.PGconn) -> bool:
    """Return whether a connection without a running statement is open, as far as is known."""
    try:
        while is_readable(pgconn):  # a message why the server closes it, and the end
            pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return pgconn.status == pq.ConnStatus.OK


class BlockingConnection:
    """A ``Transport`` whose coroutines never suspend.

    Args:
        server: to connect to.
        preparation: of statements.
    """

    __slots__ = ("_is_closed", "_pgconn", "_preparation", "_prepared", "_server")

    def __init__(self, server: Server, preparation: Preparation) -> None:
        self._server = server
        self._is_closed = False
        self._pgconn: pq.abc.PGconn | None = None
        self._preparation = preparation
        self._prepared = PreparedStatements(preparation)

    async def connect(self, deadline: float) -> None:
        """Connect; see ``Transport``."""
        if self._pgconn is not None and is_alive(self._pgconn):
            return
        self.reset()
        error = ConnectionLost("the store was closed")
        if self._is_closed:
            raise error
        for conninfo, end in _shares(self._server.attempts(), deadline):
            try:
                self._pgconn = run_blocking(connect(conninfo), end)
            except ConnectionLost as failure:
                error = failure
            except TimeoutError:
                error = ConnectionLost("it could not be reached in time", timed_out=True)
            else:
                self._pgconn.enter_pipeline_mode()
                self._prepared = PreparedStatements(self._preparation)
                return
        raise error

    async def exchange(self, transactions: Sequence[Transaction], deadline: float) -> list[Outcome]:
        """Execute transactions; see ``Transport``."""
        await self.connect(deadline)
        assert self._pgconn is not None  # noqa: S101 - connected above
        pgconn = self._pgconn
        try:
            outcomes = run_blocking(exchange(pgconn, transactions, self._prepared), deadline)
        except BaseException as error:
            if isinstance(error, TimeoutError):
                cancel_in_thread(pgconn)
            self.reset()
            if isinstance(error, Exception):
                raise exchange_error(error) from error
            raise
        if not is_reusable(pgconn):
            self.reset()
        return outcomes

    def reset(self) -> None:
        """Close the connection; see ``Transport``."""
        if self._pgconn is not None:
            self._pgconn.finish()
            self._pgconn = None

    def close(self) -> None:
        """Close the connection permanently; a batch that is in flight does not reconnect."""
        self._is_closed = True
        self.reset()


# The statement of a call that timed out may wait for a lock for hours, and a server process does
# not detect while it waits that its client has disconnected. A cancel request outlives the
# connection.


def _cancel(request: pq.abc.PGcancelConn) -> Waiting[None]:
    request.start()
    while True:
        status = request.poll()
        if status == pq.PollingStatus.READING:
            yield request.socket, Wait.READ
        elif status == pq.PollingStatus.WRITING:
            yield request.socket, Wait.WRITE
        else:
            return


def cancel_in_thread(pgconn: pq.abc.PGconn) -> None:
    """Cancel the running statement, without waiting for that."""
    with contextlib.suppress(psycopg.Error):
        try:
            cancel = functools.partial(_complete_cancellation, _cancel(pgconn.cancel_conn()))
        except psycopg.NotSupportedError:  # libpq before 17
            cancel = functools.partial(_cancel_blocking, pgconn.get_cancel())
        threading.Thread(target=cancel, name="sojourn-cancel", daemon=True).start()


def _complete_cancellation(waiting: Waiting[None]) -> None:
    with contextlib.suppress(psycopg.Error, TimeoutError):
        run_blocking(waiting, time.monotonic() + _CANCEL_TIMEOUT)


def _cancel_blocking(request: pq.abc.PGcancel) -> None:
    with contextlib.suppress(psycopg.Error):
        request.cancel()


def exchange_error(error: Exception) -> Exception:
    """Return the error for an exchange that failed after a part of it may have been sent."""
    if isinstance(error, TimeoutError):
        return ConnectionLost("no answer in time", timed_out=True, was_sent=True)
    if isinstance(error, ServerError | psycopg.OperationalError):
        text = " ".join(str(error).split())
        return ConnectionLost(f"the connection broke ({text})", was_sent=True)
    return error


# In an event loop


async def run_in_loop(waiting: Waiting[T], deadline: float) -> T:
    """Run a generator to its end; see ``run_blocking``."""
    loop = asyncio.get_running_loop()
    try:
        while True:
            descriptor, wait = next(waiting)
            await _wait_in_loop(loop, descriptor, wait, deadline)
    except StopIteration as end:
        result: T = end.value
        return result


async def _wait_in_loop(
    loop: asyncio.AbstractEventLoop, descriptor: int, wait: Wait, deadline: float
) -> None:
    future: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(max(deadline - time.monotonic(), 0), _expire, future)
    if wait is not Wait.WRITE:
        loop.add_reader(descriptor, _wake, future)
    if wait is not Wait.READ:
        loop.add_writer(descriptor, _wake, future)
    try:
        await future
    finally:
        timer.cancel()
        if wait is not Wait.WRITE:
            loop.remove_reader(descriptor)
        if wait is not Wait.READ:
            loop.remove_writer(descriptor)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _expire(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


class AsyncConnection:
    """A ``Transport`` for the running event loop.

    The loop watches the socket from the connection to its end, which saves two system calls for
    each batch, and detects at once that the server closed an idle connection.

    Args:
        server: to connect to.
        preparation: of statements.
    """

    __slots__ = (
        "_descriptor",
        "_is_closed",
        "_is_expired",
        "_loop",
        "_pgconn",
        "_preparation",
        "_prepared",
        "_server",
        "_waiter",
    )

    def __init__(self, server: Server, preparation: Preparation) -> None:
        self._server = server
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._pgconn: pq.abc.PGconn | None = None
        self._preparation = preparation
        self._prepared = PreparedStatements(preparation)
        self._descriptor = -1  # libpq closes the socket of a broken connection by itself
        self._waiter: asyncio.Future[None] | None = None
        self._is_expired = False

    async def connect(self, deadline: float) -> None:
        """Connect; see ``Transport``."""
        if self._pgconn is not None:
            return
        error = ConnectionLost("the store was closed")
        if self._is_closed:
            raise error
        for conninfo, end in _shares(await _resolve(self._server.attempts(), deadline), deadline):
            try:
                pgconn = await run_in_loop(connect(conninfo), end)
            except ConnectionLost as failure:
                error = failure
            except TimeoutError:
                error = ConnectionLost("it could not be reached in time", timed_out=True)
            else:
                pgconn.enter_pipeline_mode()
                self._descriptor = pgconn.socket
                self._loop.add_reader(self._descriptor, self._on_readable)
                self._pgconn = pgconn
                self._prepared = PreparedStatements(self._preparation)
                return
        raise error

    async def exchange(self, transactions: Sequence[Transaction], deadline: float) -> list[Outcome]:
        """Execute transactions; see ``Transport``."""
        if self._pgconn is None:
            await self.connect(deadline)
        pgconn = self._pgconn
        assert pgconn is not None  # noqa: S101 - connected above
        try:
            outcomes = await self._run(exchange(pgconn, transactions, self._prepared), deadline)
        except BaseException as error:
            if isinstance(error, TimeoutError):
                cancel_in_loop(pgconn)
            self.reset()
            if isinstance(error, Exception):
                raise exchange_error(error) from error
            raise
        if not is_reusable(pgconn):
            self.reset()
        return outcomes

    async def _run(self, waiting: Waiting[T], deadline: float) -> T:
        """Run a generator to its end; see ``run_in_loop``."""
        self._is_expired = False
        timer = self._loop.call_later(max(deadline - time.monotonic(), 0), self._expire)
        try:
            while True:
                descriptor, wait = next(waiting)
                if self._is_expired:
                    raise TimeoutError
                self._waiter = self._loop.create_future()
                if wait is not Wait.READ:
                    self._loop.add_writer(descriptor, self._wake)
                try:
                    await self._waiter
                finally:
                    self._waiter = None
                    if wait is not Wait.READ:
                        self._loop.remove_writer(descriptor)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            timer.cancel()

    def _on_readable(self) -> None:
        if self._waiter is not None:
            self._wake()
        elif self._pgconn is not None and not is_alive(self._pgconn):
            self.reset()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expire(self) -> None:
        self._is_expired = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(TimeoutError())

    def reset(self) -> None:
        """Close the connection; see ``Transport``."""
        pgconn, self._pgconn = self._pgconn, None
        if pgconn is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._descriptor)
            pgconn.finish()
            self._wake()  # a batch in flight fails at once instead of at its deadline

    def close(self) -> None:
        """Close the connection permanently; a batch that is in flight does not reconnect."""
        self._is_closed = True
        self.reset()


def cancel_in_loop(pgconn: pq.abc.PGconn) -> None:
    """Cancel the running statement, without waiting for that."""
    with contextlib.suppress(psycopg.Error):
        try:
            work = _complete_cancellation_in_loop(_cancel(pgconn.cancel_conn()))
        except psycopg.NotSupportedError:  # libpq before 17 blocks, for minutes if packets are lost
            cancel_in_thread(pgconn)
            return
        task = asyncio.get_running_loop().create_task(work)
        _cancellations.add(task)
        task.add_done_callback(_cancellations.discard)


async def _complete_cancellation_in_loop(waiting: Waiting[None]) -> None:
    with contextlib.suppress(psycopg.Error, TimeoutError):
        await run_in_loop(waiting, time.monotonic() + _CANCEL_TIMEOUT)


#: Strong references to running tasks; an event loop keeps weak ones only.
_cancellations: Final[set[asyncio.Task[None]]] = set()


async def _resolve(attempts: Sequence[dict[str, str]], deadline: float) -> list[dict[str, str]]:
    """Return attempts with the addresses of their hosts, because libpq would block the loop.

    Raises:
        ConnectionLost: no name has an address, or the deadline passed.
    """
    loop = asyncio.get_running_loop()
    resolved = []
    failure: Exception | None = None
    for parameters in attempts:
        host = parameters.get("host", "")
        if not host or host.startswith(("/", "@")) or parameters.get("hostaddr"):
            resolved.append(parameters)
            continue
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                found = await loop.getaddrinfo(host, parameters.get("port", "5432"), proto=6)
        except (OSError, TimeoutError) as error:
            failure = error
            continue
        addresses = dict.fromkeys(str(address[4][0]) for address in found)
        resolved += [{**parameters, "hostaddr": address} for address in addresses]
    if not resolved:
        if isinstance(failure, TimeoutError):  # whose text is empty
            text = "its name was not resolved in time"
        else:
            text = f"its name has no address: {failure}"
        raise ConnectionLost(f"it could not be reached ({text})") from failure
    return resolved
