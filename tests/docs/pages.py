"""Runs the code blocks of a documentation page: Python, programs and terminal transcripts.

* ```` ```python ```` blocks run in order, in one namespace per page.
* ```` ```python title="app.py" ```` is written to a file of that name: a complete program.
* ```` ```console ```` is a transcript. `$ uvicorn …` starts a server on a free port, and so does
  `$ python app.py`, the program of the page. `$ curl …` is executed, and its output must match the
  lines below it. `…` matches any text; alone on a line it matches any lines. Port 8000 in a page
  stands for the server's port. Other commands do not run.

Invisible and skipped blocks use sybil's syntax: `<!-- invisible-code-block: python … -->`,
`<!-- skip: next "reason" -->`. Any other block is shown to readers only.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

PAGE_PORT = "8000"
LISTENING = re.compile(r"Uvicorn running on http://[\d.]+:(\d+)")
CURL_TIMEOUT = "10"
START_TIMEOUT = 20.0


class PageRunner:
    """Runs the programs and transcripts of one page in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = ""
        self.port = ""
        self.server = ExitStack()

    def parse_programs(self, document: Document) -> Iterable[Region]:
        """Find blocks with a title (a sybil parser)."""
        yield from self._regions(document, r'python title="(?P<name>\w+\.py)"', self._write_program)

    def parse_transcripts(self, document: Document) -> Iterable[Region]:
        """Find terminal transcripts (a sybil parser)."""
        yield from self._regions(document, r"console", self._run_transcript)

    def _regions(self, document: Document, info: str, evaluator) -> Iterator[Region]:
        for region in RawFencedCodeBlockLexer(re.compile(rf"{info}$\n", re.MULTILINE))(document):
            region.parsed = region.lexemes
            region.evaluator = evaluator
            yield region

    def _write_program(self, example: Example) -> None:
        name = example.parsed["name"]
        (self.folder / name).write_text(example.parsed["source"], "utf-8")
        compile(example.parsed["source"], name, "exec")
        self.program = name.removesuffix(".py")

    def _run_transcript(self, example: Example) -> None:
        for command, expected in parse_commands(example.parsed["source"]):
            words = shlex.split(command)
            if words[0] == "uvicorn":
                self._start_server(words[1:])
            elif words == ["python", f"{self.program}.py"]:
                self._start_program(words[1])
            elif words[0] == "curl":
                if not self.port:
                    self._start_server([f"{self.program}:app"])
                self._compare(command, expected, f"{example.path}:{example.line}")

    def _start_server(self, arguments: list[str]) -> None:
        self.server.close()  # a page may start several programs, one after another
        self.port = self.server.enter_context(run_uvicorn(arguments, self.folder))

    def _start_program(self, name: str) -> None:
        """Start a program with a server of its own, on a free port."""
        self.server.close()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        path = self.folder / name
        path.write_text(path.read_text("utf-8").replace(PAGE_PORT, self.port), "utf-8")
        self.server.enter_context(run_program(name, self.folder, int(self.port)))

    def _compare(self, command: str, expected: str, location: str) -> None:
        if shutil.which("curl") is None:
            pytest.skip("transcripts need curl")
        words = shlex.split(command.replace(f":{PAGE_PORT}", f":{self.port}"))
        words[1:1] = ["--max-time", CURL_TIMEOUT, "--noproxy", "*"]
        result = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False)
        output = result.stdout.replace(f":{self.port}", f":{PAGE_PORT}").replace("\r", "")
        if not compile_pattern(expected).fullmatch(normalize_end(output)):
            pytest.fail(
                f"{location}: $ {command}\n--- the page says\n{expected}\n--- curl says\n"
                f"{output}\n{result.stderr}",
                pytrace=False,
            )


@contextmanager
def run_uvicorn(arguments: list[str], folder: Path) -> Iterator[str]:
    """Run uvicorn in a folder; yield its port once it accepts connections."""
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *arguments, "--port", "0"],
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output = []
        for line in server.stdout:  # ends with the process; a hanging one meets the test's timeout
            output.append(line)
            if found := LISTENING.search(line):
                wait_for_port(int(found[1]))
                yield found[1]
                break
        else:
            pytest.fail("uvicorn did not start:\n" + "".join(output), pytrace=False)
    finally:
        server.terminate()
        server.communicate()


@contextmanager
def run_program(name: str, folder: Path, port: int) -> Iterator[None]:
    """Run a program in a folder while it serves a port."""
    log = (folder / "program.log").open("wb")
    program = subprocess.Popen(
        [sys.executable, name], cwd=folder, stdout=log, stderr=subprocess.STDOUT
    )
    try:
        wait_for_port(port)
        yield
    finally:
        program.terminate()
        program.wait(START_TIMEOUT)
        log.close()


def wait_for_port(port: int) -> None:
    """Wait until a local port accepts connections: uvicorn --workers prints its line earlier."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=START_TIMEOUT).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # a process of its own is starting: there is no event to wait for
        else:
            return


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
        SkipParser(),
    ]
    document = Sybil(parsers, path=str(path.parent), pattern=path.name).parse(path)
    document.namespace["__name__"] = path.stem
    with runner.server:
        return sum(1 for example in document.examples() if example.evaluate() is None)
