"""What a command returns when the input is odd, a stream is closed or the disk is full."""

import errno
import io
import sys

import click
import pytest
from click.testing import CliRunner

from sojourn.cli import main
from sojourn.cli.group import SessionsGroup
from sojourn.cli.streams import prepare_streams
from sojourn.cli.target import Target

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"


def group_with(error):
    """Return a group with a command that raises an error."""
    group = SessionsGroup("sojourn", make_target=lambda _: Target(), modules={})

    @group.command("fail")
    def fail():
        raise error

    return group


def invoked(*words, error=None):
    """Run a command in this process; an error that is not caught fails the test."""
    modules = {**main.INSTALLATION_COMMANDS, **main.OTHER_COMMANDS}
    group = (
        SessionsGroup("sojourn", make_target=lambda _: Target(), modules=modules)
        if error is None
        else group_with(error)
    )
    return CliRunner(catch_exceptions=False).invoke(
        group, words, env={"SOJOURN_SECRET": SECRET, "SOJOURN_STORE": None}
    )


def test_an_unexpected_error_is_one_line_without_its_message():
    """B-49: the message may contain what an application keeps to itself."""
    answer = invoked("fail", error=ZeroDivisionError("hunter2"))
    assert answer.exit_code == 70
    assert answer.stderr.startswith("Error: unexpected ZeroDivisionError at test_group.py:")
    assert answer.stderr.count("\n") == 1
    assert "hunter2" not in answer.output


def test_a_full_disk_is_one_line():
    answer = invoked("fail", error=OSError(errno.ENOSPC, "No space left on device"))
    assert (answer.exit_code, answer.stderr) == (70, "Error: No space left on device\n")


def test_a_reader_that_has_gone_is_no_error():
    answer = invoked("fail", error=BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert (answer.exit_code, answer.stderr) == (141, "")


@pytest.mark.parametrize("option", ["--store", "--realm", "--app"])
def test_an_empty_option_is_refused(option):
    """A variable of a script that is not set must not choose another installation."""
    answer = invoked(option, "", "revoke-all", "--yes")
    assert answer.exit_code == 2
    assert "expected a value, found an empty text" in answer.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--store", "memory://", "revoke-all", "--yes"),
        ("migrate", "sqlite:///s.db", "memory://", "--yes"),
        ("migrate", "memory://", "sqlite:///s.db", "--yes"),
    ],
)
def test_the_memory_of_a_process_is_no_store_of_a_command(words):
    """`migrate` would move the sessions into a process that ends."""
    answer = invoked(*words)
    assert answer.exit_code == 2
    assert "memory://" in answer.stderr


def test_closed_streams_are_opened(monkeypatch):
    """The parent process may have closed them, as with `>&-`."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    prepare_streams()
    streams = [sys.stdin, sys.stdout, sys.stderr]
    assert [stream.isatty() for stream in streams] == [False] * 3
    for stream in streams:
        stream.close()


def test_characters_outside_the_encoding_of_the_output_are_escaped(monkeypatch):
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding="latin-1"))
    prepare_streams()
    click.echo("é 東")
    assert output.getvalue() == b"\xe9 \\u6771\n"
