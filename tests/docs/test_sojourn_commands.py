"""The ``sojourn`` commands on the pages exist with their options; some are executed."""

import logging
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sojourn import Sessions
from tests.docs.pages import parse_commands

click = pytest.importorskip("click", reason="the command line needs click")

REPOSITORY = Path(__file__).parent.parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])
SECRET = "Vq8-commands-of-the-pages-Zr2"


def commands_of(text: str) -> set[str]:
    """Return the distinct ``sojourn`` commands of a page, without those with placeholders."""
    found = set(re.findall(r"`(sojourn [a-z-][^`…\n]*)`", text))
    for block in re.findall(r"^```(?:console|text)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for command, _ in parse_commands(block):
            found.update(re.findall(r"(?:^|[(;|] ?)(sojourn [^|<>)#…]*)", command))
    return {command.strip() for command in found if not re.search(r"\b[A-Z]{2,}\b", command)}


def commands(pages: list[Path]) -> list[list[str]]:
    """Return the arguments of each distinct command of several pages."""
    found = set().union(*(commands_of(page.read_text("utf-8")) for page in pages))
    return [shlex.split(command) for command in sorted(found)]


@pytest.mark.parametrize("words", commands(PAGES), ids=" ".join)
def test_a_command_exists_with_its_options(words, monkeypatch):
    """The arguments are parsed; the command itself does not run."""
    from sojourn.cli.main import run

    parsed = []
    monkeypatch.setattr(click.Command, "invoke", lambda command, _: parsed.append(command))
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(logging.getLogger("sojourn"), "handlers", [])  # `run` adds one
    with pytest.raises(SystemExit) as end:
        run(lambda _: pytest.fail("opened an installation"))
    assert end.value.code in (None, 0)
    assert parsed or "--help" in words


def test_the_pages_show_every_command():
    from sojourn.cli.group import INSTALLATION_COMMANDS, OTHER_COMMANDS

    shown = {word for words in commands(PAGES) for word in words}
    unshown = {"bench", "migrate"}  # their arguments are placeholders
    assert {*INSTALLATION_COMMANDS, *OTHER_COMMANDS} - unshown <= shown


def test_commands_are_found_in_a_page():
    page = (
        "`sojourn purge`, `sojourn migrate FROM TO`, `sojourn revoke ID…`\n"
        "```console\n$ export A=$(sojourn secret new)\n$ sojourn list --all | wc -l\n3\n```\n"
    )
    assert commands_of(page) == {"sojourn purge", "sojourn secret new", "sojourn list --all"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", commands(sorted(REPOSITORY.glob("docs/production/*.md"))), ids=" ".join
)
def test_a_command_of_the_section_on_running_runs(words, tmp_path):
    """Exit code 0, or 1 if there is no such session; 2 would be an invalid option."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    realm = words[words.index("--realm") + 1] if "--realm" in words else "default"
    sessions = Sessions(store=url, secret=SECRET, realm=realm)
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
