"""`flask sessions`, `manage.py sessions` and `litestar sessions`, as processes."""

import sys
import tomllib

import pytest

from tests.support.command_line import REPOSITORY, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LOGIN = """
with sessions.open(labels={"browser": "Firefox"}) as visit:
    visit.session.login("ada")
"""

FLASK = """
import sojourn
from flask import Flask

app = Flask(__name__)
sessions = sojourn.install(app, store="sqlite:///flask.db")
"""

LITESTAR = """
from litestar import Litestar
from sojourn.frameworks.litestar import SojournPlugin

plugin = SojournPlugin(store="sqlite:///litestar.db")
sessions = plugin.sessions
app = Litestar([], plugins=[plugin])
"""

SETTINGS = """
INSTALLED_APPS = ["sojourn.frameworks.django"]
SECRET_KEY = "a secret for tests: 3d1c7f6e-5f8c1e90"
SESSION_ENGINE = "sojourn.frameworks.django"
SOJOURN = {"store": "sqlite:///django.db"}
"""

MANAGE = """
import os, sys
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""

FRAMEWORKS = {
    "flask": ("-m", "flask", "--app", "main", "sessions"),
    "litestar": ("-m", "litestar", "--app", "main:app", "sessions"),
    "django": ("manage.py", "sessions", "--settings", "project"),
}


@pytest.fixture(params=FRAMEWORKS)
def command(request, tmp_path):
    """Returns a function that runs a command of the framework; the user ada is logged in."""
    (tmp_path / "main.py").write_text(FLASK if request.param == "flask" else LITESTAR)
    (tmp_path / "project.py").write_text(SETTINGS)
    (tmp_path / "manage.py").write_text(MANAGE)
    # The entry points of the work tree; those of the installed package may be older.
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    metadata = tmp_path / "site" / "work_tree-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: work-tree\nVersion: 0\n")
    points = project["entry-points"]["flask.commands"]
    lines = [f"{name} = {value}" for name, value in points.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[flask.commands]", *lines]))
    path = f"{REPOSITORY}:{REPOSITORY / 'src'}:{tmp_path / 'site'}"
    environ = {"PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "project"}
    setup = {
        "flask": f"{FLASK}{LOGIN}",
        "litestar": f"{LITESTAR}{LOGIN}",
        "django": "import django; django.setup()\n"
        f"from sojourn.frameworks.django import get_sessions\nsessions = get_sessions()\n{LOGIN}",
    }[request.param]
    program = (sys.executable, "-c", setup)
    assert run(program=program, environ=environ, folder=tmp_path).code == 0

    def run_command(*words):
        program = (sys.executable, *FRAMEWORKS[request.param])
        return run(*words, program=program, environ=environ, folder=tmp_path)

    return run_command


def test_framework_command_uses_the_installation_of_the_application(command):
    listed = command("list", "--user", "ada", "--json")
    assert listed.code == 0, listed.err
    (found,) = listed.document["sessions"]
    assert found["labels"] == {"browser": "Firefox"}

    assert command("revoke", found["id"]).out == f"revoked {found['id']}\n"
    assert command("list").code == 1
    assert command("revoke-all").code == 2  # needs a confirmation, and there is no terminal

    help_text = command("--help").out
    assert "revoke-user" in help_text
    assert "--store" not in command("list", "--help").out


def test_django_call_command_runs_the_command(tmp_path):
    (tmp_path / "project.py").write_text(SETTINGS)
    program = """
import django; django.setup()
from django.core.management import CommandError, call_command
call_command("sessions", "count")
try:
    call_command("sessions", "list")
except CommandError as error:
    print(error.returncode)
"""
    environ = {"DJANGO_SETTINGS_MODULE": "project"}
    answer = run(program=(sys.executable, "-c", program), environ=environ, folder=tmp_path)
    assert answer.out == "0\n1\n"
