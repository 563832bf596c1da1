"""Words, file names and references of the repository, as CONTRIBUTING.md describes them.

Only files that git tracks are checked, and new files that are not ignored.
"""

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent

AVOIDED_WORDS = re.compile(
    r"\b(whoever|nobody|somebody|anew|of ours|as good as|told|let(?:s|ting)? go)\b", re.IGNORECASE
)

# Former names of files and folders, which were replaced by standard terms.
FORMER_NAMES = re.compile(
    "ears|lanes|ways|wires|links|places|courier|openers|ender|keeper|stranded|chain|visit|view"
    "|journal|drive|gate|lists|limits|checks|appends|passing|opened|running|stepping"
)

# A path that a text quotes in backticks: it has a directory or is a document of the root.
QUOTED_PATH = re.compile(
    r"`+((?:(?:src|sojourn|docs|tests|tools|examples|benchmarks|requirements|_core|_crypto|web|live"
    r"|stores|frameworks|testing)/[\w./-]*(?<!\.c)|[A-Z]{4,}\.md))`+"  # not redis's src/server.c
)
FOLDERS = (".", "src", "src/sojourn", "src/sojourn/stores", "docs")

# A file of the package that a docstring or a comment quotes by its name alone.
QUOTED_MODULE = re.compile(r"`+(\w+\.(?:py|lua))`+")


def tracked(*patterns: str) -> list[Path]:
    """Return the files that match: tracked files, and new files that are not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
    answer = subprocess.run(
        [*command, *patterns], cwd=REPOSITORY, check=False, capture_output=True, text=True
    )
    if answer.returncode:
        pytest.skip("not a git work tree")
    paths = (REPOSITORY / name for name in answer.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


def avoided_lines(*patterns: str) -> list[str]:
    """Return the lines that use an avoided word, with file and line number."""
    return [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}"
        for path in tracked(*patterns)
        if path.suffix in (".md", ".py", ".lua", ".html", ".js", ".yml", ".toml")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if AVOIDED_WORDS.search(line)
    ]


def missing_paths(text: str) -> list[str]:
    """Return the paths that a text quotes and that do not exist in the repository."""
    return [
        quoted
        for quoted in QUOTED_PATH.findall(text)
        if not any((REPOSITORY / folder / quoted).exists() for folder in FOLDERS)
    ]


def test_code_documents_and_examples_avoid_some_words():
    """Style: everyday words in place of the technical term."""
    assert avoided_lines("src", "docs", "*.md", "examples", ":!benchmarks") == []


def test_no_file_or_folder_has_a_former_name():
    paths = [path.relative_to(REPOSITORY) for path in tracked()]
    found = [
        str(path)
        for path in paths
        if any(FORMER_NAMES.fullmatch(name.partition(".")[0]) for name in path.parts)
    ]
    assert not found


@pytest.mark.parametrize(
    "page",
    [pytest.param(path, id=str(path.relative_to(REPOSITORY))) for path in tracked("*.md")],
)
def test_every_path_that_a_page_quotes_exists(page):
    assert missing_paths(page.read_text("utf-8")) == []


def test_tree_on_the_architecture_page_matches_the_package():
    text = (REPOSITORY / "ARCHITECTURE.md").read_text("utf-8")
    tree = text.partition("src/sojourn/")[2].partition("\ntests/")[0]
    columns = re.findall(r"^  (\w\S*(?:, \S+)*)  ", tree, re.MULTILINE)
    listed = {name.rstrip("/") for column in columns for name in column.split(", ")}
    paths = (REPOSITORY / "src" / "sojourn").iterdir()
    packages_and_modules = {
        path.name for path in paths if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert listed == packages_and_modules


def test_every_file_that_a_module_quotes_exists():
    names = {path.name for path in tracked("*.py", "*.lua")}
    found = {}
    for path in tracked("src/*.py"):
        text = path.read_text("utf-8")
        missing = [*missing_paths(text), *(set(QUOTED_MODULE.findall(text)) - names)]
        if missing:
            found[str(path.relative_to(REPOSITORY))] = missing
    assert found == {}


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("see `docs/laws.md` and ``tests/docs``", []),
        ("see ``stores/urls.py``, `README.md`", []),
        ("see `docs/lore.md`", ["docs/lore.md"]),
        ("see ``web/pages.py`` and `LAWS.md`", ["web/pages.py", "LAWS.md"]),
    ],
)
def test_a_missing_path_is_found(text, missing):
    assert missing_paths(text) == missing
