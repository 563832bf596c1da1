"""The tutorial application of Flask's sdist runs with one added line that installs sessions."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import httpx
import pytest

from tests.support.processes import serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: ``make test-peers`` stores the sdists here, too.
CACHE = Path(sys.prefix) / "peers"

INSTALL = "    import sojourn\n\n    sojourn.install(app)\n"


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    """Return a folder with the application, in which sessions are installed."""
    name = f"flask-{importlib.metadata.version('flask')}"
    archive = CACHE / f"{name}.tar.gz"
    if not archive.exists():
        command = ["pip", "download", "--quiet", "--no-deps", "--no-binary", "flask"]
        command += ["--dest", str(CACHE), name.replace("-", "==")]
        # tests/conftest.py replaces the authorities that pip trusts.
        environ = {name: text for name, text in os.environ.items() if name != "SSL_CERT_DIR"}
        answer = subprocess.run([sys.executable, "-m", *command], env=environ, check=False)
        if answer.returncode:
            pytest.skip("the package index cannot be reached")
    folder = tmp_path_factory.mktemp("tutorial")
    with tarfile.open(archive) as sdist:
        sdist.extractall(folder, filter="data")
    application = folder / "tutorial"
    shutil.move(folder / name / "examples" / "tutorial", application)
    factory = application / "flaskr" / "__init__.py"
    text = factory.read_text("utf-8")
    assert text.count("\n    return app\n") == 1
    factory.write_text(
        text.replace("\n    return app\n", f"\n{INSTALL}\n    return app\n"), "utf-8"
    )
    return application


def test_tests_of_the_tutorial_pass(tutorial):
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=tutorial,
        env={**os.environ, "PYTHONPATH": str(tutorial)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout
    assert re.search(r"\d+ passed", found.stdout)


def test_a_visitor_registers_and_writes_on_a_real_server(tutorial, tmp_path):
    """B-25: the cookie from before the logout is invalid."""
    environ = {**os.environ, "PYTHONPATH": str(tutorial)}
    command = [sys.executable, "-m", "flask", "--app", "flaskr", "init-db"]
    subprocess.run(command, cwd=tutorial, env=environ, check=True, capture_output=True)
    server = ("gunicorn", "--chdir", str(tutorial), "--bind", "127.0.0.1:PORT")
    with (
        serving(*server, "flaskr:create_app()", folder=tmp_path) as url,
        httpx.Client(base_url=url, follow_redirects=True) as client,
    ):
        ada = {"username": "ada", "password": "lovelace"}
        client.post("/auth/register", data=ada)
        assert (
            "Incorrect password." in client.post("/auth/login", data={**ada, "password": "x"}).text
        )
        assert "Log Out" in client.post("/auth/login", data=ada).text
        client.post("/create", data={"title": "A note", "body": "on the engine"})
        assert "on the engine" in client.get("/").text
        before = dict(client.cookies)
        assert "Log In" in client.get("/auth/logout").text
        assert "Log In" in httpx.get(url, cookies=before).text
