"""How a page of documentation runs: which blocks are code, programs and transcripts.

A page is Markdown. ```` ```python ```` blocks run one after the other in one namespace.
```` ```python title="app.py" ```` is a program: it is written to a file of that name.
```` ```console ```` is a transcript: `$ uvicorn app:app …` starts a real server on a free port,
`$ curl …` is run by the real curl, and what stands below it must be its output, where `…`
stands for any text and, alone on a line, for any lines. Port 8000 in a page is the server's.
Other commands of a transcript are for the reader alone. What is invisible or skipped is marked as
sybil does: `<!-- invisible-code-block: python … -->`, `<!-- skip: next "reason" -->`.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

PAGE_PORT = "8000"
LISTENING = re.compile(r"Uvicorn running on http://[\d.]+:(\d+)")
CURL_SECONDS = "10"


class Player:
    """Runs the programs and transcripts of one page in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = ""
        self.port = ""
        self.ending = ExitStack()

    def programs(self, document: Document) -> Iterable[Region]:
        """Find blocks that are a whole program (a sybil parser)."""
        yield from self._regions(document, r'python title="(?P<name>\w+\.py)"', self._write)

    def transcripts(self, document: Document) -> Iterable[Region]:
        """Find transcripts of a terminal (a sybil parser)."""
        yield from self._regions(document, r"console", self._play)

    def _regions(self, document: Document, info: str, evaluator) -> Iterator[Region]:
        for region in RawFencedCodeBlockLexer(re.compile(rf"{info}$\n", re.MULTILINE))(document):
            region.parsed = region.lexemes
            region.evaluator = evaluator
            yield region

    def _write(self, example: Example) -> None:
        name = example.parsed["name"]
        (self.folder / name).write_text(example.parsed["source"], "utf-8")
        compile(example.parsed["source"], name, "exec")
        self.program = name.removesuffix(".py")

    def _play(self, example: Example) -> None:
        for command, expected in commands(example.parsed["source"]):
            words = shlex.split(command)
            if words[0] == "uvicorn":
                self._serve(words[1:])
            elif words[0] == "curl":
                if not self.port:
                    self._serve([f"{self.program}:app"])
                self._compare(command, expected, f"{example.path}:{example.line}")

    def _serve(self, arguments: list[str]) -> None:
        self.ending.close()  # a page may start one program after another
        self.port = self.ending.enter_context(served(arguments, self.folder))

    def _compare(self, command: str, expected: str, where: str) -> None:
        if shutil.which("curl") is None:
            pytest.skip("the transcripts need curl")
        words = shlex.split(command.replace(f":{PAGE_PORT}", f":{self.port}"))
        words[1:1] = ["--max-time", CURL_SECONDS, "--noproxy", "*"]
        answer = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False)
        got = answer.stdout.replace(f":{self.port}", f":{PAGE_PORT}").replace("\r", "")
        if not pattern(expected).fullmatch(ended(got)):
            pytest.fail(
                f"{where}: $ {command}\n--- the page says\n{expected}\n--- curl says\n"
                f"{got}\n{answer.stderr}",
                pytrace=False,
            )


@contextmanager
def served(arguments: list[str], folder: Path) -> Iterator[str]:
    """Run uvicorn in the folder and yield its port as soon as it listens."""
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *arguments, "--port", "0"],
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = []
        for line in server.stdout:  # ends when the server does; a hanging one meets the time limit
            said.append(line)
            if found := LISTENING.search(line):
                yield found[1]
                break
        else:
            pytest.fail("uvicorn did not start:\n" + "".join(said), pytrace=False)
    finally:
        server.terminate()
        server.communicate()


def commands(transcript: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a transcript with the output that follows it."""
    for part in re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]:
        lines = part.replace("\\\n", " ")  # a command may go on in the next line
        command, _, expected = lines.partition("\n")
        yield command, expected.rstrip("\n")


def pattern(expected: str) -> re.Pattern[str]:
    """Return the expression for an expected output in which `…` stands for anything."""
    lines = (
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*?") + r"[ \t]*\n"
        for line in expected.splitlines()
    )
    return re.compile("".join(lines))


def ended(text: str) -> str:
    """Return the text with exactly one line break at its end, or empty."""
    return text.rstrip("\n") + "\n" if text.strip() else ""


def run_page(path: Path, folder: Path) -> int:
    """Run every block of a page with the folder for its files.

    Returns:
        The number of blocks that ran.
    """
    player = Player(folder)
    parsers = [PythonCodeBlockParser(), player.programs, player.transcripts, SkipParser()]
    document = Sybil(parsers, path=str(path.parent), pattern=path.name).parse(path)
    document.namespace["__name__"] = path.stem
    with player.ending:
        return sum(1 for example in document.examples() if example.evaluate() is None)
