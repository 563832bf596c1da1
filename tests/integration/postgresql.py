"""Real PostgreSQL servers and PgBouncer for tests, as child processes on free ports.

Both programs refuse to run as root. Root therefore starts them as an unprivileged user. Their files
are in short temporary folders, because that user cannot read the folders of pytest.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from tests.integration.postgresql_binaries import PGBOUNCER, require_packaged
from tests.integration.valkey import PATIENCE, free_port, wait_for_port
from tests.support.supervisor import supervise

#: The user that runs the servers when the tests run as root.
_UNPRIVILEGED = "nobody"

#: Smaller settings than in production, so that a server starts in half a second.
_SMALL = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "16MB",
    "max_wal_senders": "4",
    "hot_standby": "on",
    "log_min_messages": "warning",
}

#: Data need not be durable.
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class Postgres:
    """One PostgreSQL server; `start` makes an empty data folder unless there is one.

    Args:
        options: settings of `postgresql.conf`.
        programs: the folder with `initdb` and `postgres`; None for that of the package.
        durable: wait for the disk, as in production.
        folder: an existing empty folder for all files, such as a small file system; it is kept.

    Attributes:
        port: the TCP port, and the number in the name of the Unix socket.
        folder: contains the data and the Unix socket; None while nothing was started.
    """

    def __init__(
        self,
        options: dict[str, str] | None = None,
        *,
        programs: Path | None = None,
        durable: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.programs = readable(programs or require_packaged())
        self.port = free_port()
        self._options = _SMALL | ({} if durable else _NOT_DURABLE) | (options or {})
        self._given_folder = folder
        self.folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    # URLs

    @property
    def url(self) -> str:
        """The URL over TCP."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def socket_url(self) -> str:
        """The URL over the Unix socket."""
        return f"postgresql://postgres@/postgres?host={self.folder}&port={self.port}"

    # Processes

    @property
    def data(self) -> Path:
        """The data folder."""
        assert self.folder is not None, "the server was not started"
        return self.folder / "data"

    @property
    def log(self) -> str:
        """The server's output, of all its starts."""
        assert self.folder is not None, "the server was not started"
        return (self.folder / "server.log").read_text("utf-8", errors="replace")

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The process ID of the postmaster."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it answers a query."""
        if self.folder is None:
            self.folder = self._given_folder or make_folder("postgresql")
            give(self.folder)
        try:
            if not self.data.exists():
                self._initialize()
            settings = [f"--{name}={value}" for name, value in self._options.items()]
            with (self.folder / "server.log").open("ab") as log:
                self._process = start_program(
                    [
                        str(self.programs / "postgres"),
                        *("-D", str(self.data), "-p", str(self.port), "-k", str(self.folder)),
                        *settings,
                    ],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            self._wait_until_ready()
        except BaseException as error:
            if (self.folder / "server.log").exists():
                error.add_note(self.log[-5000:])
            self.remove()
            raise

    def _initialize(self) -> None:
        """Make an empty data folder: 0.7 seconds."""
        self._run(
            "initdb",
            *("-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"),
            *("--no-sync", "--no-instructions"),
        )

    def _run(self, program: str, *arguments: str) -> None:
        process = start_program(
            [str(self.programs / program), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, f"{program} failed:\n{output.decode()}"

    def _wait_until_ready(self) -> None:
        """Wait until it answers: while it starts or recovers, it accepts and refuses."""
        wait_for_port(self.port, self._process)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.admin().close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "the server starts for too long"
                time.sleep(0.02)  # another process starts and sends no signal: poll
            else:
                return

    def stop(self, mode: str = "fast") -> None:
        """Stop as `pg_ctl stop -m` does and keep the data.

        Args:
            mode: "fast" closes connections and writes a checkpoint; "immediate" is a crash.
        """
        if self._process is None:
            return
        signals = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
        children = self.processes()[1:]
        self._process.send_signal(signals[mode])
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            for pid in [*children, self.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(PATIENCE)
            raise AssertionError(f"the server did not stop:\n{self.log[-5000:]}") from None
        finally:
            self._process = None

    def restart(self, mode: str = "fast") -> None:
        """Stop and start again with the same data and port."""
        self.stop(mode)
        self.start()

    def remove(self) -> None:
        """Stop and delete all files."""
        try:
            self.stop("immediate")
        finally:
            if self.folder is not None and self._given_folder is None:
                shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def processes(self) -> list[int]:
        """Return the process IDs of the postmaster and, after it, of all its processes."""
        children = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has ended
                if int(stat.read_text().rpartition(")")[2].split()[1]) == self.pid:
                    children.append(int(stat.parent.name))
        return [self.pid, *children]

    @contextmanager
    def refusing(self, mode: str = "fast") -> Iterator[None]:
        """Stop the server inside the block; start it again after it."""
        self.stop(mode)
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Inside the block, accept connections and send nothing, also on existing ones."""
        # The postmaster first: then the list of its processes does not change.
        os.kill(self.pid, signal.SIGSTOP)
        stopped = self.processes()
        try:
            for pid in stopped[1:]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in reversed(stopped):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    # Clients

    def admin(self, **parameters: Any) -> psycopg.Connection[Any]:
        """Return an autocommit connection over the Unix socket for the test itself."""
        return psycopg.connect(
            self.socket_url, autocommit=True, application_name="admin", **parameters
        )

    def query(self, sql: str, *parameters: object) -> list[Any]:
        """Return the rows of one statement, on a new connection."""
        with self.admin() as connection:
            cursor = connection.execute(sql, parameters or None)
            return [] if cursor.description is None else cursor.fetchall()

    def reset(self) -> None:
        """Delete all tables, and the schemas that tests have created."""
        with self.admin(options="-c lock_timeout=10s") as connection:
            schemas = connection.execute(
                "SELECT quote_ident(nspname) FROM pg_namespace"
                " WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
            ).fetchall()
            for (schema,) in schemas:
                connection.execute(f"DROP SCHEMA {schema} CASCADE")
            connection.execute("CREATE SCHEMA public")

    def connections(self) -> int:
        """Return the number of client connections without those of `admin`."""
        ((count,),) = self.query(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND application_name <> 'admin'"
        )
        return int(count)

    # Replication

    def make_replica(self) -> "Postgres":
        """Return a started streaming replica of this server; the caller removes it."""
        replica = Postgres(self._options, programs=self.programs)
        replica.folder = make_folder("postgresql")
        give(replica.folder)
        replica._run(
            "pg_basebackup",
            *("-h", str(self.folder), "-p", str(self.port), "-U", "postgres"),
            *("-D", str(replica.data), "-X", "stream", "-R", "-c", "fast", "--no-sync"),
        )
        replica.start()
        return replica

    def promote(self) -> None:
        """Make a replica a primary; return when it accepts writes."""
        assert self.query("SELECT pg_promote(true, 20)") == [(True,)]

    def wait_for_replica(self) -> None:
        """Wait until every replica of this server has applied all commits."""
        (position,) = self.query("SELECT pg_current_wal_lsn()")[0]
        deadline = time.monotonic() + PATIENCE
        behind = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn < %s::pg_lsn"
        while self.query(behind, position) != [(0,)]:
            assert time.monotonic() < deadline, "the replica does not catch up"
            time.sleep(0.02)  # replication sends this process no signal: poll


class PgBouncer:
    """A PgBouncer in transaction mode in front of a server.

    Args:
        server: must have been started.
        options: settings of the section `pgbouncer`.
        program: None for the system's.
    """

    def __init__(
        self, server: Postgres, options: dict[str, str] | None = None, *, program: str | None = None
    ) -> None:
        self._server = server
        self._options = options or {}
        self._program = program or PGBOUNCER
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it accepts connections."""
        assert self._program is not None, "no pgbouncer is installed"
        folder = self._folder = make_folder("pgbouncer")
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": str(folder),
            "auth_type": "any",
            "pool_mode": "transaction",
            "max_client_conn": "500",
            "default_pool_size": "20",
            # With the default, clients get the error for 15 seconds after the end of the failure.
            "server_login_retry": "0.2",
        } | self._options
        target = f"host={self._server.folder} port={self._server.port} user=postgres"
        lines = ["[databases]", f"* = {target}"]
        lines += ["[pgbouncer]", *(f"{name} = {value}" for name, value in settings.items())]
        (folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        give(folder)
        with (folder / "pgbouncer.log").open("wb") as log:
            self._process = start_program(
                [self._program, str(folder / "pgbouncer.ini")],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_for_port(self.port, self._process)
        except BaseException as error:
            error.add_note((folder / "pgbouncer.log").read_text())
            self.stop()
            raise

    def wait_until_connected(self) -> None:
        """Wait until it has reconnected to its server; before that it rejects clients."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with psycopg.connect(self.url, connect_timeout=5) as client:
                    client.execute("SELECT 1")
                    return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "PgBouncer does not connect"
                time.sleep(0.05)  # it sends no signal between its attempts: poll

    def stop(self) -> None:
        """Stop it and delete its files."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


# Programs as an unprivileged user


def _unprivileged() -> pwd.struct_passwd | None:
    """Return the user that runs the servers; None for the user of the tests."""
    return pwd.getpwnam(_UNPRIVILEGED) if os.geteuid() == 0 else None


def start_program(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program that refuses root; Ctrl-C in the terminal does not reach it."""
    user = _unprivileged()
    if user is not None:
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    environment = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    process = subprocess.Popen(
        command,
        cwd="/",
        env={**environment, "LC_ALL": "C", "TZ": "UTC"},
        start_new_session=True,
        **options,
    )
    supervise(process.pid)
    return process


def make_folder(kind: str) -> Path:
    """Return a new temporary folder with a short name: a Unix socket path has at most 107 bytes."""
    return Path(tempfile.mkdtemp(prefix=f"{kind}-", dir="/tmp"))


def give(folder: Path) -> None:
    """Change the owner of a folder and its files to the user that runs the servers."""
    user = _unprivileged()
    if user is not None:
        for path in (folder, *folder.iterdir()):
            os.chown(path, user.pw_uid, user.pw_gid)


_copies: dict[Path, tempfile.TemporaryDirectory[str]] = {}


def readable(programs: Path) -> Path:
    """Return a folder of programs, or a copy if the unprivileged user cannot reach it."""
    install = programs.parent
    if _unprivileged() is None or all(
        folder.stat().st_mode & 0o001 for folder in (programs, *programs.parents)
    ):
        return programs
    if install not in _copies:
        _copies[install] = tempfile.TemporaryDirectory(prefix="postgresql-programs-")
        copy = Path(_copies[install].name)
        copy.chmod(0o755)
        # A wheel has shared libraries next to the package; programs load them by relative path.
        package = install.parent
        shutil.copytree(install, copy / package.name / install.name)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, copy / libraries.name)
    return Path(_copies[install].name, install.parent.name, install.name, programs.name)
