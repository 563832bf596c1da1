"""Runs the command `sojourn` as a process: in a pipe, on a terminal, and with Ctrl-C."""

import contextlib
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

from tests.integration.valkey import PATIENCE

REPOSITORY = Path(__file__).parent.parent.parent

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"

SOJOURN = (sys.executable, "-m", "sojourn")


def environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a command: that of the tests without settings of sojourn."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SOJOURN_") and name not in {"COLUMNS", "NO_COLOR", "FORCE_COLOR"}
    }
    path = f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'src'}"
    return {**kept, "PYTHONPATH": path, **(given or {})}


@dataclass
class Answer:
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def document(self):
        """The JSON document on the standard output."""
        return json.loads(self.out)


def run(
    *words: str,
    program: Sequence[str] = SOJOURN,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Answer:
    """Run a command without a terminal; a traceback fails the test."""
    done = subprocess.run(
        [*program, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(environ),
        cwd=folder,
        timeout=10 * PATIENCE,
        check=False,
    )
    answer = Answer(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in answer.err, answer.err
    return answer


def _own_terminal() -> None:
    """Receive Ctrl-C of the terminal, which a background job would ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A command on a terminal of its own."""

    def __init__(
        self,
        *words: str,
        columns: int = 120,
        program: Sequence[str] = SOJOURN,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._master, follower = pty.openpty()
        ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.output = ""
        self._process = subprocess.Popen(
            [*program, *words],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=environment({"TERM": "xterm-256color", **(environ or {})}),
            cwd=folder,
            start_new_session=True,
            preexec_fn=_own_terminal,  # noqa: PLW1509 - it sets two flags and takes no lock
        )
        os.close(follower)

    def read_until(self, condition: Callable[[str], bool]) -> str:
        """Read until the output meets a condition."""
        deadline = time.monotonic() + PATIENCE
        while not condition(self.output):
            assert time.monotonic() < deadline, f"the terminal shows {self.output[-500:]!r}"
            if not self._read(0.1):
                break
        assert condition(self.output), (
            f"the command ended, and the terminal shows {self.output[-500:]!r}"
        )
        return self.output

    def type(self, text: str) -> None:
        r"""Type on the keyboard; ``\x03`` is Ctrl-C."""
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C until the command ends.

        CPython's readline does not notice a signal between its prompt and its first `select`.
        """
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"it runs; it shows {self.output[-500:]!r}"
            self.type("\x03")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)  # a second Ctrl-C would kill a command that is ending

    def end(self) -> tuple[int, str]:
        """Wait until the command ends; return its exit code and its whole output."""
        deadline = time.monotonic() + PATIENCE
        while self._read(0.1):
            assert time.monotonic() < deadline, (
                f"it runs; the terminal shows {self.output[-500:]!r}"
            )
        os.close(self._master)
        assert "Traceback" not in self.output, self.output
        return self._process.wait(PATIENCE), self.output

    def _read(self, seconds: float) -> bool:
        """Read the available output; return False at the end."""
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux reports the closed other side as EIO
            return False
        self.output += data.decode(errors="replace")
        return bool(data)
