"""`sojourn` on a terminal and in pipes: escaping, colours, widths, confirmation, Ctrl-C."""

import re
import subprocess

import pytest

from tests.integration.command_line_stores import Installation
from tests.support.command_line import SOJOURN, Terminal, environment, run

pytestmark = pytest.mark.timeout(180)

EVIL = "ada\x1b]0;owned\x07\u202e[red]x[/red]\n"
SHOWN = r"ada\x1b]0;owned\x07\u202e[red]x[/red]\n"


@pytest.fixture
def installation(tmp_path):
    made = Installation(f"sqlite:///{tmp_path}/sessions.db")
    yield made
    made.sessions.close()


def without_styles(output: str) -> str:
    """Return the text of terminal output, without styles."""
    return re.sub(r"\x1b\[[0-9;]*m", "", output)


def test_control_characters_and_markup_are_shown_escaped(installation):
    """A user name or a label cannot send escape sequences to the operator's terminal."""
    session_id = installation.add(EVIL, browser=EVIL)
    listed = Terminal("list", environ=installation.environ, columns=200)
    code, output = listed.end()
    assert code == 0
    assert "\x1b]" not in output
    assert "\u202e" not in output
    assert SHOWN in without_styles(output)
    for command in (["list"], ["show", session_id]):
        answer = installation.run(*command)
        assert "\x1b" not in answer.out + answer.err
        assert "\u202e" not in answer.out + answer.err
    answer = installation.run("revoke-user", EVIL)
    assert answer.out == f"revoked 1 session of {SHOWN}\n"


@pytest.mark.slow
def test_snapshots_and_documents_are_escaped(installation):
    installation.add(EVIL, browser=EVIL)
    for command in (["top", "--once"], ["top", "--json"], ["list", "--json"]):
        answer = installation.run(*command)
        assert "\x1b" not in answer.out + answer.err
        assert "\u202e" not in answer.out + answer.err


@pytest.mark.slow
def test_colours_are_off_in_a_pipe_and_with_no_color(installation):
    installation.add("ada")
    coloured = Terminal("list", environ=installation.environ)
    assert "\x1b[36m" in coloured.end()[1]
    plain = Terminal("list", environ={**installation.environ, "NO_COLOR": "1"})
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", plain.end()[1])
    for command in ("list", "stats", "bench", "history", "count"):
        answer = installation.run(command)
        assert "\x1b" not in answer.out + answer.err


@pytest.mark.slow
def test_narrow_and_wide_terminals(installation):
    """An ID is never truncated, because it is copied into the next command."""
    session_id = installation.add("ada lovelace", browser="Firefox", address="203.0.113.77")
    for columns in (40, 60, 80, 200):
        _, output = Terminal("list", environ=installation.environ, columns=columns).end()
        shown = without_styles(output)
        assert session_id in shown
        assert "Firefox" in shown
        assert ("expires" in shown) == (columns in {40, 60, 200})
        _, output = Terminal("top", "--once", environ=installation.environ, columns=columns).end()
        assert session_id in without_styles(output)
        assert "ada" in without_styles(output)
        _, output = Terminal("stats", environ=installation.environ, columns=columns).end()
        assert "live sessions" in without_styles(output)


@pytest.mark.slow
def test_a_terminal_without_a_size_shows_the_list(installation):
    """Some programs set COLUMNS=0; rich would print nothing."""
    session_id = installation.add("ada")
    for columns in (0, 80):
        environ = {**installation.environ, "COLUMNS": "0"}
        _, output = Terminal("list", environ=environ, columns=columns).end()
        assert session_id in without_styles(output)


@pytest.mark.slow
def test_a_terminal_that_cannot_redraw_gets_one_snapshot(installation):
    session_id = installation.add("ada")
    code, output = Terminal("top", environ={**installation.environ, "TERM": "dumb"}).end()
    assert code == 0
    assert session_id in output


@pytest.mark.slow
def test_closed_pipe_is_no_error(installation):
    for _ in range(2000):
        installation.add()
    environ = environment(installation.environ)
    command = [*SOJOURN, "list", "--all"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.slow
def test_several_sessions_are_revoked_only_after_confirmation(installation):
    ids = [installation.add("ada") for _ in range(2)]
    for command in (["revoke", *ids], ["revoke-user", "ada"], ["revoke-all"]):
        terminal = Terminal(*command, environ=installation.environ)
        terminal.read_until(lambda output: "[y/N]" in output)
        terminal.type("n\n")
        code, output = terminal.end()
        assert code == 1
        assert "nothing was changed" in output
    assert len(installation.sessions.list_user("ada")) == 2
    terminal = Terminal("revoke-user", "ada", environ=installation.environ)
    terminal.read_until(lambda output: "Revoke 2 sessions of ada" in output)
    terminal.type("y\n")
    assert terminal.end()[0] == 0
    assert installation.sessions.list_user("ada") == []


@pytest.mark.slow
def test_progress_of_examined_sessions_is_not_part_of_the_output(installation):
    """The progress line is cleared."""
    for _ in range(3000):
        installation.add()
    words = ("list", "--label", "browser=Firefox")
    _, output = Terminal(*words, environ=installation.environ).end()
    assert output.endswith("sessions examined\r\x1b[KNo session was found.\r\n")


@pytest.mark.slow
def test_ctrl_c_at_a_confirmation_changes_nothing(installation):
    installation.add("ada")
    terminal = Terminal("revoke-all", environ=installation.environ)
    terminal.read_until(lambda output: "[y/N]" in output)
    terminal.interrupt()
    assert terminal.end()[0] == 130
    assert len(installation.sessions.list_user("ada")) == 1


@pytest.mark.slow
def test_top_updates_and_stops_at_ctrl_c(installation):
    """The terminal is restored: the alternate screen is closed."""
    installation.add("ada")
    view = Terminal("top", "--interval", "0.2", environ=installation.environ)
    view.read_until(lambda output: "ada" in output)
    installation.add("grace")
    view.read_until(lambda output: "grace" in output)
    view.type("\x03")
    code, output = view.end()
    assert code == 0
    assert output.rindex("\x1b[?1049l") > output.rindex("\x1b[?1049h")


@pytest.mark.slow
def test_bench_deletes_its_sessions_after_ctrl_c(installation):
    """Also if it is interrupted."""
    installation.add("ada")
    measuring = Terminal("bench", "--count", "100000", environ=installation.environ)
    measuring.read_until(lambda output: len(output) > 200)  # the progress bar advanced
    assert installation.sessions.count() > 1
    measuring.type("\x03")
    assert measuring.end()[0] == 130
    assert installation.sessions.count() == 1


@pytest.mark.slow
def test_exit_code_with_closed_streams_and_a_full_disk(installation):
    """A shell redirection may close a stream; `list` needs only standard output."""
    installation.add("ada")
    command = " ".join([*SOJOURN, "list"])
    for redirection, code in (
        (">&-", 0),
        ("2>&-", 0),
        ("<&-", 0),
        (">/dev/full", 70),
        ("--help >/dev/full", 70),
    ):
        answer = run(
            "-c", f"{command} {redirection}", program=("sh",), environ=installation.environ
        )
        assert answer.code == code, redirection
        assert answer.err in {"", "Error: No space left on device\n"}


@pytest.mark.slow
def test_table_into_a_closed_pipe_does_not_return_1(installation):
    """Rich would exit with 1, which means "not found"."""
    for command in (["top", "--once"], ["stats"], ["list", "--json"]):
        installation.add("ada")
        with subprocess.Popen(
            [*SOJOURN, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(installation.environ),
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 141
