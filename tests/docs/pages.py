"""Runs the code blocks of a documentation page: Python, programs and terminal transcripts.

* ```` ```python ```` blocks run in order, in one namespace per page.
* ```` ```python title="app.py" ```` is written to a file of that name: a complete program. So are
  blocks of other languages with a title, such as ```` ```ini title="site.ini" ````.
* ```` ```console ```` is a transcript. The command of a server, such as `$ uvicorn …` or
  `$ python app.py`, starts it; `$ python manage.py migrate` runs to its end; `$ curl …` is
  executed, and its output must match the lines below it, or is stored with `> file`. `…` matches
  any text; alone on a line it matches any lines. `$ sojourn …` is executed if its output is below
  it. Port 8000 in a page is replaced by a free port. Other commands do not run.
* ```` ```sql ```` runs in PostgreSQL as a superuser, all statements in one transaction.

A page whose Python contains `postgresql://` gets a separate server, with the user and the database
`app`. Its URLs name no port: libpq takes it from the environment.

Invisible and skipped blocks use sybil's syntax: `<!-- invisible-code-block: python … -->`,
`<!-- skip: next "reason" -->`. Any other block is shown to readers only.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from tests.integration.postgresql import Postgres
from tests.integration.valkey import free_port
from tests.support.supervisor import supervise

PAGE_PORT = "8000"
CURL_TIMEOUT = "10"
START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0

#: The source under test, not an installed package.
SOURCE = Path(__file__).parent.parent.parent / "src"

#: The folder with the commands of the servers.
BIN = Path(sys.executable).parent

#: Finds a program or a Python block with a URL of PostgreSQL, or a block of SQL.
_USES_POSTGRESQL = re.compile(r"^```(?:sql$|python(?:(?!^```)[\s\S])*postgresql://)", re.MULTILINE)

#: Commands that start a server, and the option for its port. None if the page has to state the
#: port, because the server has another default port than the pages.
SERVERS = {
    "daphne": "--port",
    "flask": None,
    "granian": "--port",
    "gunicorn": "--bind",
    "hypercorn": "--bind",
    "litestar": "--port",
    "pserve": None,
    "python": None,
    "quart": None,
    "sanic": "--port",
    "uvicorn": "--port",
}


class PageRunner:
    """Runs the programs and transcripts of one page in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = ""
        self.port = str(free_port())
        self.started = False
        self.server = ExitStack()

    def parse_programs(self, document: Document) -> Iterable[Region]:
        """Find blocks with a title (a sybil parser)."""
        yield from self._regions(
            document, r'\w+ title="(?P<name>[\w/]+\.\w+)"', self._write_program
        )

    def parse_transcripts(self, document: Document) -> Iterable[Region]:
        """Find terminal transcripts (a sybil parser)."""
        yield from self._regions(document, r"console", self._run_transcript)

    def parse_sql(self, document: Document) -> Iterable[Region]:
        """Find statements for PostgreSQL (a sybil parser)."""
        yield from self._regions(document, r"sql", self._run_sql)

    def _regions(self, document: Document, info: str, evaluator) -> Iterator[Region]:
        for region in RawFencedCodeBlockLexer(re.compile(rf"{info}$\n", re.MULTILINE))(document):
            region.parsed = region.lexemes
            region.evaluator = evaluator
            yield region

    def _write_program(self, example: Example) -> None:
        name, source = example.parsed["name"], example.parsed["source"]
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source.replace(PAGE_PORT, self.port), "utf-8")
        if path.suffix == ".py":
            compile(source, name, "exec")
            self.program = path.stem

    def _run_transcript(self, example: Example) -> None:
        for command, expected in parse_commands(example.parsed["source"]):
            words = shlex.split(command)
            if words[:2] == ["python", "manage.py"] and words[2] != "runserver":
                subprocess.run([sys.executable, *words[1:]], cwd=self.folder, check=True)
            elif words[0] in SERVERS and words[1:2] != ["-m"]:
                self._start_server(words)
            elif words[0] == "curl":
                if not self.started:
                    self._start_server(["uvicorn", f"{self.program}:app"])
                self._compare(command, expected, f"{example.path}:{example.line}")
            elif words[0] == "sojourn" and expected:
                self._run_sojourn(words[1:], expected, f"{example.path}:{example.line}")

    def _run_sojourn(self, words: list[str], expected: str, location: str) -> None:
        result = subprocess.run(
            [sys.executable, "-m", "sojourn", *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            check=False,
        )
        if not compile_pattern(expected).fullmatch(normalize_end(result.stdout)):
            pytest.fail(
                f"{location}: $ sojourn {shlex.join(words)}\n--- the page says\n{expected}\n"
                f"--- the command says\n{result.stdout}\n{result.stderr}",
                pytrace=False,
            )

    def _run_sql(self, example: Example) -> None:
        with psycopg.connect("postgresql://postgres@localhost/app") as connection:
            connection.execute(example.parsed["source"])

    def _start_server(self, words: list[str]) -> None:
        self.server.close()  # a page may start several programs, one after another
        self.started = True
        name, *arguments = (word.replace(PAGE_PORT, self.port) for word in words)
        option = SERVERS[name]
        if option is not None and not any(self.port in word for word in arguments):
            address = f"127.0.0.1:{self.port}" if option == "--bind" else self.port
            arguments += [option, address]
        command = [sys.executable] if name == "python" else [str(BIN / name)]
        self.server.enter_context(run_server([*command, *arguments], self.folder, int(self.port)))

    def _compare(self, command: str, expected: str, location: str) -> None:
        if shutil.which("curl") is None:
            pytest.skip("transcripts need curl")
        words = shlex.split(command.replace(f":{PAGE_PORT}", f":{self.port}"))
        words[1:1] = ["--max-time", CURL_TIMEOUT, "--noproxy", "*"]
        *words, target = words if words[-2] == ">" else [*words, None]
        if target is not None:
            words.pop()
        result = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False)
        if target is not None:
            (self.folder / target).write_text(result.stdout, "utf-8")
            result.stdout = ""
        output = result.stdout.replace(f":{self.port}", f":{PAGE_PORT}").replace("\r", "")
        if not compile_pattern(expected).fullmatch(normalize_end(output)):
            pytest.fail(
                f"{location}: $ {command}\n--- the page says\n{expected}\n--- curl says\n"
                f"{output}\n{result.stderr}",
                pytrace=False,
            )


@contextmanager
def run_server(command: list[str], folder: Path, port: int) -> Iterator[None]:
    """Run a server in a folder until the block ends; wait until it accepts connections."""
    log = folder / "page-server.log"
    path = f"{folder}{os.pathsep}{SOURCE}"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its workers are stopped with it
        )
        supervise(server.pid)
        try:
            wait_for_port(server, port, log)
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(STOP_TIMEOUT)


def wait_for_port(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a server accepts connections."""
    deadline = time.monotonic() + START_TIMEOUT
    while server.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=START_TIMEOUT).close()
        except ConnectionRefusedError:
            time.sleep(0.05)  # another process starts and sends no signal: poll
        else:
            return
    pytest.fail("the server did not start:\n" + log.read_text("utf-8"), pytrace=False)


def parse_commands(transcript: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a transcript with the output expected below it."""
    for part in re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]:
        lines = part.replace("\\\n", " ")  # a command may continue on the next line
        command, _, expected = lines.partition("\n")
        yield command, expected.rstrip("\n")


def compile_pattern(expected: str) -> re.Pattern[str]:
    """Return the regular expression of an expected output in which `…` matches any text."""
    lines = (
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*?") + r"[ \t]*\n"
        for line in expected.splitlines()
    )
    return re.compile("".join(lines))


def normalize_end(text: str) -> str:
    """Return the text with exactly one newline at its end, or the empty string."""
    return text.rstrip("\n") + "\n" if text.strip() else ""


@contextmanager
def run_postgresql() -> Iterator[None]:
    """Run a PostgreSQL server; URLs without a port connect to it."""
    server = Postgres()
    server.start()
    try:
        server.query("CREATE ROLE app LOGIN PASSWORD 'app'")
        server.query("CREATE DATABASE app OWNER app")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PGPORT", str(server.port))
            yield
    finally:
        server.remove()


def run_page(path: Path, folder: Path) -> int:
    """Run every block of a page; its programs and servers use the given folder.

    Returns:
        The number of blocks that ran.
    """
    runner = PageRunner(folder)
    parsers = [
        PythonCodeBlockParser(),
        runner.parse_programs,
        runner.parse_transcripts,
        runner.parse_sql,
        SkipParser(),
    ]
    document = Sybil(parsers, path=str(path.parent), pattern=path.name).parse(path)
    document.namespace["__name__"] = path.stem
    with ExitStack() as stack:
        if _USES_POSTGRESQL.search(document.text):
            stack.enter_context(run_postgresql())
        stack.enter_context(runner.server)  # stopped before the server it uses
        return sum(1 for example in document.examples() if example.evaluate() is None)
