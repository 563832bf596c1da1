"""What a command returns when the input is odd, a stream is closed or the disk is full."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import sojourn
from sojourn.cli import main
from sojourn.cli.group import SessionsGroup
from sojourn.cli.standard_streams import prepare_streams
from sojourn.cli.target import DEFAULT_STORE, Target, read_secret_file
from sojourn.config import OPTIONS
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.sessions import SessionPage
from sojourn.stores.sqlite.inspection import list_realms

SECRET = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"


def group_with(error):
    """Return a group with a command that raises an error."""
    group = SessionsGroup("sojourn", make_target=lambda _: Target(), modules={})

    @group.command("fail")
    def fail():
        raise error

    return group


def invoked(*words, error=None, secret=SECRET):
    """Run a command in this process; an error that is not caught fails the test."""
    modules = {**main.INSTALLATION_COMMANDS, **main.OTHER_COMMANDS}
    group = (
        SessionsGroup("sojourn", make_target=lambda _: Target(), modules=modules)
        if error is None
        else group_with(error)
    )
    return CliRunner(catch_exceptions=False).invoke(
        group, words, env={"SOJOURN_SECRET": secret, "SOJOURN_STORE": None}
    )


@pytest.fixture
def sessions(tmp_path):
    """Sessions in a SQLite database."""
    made = sojourn.Sessions(store=f"sqlite:///{tmp_path}/s.db", secret=SECRET)
    yield made
    made.close()


@pytest.fixture
def store(sessions, tmp_path):
    """The option that names the database of `sessions`, which exists."""
    sessions.ping()
    return f"--store=sqlite:///{tmp_path}/s.db"


def add(sessions, user=None):
    """Create a session; return its ID."""
    with sessions.open() as visit:
        visit.session["n"] = 1
        if user is not None:
            visit.session.login(user)
    return visit.session.id


def ticket_of(sessions):
    """Return the ticket of a new session."""
    with sessions.open() as visit:
        visit.session["n"] = 1
    cookie = dict(visit.response_headers())["set-cookie"]
    return cookie.partition("=")[2].partition(";")[0]


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


def test_a_closed_pipe_is_no_error():
    answer = invoked("fail", error=BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert (answer.exit_code, answer.stderr) == (141, "")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE])
def test_the_exit_code_stays_if_the_standard_error_cannot_be_written(monkeypatch, number):
    """Python would end with 1, which means that nothing was found."""

    class Unwritable(io.StringIO):
        def write(self, _):
            raise OSError(number, "the disk is full, or the reader has gone")

    monkeypatch.setattr(sys, "stderr", Unwritable())
    group = group_with(StoreUnavailable("the store hangs"))
    with pytest.raises(SystemExit) as ended:
        group.main(["fail"], prog_name="sojourn")
    assert ended.value.code == 3


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
        (OSError(errno.ENOSPC, "No space left on device"), 70, "Error: No space left on device\n"),
    ],
)
def test_the_help_text_ends_as_the_output_of_a_command(monkeypatch, error, code, text):
    """Click itself would end with 1, which means that nothing was found."""

    def fail(*_):
        raise error

    monkeypatch.setattr(SessionsGroup, "get_help", fail)
    answer = invoked("--help")
    assert (answer.exit_code, answer.stderr) == (code, text)


@pytest.mark.parametrize("option", ["--store", "--realm", "--app", "--secret-file"])
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


def test_a_ticket_that_is_taken_for_an_id_is_not_repeated(sessions, store):
    """A18: an operator may paste a cookie; the error must not put it into a log."""
    ticket = ticket_of(sessions)
    for words in (["show", ticket], ["revoke", f"--{ticket}"]):
        answer = invoked(store, *words)
        assert answer.exit_code == 2
        assert ticket not in answer.output
        assert "32 hex digits" in answer.stderr


def test_several_sessions_are_revoked_with_a_confirmation_only(sessions, store):
    """S7: by ID and by user; without a terminal for the confirmation, nothing is revoked."""
    ids = [add(sessions, "ada") for _ in range(3)]
    for words in (["revoke", *ids], ["revoke-user", "ada"], ["revoke-all"]):
        assert invoked(store, *words).exit_code == 2
    assert len(sessions.list_user("ada")) == 3
    answer = invoked(store, "revoke", ids[0], ids[0], "--json")  # one session, named twice
    assert json.loads(answer.stdout) == {"revoked": [ids[0]], "not_found": [], "remaining": []}
    answer = invoked(store, "revoke-user", "ada", "--keep", ids[1], "--json")
    assert json.loads(answer.stdout) == {"user": "ada", "revoked": 1}
    assert invoked(store, "revoke-all", "--yes").exit_code == 0
    assert sessions.list_user("ada") == []


@pytest.mark.parametrize("command", ["list", "revoke-all", "count", "purge"])
def test_another_secret_is_refused(sessions, store, command):
    """A command with the secret of another application would act on the wrong sessions."""
    add(sessions, "ada")
    yes = ["--yes"] if command == "revoke-all" else []
    answer = invoked(store, command, *yes, secret=SECRET[::-1])
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert SECRET[::-1] not in answer.stderr
    assert len(sessions.list_user("ada")) == 1


def test_a_shared_store_needs_the_secret():
    """No secret is generated: its sessions would not be those of the applications."""
    answer = invoked("--store", "redis://:hunter2@127.0.0.1:1", "list", secret=None)
    assert answer.exit_code == 2
    assert "SOJOURN_SECRET" in answer.stderr
    assert "hunter2" not in answer.stderr


def test_an_application_excludes_the_other_options():
    answer = invoked("--store", "sqlite:///s.db", "list", "--app", "main:site")
    assert answer.exit_code == 2
    assert "leave out --store" in answer.stderr


def test_the_default_store_is_that_of_the_option():
    assert str(OPTIONS["store"].default) == DEFAULT_STORE


def test_a_new_secret_is_made_without_a_store_and_an_event_loop():
    """`sojourn secret new` and `sojourn --version` are quick."""
    program = (
        "import sys; from sojourn.cli.main import run\n"
        "try: run(None)\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, "secret", "new"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout) == 44
    assert not {"sojourn.config", "asyncio", "rich"} & set(done.stderr.split())


@pytest.mark.parametrize("name", ["absent.db", "folder/absent.db"])
def test_a_misspelt_path_creates_nothing(tmp_path, name):
    answer = invoked("--store", f"sqlite:///{tmp_path}/{name}", "list")
    assert answer.exit_code == 2
    assert "found none at" in answer.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("same_site='none', secure=False", "same_site='none' only if it is Secure"),
        ("secret='changeme'", "an attacker could forge sessions"),
    ],
)
def test_an_application_that_sojourn_refuses_reports_why(tmp_path, monkeypatch, options, text):
    """B-49: without the new secret that the message suggests."""
    module = f"refused_{tmp_path.name}"
    program = f"import sojourn\nsojourn.Sessions(store='memory://', {options})\n"
    (tmp_path / f"{module}.py").write_text(program)
    monkeypatch.syspath_prepend(tmp_path)
    answer = invoked("--app", f"{module}:app", "list")
    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"Error: --app {module}:app: ")
    assert text in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert "Here is a new one" not in answer.stderr


def test_a_url_without_a_file_is_one_line():
    answer = invoked("--store", "sqlite:///", "list")
    assert answer.exit_code == 2
    assert "names no file" in answer.stderr


@pytest.mark.parametrize("realm", ["Shop", "default"])
def test_a_misspelt_realm_creates_no_tables(tmp_path, realm):
    """S14: `list` without `--realm` is the usual mistake; the message names the realms."""
    path = tmp_path / "s.db"
    others = ["Bazaar", "shop-2"]
    for each in others:
        made = sojourn.Sessions(store=f"sqlite:///{path}", secret=SECRET, realm=each)
        made.ping()
        made.close()
    answer = invoked("--store", f"sqlite:///{path}", "--realm", realm, "list")
    assert answer.exit_code == 2
    assert f"realm {realm!r}, found those of 'Bazaar', 'shop-2'" in answer.stderr
    assert list_realms(path) == others
    assert invoked("--store", f"sqlite:///{path}", "--realm", "Bazaar", "count").exit_code == 0


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module; the function writes its text."""
    name = f"module_{tmp_path.name}"
    monkeypatch.syspath_prepend(tmp_path)

    def write(program):
        (tmp_path / f"{name}.py").write_text(program)
        return name

    yield write
    sys.modules.pop(name, None)


@pytest.mark.parametrize("words", [("count",), ("revoke-all", "--yes"), ("bench", "--count", "1")])
def test_the_memory_of_an_application_is_no_store_of_a_command(module, words):
    """`revoke-all` would report success and leave every session of the server."""
    name = module("import sojourn\nsessions = sojourn.Sessions(store='memory://')\n")
    answer = invoked("--app", f"{name}:sessions", *words)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert "memory://, which is in the memory of the application" in answer.stderr


@pytest.mark.parametrize("code", ["3", "'DATABASE_URL is not set'"])
def test_an_application_that_ends_the_process_returns_2(module, code):
    """1 and 3 would mean that no session was found, and that the store does not answer."""
    name = module(f"import sys\nsys.exit({code})\n")
    answer = invoked("--app", f"{name}:app", "count")
    assert answer.exit_code == 2
    assert "raised SystemExit" in answer.stderr


def test_what_an_application_prints_is_no_part_of_the_document(module, sessions, tmp_path):
    sessions.ping()
    name = module(
        "import sojourn\nprint('the model is loaded')\n"
        f"sessions = sojourn.Sessions(store='sqlite:///{tmp_path}/s.db', secret={SECRET!r})\n"
    )
    answer = invoked("--app", f"{name}:sessions", "count", "--json")
    assert json.loads(answer.stdout) == {"sessions": 0, "estimated": False}
    assert answer.stderr == "the model is loaded\n"


def test_data_is_shown_as_python_writes_it(sessions, store):
    """A control character has one backslash; two would be those of other data."""
    with sessions.open() as visit:
        visit.session["a\x1b"] = {"path": "C:\\x", "text": "\x1b[2J \u202e é", "raw": b"\xff"}
    shown = invoked(store, "show", visit.session.id, "--data").stdout
    assert (
        r"""data['a\x1b']  {'path': 'C:\\x', 'text': '\x1b[2J \u202e é', 'raw': b'\xff'}""" in shown
    )


def test_an_example_in_a_help_text_keeps_its_line():
    answer = invoked("schema", "--help")
    assert '\n    sojourn schema postgresql | psql "$ADMIN_URL"\n' in answer.stdout


def test_the_sql_of_the_tables_is_printed():
    answer = invoked("schema", "postgresql", "--schema", "web")
    assert answer.stdout.startswith("BEGIN;\n")
    assert 'CREATE SCHEMA IF NOT EXISTS "web"' in answer.stdout


def test_ctrl_c_during_a_search_prints_how_to_continue(store, monkeypatch):
    pages = [SessionPage((), "position", 1000, 0)]

    async def page(*_, **__):
        if not pages:
            raise KeyboardInterrupt
        return pages.pop()

    monkeypatch.setattr(sojourn.Sessions, "alist_page", page)
    answer = invoked(store, "list", "--label", "browser=Firefox")
    assert answer.exit_code == 130
    assert "To continue: --cursor position\n" in answer.stderr


def test_the_round_trip_is_that_of_open_connections(store, monkeypatch):
    """The first calls of a command connect: PostgreSQL needs 10 ms, and 0.2 ms for an answer."""
    seconds = [0.0119, 0.0077, 0.0002, 0.0003, 0.0004]

    async def ping(_):
        return seconds.pop(0)

    monkeypatch.setattr(sojourn.Sessions, "aping", ping)
    assert json.loads(invoked(store, "top", "--json").stdout)["round_trip_ms"] == 0.2


class TestMigrate:
    def test_two_urls_of_one_store_are_refused(self, sessions, store, tmp_path):
        """The sessions would be moved from it to it without an end."""
        add(sessions, "ada")
        url = store.partition("=")[2]
        other_url = f"sqlite:///{tmp_path}/../{tmp_path.name}/s.db"
        answer = invoked("migrate", url, other_url, "--yes")
        assert answer.exit_code == 2
        assert "expect two stores, found one" in answer.stderr
        assert sessions.count() == 1

    def test_users_are_in_utf_8(self, store, tmp_path):
        users = tmp_path / "users"
        users.write_bytes(b"ada\n\xff\n")
        words = ("migrate", store.partition("=")[2], f"sqlite:///{tmp_path}/new.db", "--yes")
        answer = invoked(*words, "--users", str(users))
        assert answer.exit_code == 2
        assert "expects text in UTF-8" in answer.stderr
        assert not (tmp_path / "new.db").exists()


class TestSecretRotation:
    def test_promotion_needs_a_secret_that_was_appended(self, tmp_path):
        """A success would suggest that the secret was replaced."""
        path = tmp_path / "secret"
        path.write_text(f"{SECRET}\n")
        words = ("secret", "rotate", "--secret-file", str(path), "--write")
        answer = invoked(*words, "--promote")
        assert (answer.exit_code, answer.stdout) == (2, "")
        assert "run it with --append first" in answer.stderr
        assert path.read_text() == f"{SECRET}\n"
        assert invoked(*words, "--append").exit_code == 0
        assert invoked(*words, "--promote").exit_code == 0
        new, former = path.read_text().strip().split(",")
        assert former == SECRET != new

    @pytest.mark.skipif(os.name != "posix", reason="owners are of POSIX")
    def test_the_owner_of_the_file_stays(self, tmp_path, monkeypatch):
        """`sudo sojourn secret rotate` must not take the file away from the application."""
        path = tmp_path / "secret"
        path.write_text(f"{SECRET}\n")
        owner, changed = path.stat(), []
        monkeypatch.setattr(os, "geteuid", lambda: owner.st_uid + 1)
        monkeypatch.setattr(os, "fchown", lambda _, *ids: changed.append(ids))
        answer = invoked("secret", "rotate", "--secret-file", str(path), "--write")
        assert answer.exit_code == 0
        assert changed == [(owner.st_uid, owner.st_gid)]

    @pytest.mark.skipif(os.name != "posix", reason="owners are of POSIX")
    def test_a_file_of_another_user_is_not_replaced(self, tmp_path, monkeypatch):
        """The application could not read the file that replaced it."""
        path = tmp_path / "secret"
        path.write_text(f"{SECRET}\n")
        mine = path.stat().st_uid + 1

        def fail(*_):
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "geteuid", lambda: mine)
        monkeypatch.setattr(os, "fchown", fail)
        answer = invoked("secret", "rotate", "--secret-file", str(path), "--write")
        assert answer.exit_code == 2
        assert "cannot be written: Operation not permitted" in answer.stderr
        assert [each.name for each in tmp_path.iterdir()] == ["secret"]
        assert path.read_text() == f"{SECRET}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no /dev/zero")
def test_a_secret_file_without_an_end_is_refused():
    """A wrong path does not fill the memory."""
    with pytest.raises(ConfigurationError, match="more than 65,536 bytes"):
        read_secret_file(Path("/dev/zero"))
