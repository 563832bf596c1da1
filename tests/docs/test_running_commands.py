"""Each command of the section on running is one that the command line has, with its options."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sojourn import Sessions
from tests.docs.pages import parse_commands

pytest.importorskip("sojourn.cli.main", reason="the command line is not part of this release")

SECTION = Path(__file__).parent.parent.parent / "docs/running"
SECRET = "Vq8-commands-of-the-pages-Zr2"


def commands() -> list[list[str]]:
    """Return the words of each different ``sojourn`` command of the section."""
    found = set()
    for page in SECTION.glob("*.md"):
        text = page.read_text("utf-8")
        for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            for command, _ in parse_commands(block):
                if command.startswith("sojourn "):
                    found.add(command.partition(" > ")[0])
        found.update(re.findall(r"`(sojourn [a-z][^`…:\n]*)`", text))
    return [shlex.split(command) for command in sorted(found)]


@pytest.mark.slow
@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_of_the_section_runs(words, tmp_path):
    """Exit code 0, or 1 if there is no such session; 2 would be a wrong option."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    sessions = Sessions(store=url, secret=SECRET)
    with sessions.open() as visit:
        visit.session.login("ada")
    sessions.close()
    if words[1].startswith("revoke") and "--yes" not in words:
        words = [*words, "--yes"]
    result = subprocess.run(
        [sys.executable, "-m", *words],
        env={
            "SOJOURN_STORE": url,
            "SOJOURN_SECRET": SECRET,
            "PYTHONPATH": ":".join(sys.path),
            "PATH": "",
        },
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode in (0, 1), result.stderr
    assert "Traceback" not in result.stderr
    assert SECRET not in result.stdout + result.stderr
