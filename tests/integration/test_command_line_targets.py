"""How `sojourn` finds the installation: `--app`, `--store`, the environment, a missing extra."""

import os
import stat
import sys
import sysconfig
from pathlib import Path

import pytest

import sojourn
from tests.support.command_line import REPOSITORY, SECRET, SOJOURN, run
from tests.support.valkey_fixtures import shared_valkey, valkey

__all__ = ["shared_valkey", "valkey"]

pytestmark = pytest.mark.timeout(180)

STARLETTE = """
import sojourn
from starlette.applications import Starlette

site = Starlette()
sessions = sojourn.install(site, store="sqlite:///own.db", realm="shop")
bare = Starlette()


class holder:
    sessions = sessions


with sessions.open() as visit:
    visit.session.login("ada")
"""

DJANGO = """
SECRET_KEY = "a secret for tests: 3d1c7f6e-5f8c1e90"
SESSION_ENGINE = "sojourn.frameworks.django"
SOJOURN = {"store": "sqlite:///django.db"}
"""

ASGI = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "project"
from django.core.asgi import get_asgi_application
application = get_asgi_application()
from sojourn.frameworks.django import get_sessions
with get_sessions().open() as visit:
    visit.session.login("ada")
"""


@pytest.mark.parametrize(
    "name",
    [
        "main:site",
        pytest.param("main:sessions", marks=pytest.mark.slow),
        pytest.param("main:holder.sessions", marks=pytest.mark.slow),
        pytest.param("asgi:application", marks=pytest.mark.slow),
    ],
)
def test_app_option_uses_the_installation_of_the_application(tmp_path, name):
    """Store, secret and realm are those of the application; the environment is ignored."""
    (tmp_path / "main.py").write_text(STARLETTE)
    (tmp_path / "project.py").write_text(DJANGO)
    (tmp_path / "asgi.py").write_text(ASGI)
    answer = run(
        "--app", name, "list", "--user", "ada", "--json",
        folder=tmp_path, environ={"SOJOURN_STORE": "redis://127.0.0.1:1"},
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert answer.document["sessions"][0]["user"] == "ada"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("main", "expects module:app"),
        ("absent:app", "there is no module 'absent'"),
        ("main:absent", "main has no 'absent'"),
        ("main:bare", "nothing is installed"),
        ("broken:app", "importing broken raised ZeroDivisionError"),
        ("needs:app", "needs package_that_is_absent, which is not installed"),
    ],
)
def test_unknown_application_returns_2(tmp_path, name, reason):
    (tmp_path / "main.py").write_text(STARLETTE)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "needs.py").write_text("import package_that_is_absent\n")
    answer = run("--app", name, "list", folder=tmp_path)
    assert (answer.code, answer.out) == (2, "")
    assert reason in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.slow
def test_store_that_needs_an_event_loop_is_used_in_one_loop(tmp_path, valkey):
    """An asyncio client belongs to one event loop."""
    (tmp_path / "main.py").write_text(
        "import redis.asyncio, sojourn\n"
        "from sojourn.stores.redis.store import RedisStore\n"
        f"client = redis.asyncio.Redis.from_url({valkey.url!r})\n"
        f"sessions = sojourn.Sessions(store=RedisStore(client=client), secret={SECRET!r})\n"
    )
    sessions = sojourn.Sessions(store=valkey.url, secret=SECRET)
    with sessions.open() as visit:
        visit.session.login("ada")
    sessions.close()
    app = ("--app", "main:sessions")
    listed = run(*app, "list", "--json", folder=tmp_path)
    assert [each["user"] for each in listed.document["sessions"]] == ["ada"]
    assert run(*app, "bench", "--count", "5", folder=tmp_path).code == 0
    assert run(*app, "revoke-user", "ada", folder=tmp_path).out == "revoked 1 session of ada\n"
    assert run(*app, "stats", "--json", folder=tmp_path).document["live"] == 0


def test_missing_package_prints_the_extra_to_install(tmp_path):
    """Without the extra: exit code 2, no traceback."""
    site = tmp_path / "site"
    site.mkdir()
    installed = Path(sysconfig.get_paths()["platlib"])
    for name in ("msgspec", "cryptography", "cffi", "click"):
        (site / name).symlink_to(installed / name)
    for path in installed.glob("_cffi_backend*"):
        (site / path.name).symlink_to(path)
    environ = {"PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{site}"}
    program = (sys.executable, "-S", "-m", "sojourn")
    for missing in ("rich", "click"):
        answer = run("list", program=program, environ=environ)
        assert (answer.code, answer.out) == (2, "")
        expected = f"the command line needs {missing}, which is not installed: pip install "
        assert answer.err == f"Error: {expected}'sojourn[cli]'\n"
        (site / "click").unlink(missing_ok=True)


class TestSecret:
    @pytest.mark.slow
    def test_generated_secret_is_accepted(self, tmp_path):
        secret = run("secret", "new").out.strip()
        environ = {"SOJOURN_SECRET": secret, "SOJOURN_STORE": f"sqlite:///{tmp_path}/s.db"}
        (tmp_path / "s.db").touch()
        assert run("list", environ=environ).code == 1

    @pytest.mark.slow
    def test_secret_rotation_prints_instructions(self):
        """ASVS 11.2.2: standard output has only the secret."""
        answer = run("secret", "rotate")
        assert len(answer.out.strip()) == 43
        assert "SOJOURN_SECRET=<old>,<new>" in answer.err
        assert set(run("secret", "rotate", "--json").document) == {"secret"}

    @pytest.mark.slow
    def test_secret_file_is_rotated_in_steps(self, tmp_path):
        """ASVS 11.2.2: mode 0600, atomic; after each step the secret opens the existing store."""
        path = tmp_path / "secret"
        path.write_text(SECRET + "\n")
        path.chmod(0o644)
        (tmp_path / "s.db").touch()
        environ = {"SOJOURN_STORE": f"sqlite:///{tmp_path}/s.db"}
        read = ("--secret-file", str(path), "list")
        assert run(*read, environ=environ).code == 1  # the store opens and is empty
        rotate = ("secret", "rotate", "--secret-file", str(path), "--write")

        appended = run(*rotate, "--append")
        assert (appended.code, SECRET in appended.out + appended.err) == (0, False)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        old, new = path.read_text().strip().split(",")
        assert old == SECRET
        assert new not in appended.out + appended.err
        assert run(*read, environ=environ).code == 1

        assert run(*rotate, "--promote").code == 0
        assert path.read_text().strip() == f"{new},{old}"
        assert run(*read, environ=environ).code == 1

        assert run(*rotate, "--json").document == {"secret_file": str(path), "secrets": 3}
        assert path.read_text().strip().split(",")[1:] == [new, old]
        assert [each.name for each in tmp_path.glob(".secret*")] == []

    @pytest.mark.slow
    def test_generated_secret_is_rotated_next_to_its_database(self, tmp_path):
        """The application that reads the file opens old tickets and seals with the new secret."""
        url = f"sqlite:///{tmp_path}/s.db"
        sessions = sojourn.Sessions(store=url)
        with sessions.open() as visit:
            visit.session["n"] = 1
        name, _, rest = dict(visit.response_headers())["set-cookie"].partition("=")
        sessions.close()
        secret = f"{tmp_path}/s.db.secret"
        assert run("secret", "rotate", "--secret-file", secret, "--write").code == 0
        again = sojourn.Sessions(store=url)
        with again.open(cookies={name: rest.partition(";")[0]}) as visit:
            assert visit.session["n"] == 1
        again.close()


@pytest.mark.slow
def test_every_command_has_help():
    """`--help` of the program and of each command: purpose, options, exit codes."""
    whole = run("--help")
    assert "Exit codes" in whole.out
    assert "..." not in whole.out.partition("Commands:")[2]
    commands = [line.split()[0] for line in whole.out.partition("Commands:")[2].splitlines()[1:]]
    assert {"list", "show", "revoke", "migrate", "secret", "top"} <= set(commands)
    for command in commands:
        answer = run(command, "--help")
        assert answer.code == 0
        assert answer.out.startswith(f"Usage: sojourn {command}")
    assert run("--version").out.startswith("sojourn, version ")
    assert run("lsit").code == 2


def test_entry_point_of_the_package_starts_the_command():
    """The entry point starts the same function as ``python -m sojourn``."""
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["sojourn"] == "sojourn.__main__:main"
    assert SOJOURN[1:] == ("-m", "sojourn")
