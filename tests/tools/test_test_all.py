"""tools/test_all.sh: fails unless the tests pass on every Python that PYTHONS names."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def run(repository, tmp_path):
    """Run the script with a fake `make` that fails for one Python."""
    make = tmp_path / "make"
    make.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n[ ! -e "$VETO" ]\n')
    make.chmod(0o755)

    def run(pythons: str, *, passes: bool = True) -> subprocess.CompletedProcess[str]:
        veto = tmp_path / "veto"
        if not passes:
            veto.touch()
        environment = {**os.environ, "PYTHONS": pythons, "MAKE": str(make), "VETO": str(veto)}
        environment["PYENV_ROOT"] = str(tmp_path)
        return subprocess.run(
            [repository / "tools" / "test_all.sh"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_script_succeeds_if_the_tests_pass_on_each_python(run):
    answer = run(sys.executable)
    assert answer.returncode == 0, answer.stderr
    assert f"PYTHON={sys.executable}" in answer.stdout.splitlines()
    assert f"{sys.executable}: passed" in answer.stdout


def test_script_fails_if_the_tests_fail_on_one_python(run):
    answer = run(sys.executable, passes=False)
    assert answer.returncode == 1
    assert f"{sys.executable}: failed" in answer.stdout


def test_script_fails_if_a_python_is_missing(run):
    answer = run(f"{sys.executable} python9.99")
    assert answer.returncode == 1
    assert f"{sys.executable}: passed" in answer.stdout
    assert "python9.99: missing" in answer.stdout


def test_script_fails_if_no_python_is_given(run):
    answer = run("")
    assert answer.returncode == 1
    assert "names no Python" in answer.stdout


def test_script_finds_an_unselected_version_of_pyenv(run, tmp_path):
    version = tmp_path / "versions" / "9.99.0" / "bin" / "python9.99"
    version.parent.mkdir(parents=True)
    version.symlink_to(sys.executable)
    answer = run("python9.99")
    assert answer.returncode == 0, answer.stderr
    assert f"PYTHON={version}" in answer.stdout.splitlines()
