"""Conventions of the repository that no other tool checks: docstrings, paths, versions, pins.

Only files that git tracks, or would add, are read.
"""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

# A path that exists on one machine alone.
MACHINE_TRACES = re.compile(
    r"""/(?:home|Users)/\w+/ | /root/ | /work/ | /tmp/(?!\W) | [A-Z]:\\Users\\""",
    re.VERBOSE,
)
TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".sh", ".html", ".css", ".js", ".cfg", ""}


def tracked(*patterns: str) -> list[Path]:
    """Return the matching files of the repository, new ones included."""
    answer = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
    )
    if answer.returncode:
        pytest.skip("not a git work tree")
    paths = (REPOSITORY / name for name in answer.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


def shown(path: Path) -> str:
    """Return the path of a file from the root of the repository."""
    return str(path.relative_to(REPOSITORY))


def settings() -> dict:
    """Return the content of pyproject.toml."""
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))


def test_every_python_file_has_a_docstring():
    """Style: each file starts with a docstring, in src of at most three lines."""
    wrong = []
    for path in tracked("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        if not docstring:
            wrong.append(f"{shown(path)}: no docstring")
        elif shown(path).startswith("src/"):
            lines = sum(1 for line in docstring.splitlines() if line.strip())
            if lines > 3:
                wrong.append(f"{shown(path)}: opens with {lines} lines")
    assert not wrong, "\n".join(wrong)


def test_no_file_names_a_path_of_one_machine():
    found = [
        f"{shown(path)}:{number}: {line.strip()[:100]}"
        for path in tracked()
        if path.suffix in TEXT and path != Path(__file__)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if MACHINE_TRACES.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_reminders_are_left():
    """Style: no TODO comments."""
    reminder = re.compile(r"#.*\b(TODO|FIXME|XXX|HACK)\b")
    found = [
        f"{shown(path)}:{number}"
        for path in tracked("*.py")
        if path != Path(__file__)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if reminder.search(line)
    ]
    assert not found, "\n".join(found)


def test_the_version_is_in_one_place():
    """Only in pyproject.toml; at run time use importlib.metadata."""
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"][
        "version"
    ]
    found = [
        shown(path)
        for path in tracked("src/*.py")
        if re.search(rf"['\"]{re.escape(version)}['\"]|__version__", path.read_text("utf-8"))
    ]
    assert not found


def test_the_changelog_starts_with_the_version():
    """Its newest heading is the version of pyproject.toml."""
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"][
        "version"
    ]
    changelog = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## (\S+)", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


def test_every_requirement_is_pinned_with_a_hash():
    """requirements/*.txt contains exact versions only."""
    for path in tracked("requirements/*.txt"):
        lines = path.read_text("utf-8").splitlines()
        names = [line for line in lines if line and line[0].isalnum()]
        assert names, path
        loose = [line for line in names if not re.match(r"[\w.\[\]-]+==[\w.]+ .*\\$", line)]
        assert not loose


def test_every_dependency_is_explained():
    """docs/dependencies.md has a row for each package of pyproject.toml, and no other."""
    project = settings()
    extras = project["project"]["optional-dependencies"].values()
    groups = project["dependency-groups"].values()
    needed = {
        re.split(r"[\[<>=!~ ]", requirement)[0]
        for requirements in (project["project"]["dependencies"], *extras, *groups)
        for requirement in requirements
        if isinstance(requirement, str)
    }
    page = (REPOSITORY / "docs" / "dependencies.md").read_text("utf-8")
    explained = set(re.findall(r"^\| `([\w.-]+)`", page, re.MULTILINE))
    assert explained == needed
