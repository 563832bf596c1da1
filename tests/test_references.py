"""Every file, folder or module that a docstring, a comment or a page names exists.

Code blocks of pages and string literals of programs are not read. A page may name the files that it
instructs its reader to create (``title="app.py"``).
"""

import ast
import importlib
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

REPOSITORY = Path(__file__).parent.parent

#: A file: a path or name with one of these endings.
FILE = re.compile(
    r"(?<![\w/.*<>-])([\w.-]+/)*[\w-]+\.(?:py|md|toml|lua|sh|ya?ml|txt|sql)\b(?![\w/*])"
)
#: A folder of the repository, in backquotes.
FOLDER = re.compile(r"`((?:src|tests|docs|tools|examples|benchmarks|requirements)(?:/[\w-]+)+)/?`")
#: A module of the package or a name in it.
MODULE = re.compile(r"(?<![\w.\"/-])sojourn(?:\.[A-Za-z_]\w*)+\b(?![\w-])")

#: Files of a reader's project.
READERS_FILES = frozenset(
    {"app.py", "conftest.py", "manage.py", "settings.py", "wsgi.py", "asgi.py"}
)
#: A key of the WSGI environment, and placeholders for any name.
OTHER_NAMES = frozenset({"sojourn.session", "sojourn.x", "name.lua", "lua/include/name.lua"})

#: Metrics and attributes of OpenTelemetry; tests/docs/test_monitoring.py compares them.
TELEMETRY_NAMES = frozenset(
    name
    for path in (REPOSITORY / "src" / "sojourn" / "telemetry").glob("*.py")
    for name in re.findall(r'"(sojourn\.[a-z_.]+)"', path.read_text("utf-8"))
)

#: Identifiers of Django's system checks.
CHECK = re.compile(r"sojourn\.[EW]\d{3}")

FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
TITLE = re.compile(r'title="([\w./-]+)"')


def tracked(*patterns: str) -> list[Path]:
    """Return the matching files of the repository, new ones included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
    answer = subprocess.run(
        [*command, *patterns], cwd=REPOSITORY, check=False, capture_output=True, text=True
    )
    if answer.returncode:
        pytest.skip("not a git work tree")
    return [path for n in answer.stdout.split("\0") if n and (path := REPOSITORY / n).is_file()]


def prose_of_python(text: str) -> Iterator[tuple[int, str]]:
    """Yield the docstrings and comments of a Python file with their line numbers."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in node.body:
                match statement:
                    case ast.Expr(value=ast.Constant(value=str() as docstring)):
                        yield statement.lineno, docstring
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def prose_of_page(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a page outside of code blocks, with their numbers."""
    for block in (FENCE, COMMENT):
        text = block.sub(lambda found: "\n" * found[0].count("\n"), text)
    yield from enumerate(text.splitlines(), 1)


def references(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield each reference in a file: line, kind and text."""
    text = path.read_text("utf-8")
    created = set(TITLE.findall(text)) | READERS_FILES
    prose = prose_of_python(text) if path.suffix == ".py" else prose_of_page(text)
    for first, passage in prose:
        for number, line in enumerate(passage.splitlines(), first):
            for found in FILE.finditer(line):
                if found[0] not in created:
                    yield number, "file", found[0]
            for found in FOLDER.finditer(line):
                yield number, "folder", found[1]
            for found in MODULE.finditer(line):
                yield number, "module", found[0]


def exists(kind: str, name: str, paths: frozenset[str]) -> bool:
    """Return whether a reference names something.

    Args:
        kind: "file", "folder" or "module".
        name: as it is written; a file may be named by the end of its path.
        paths: of all files of the repository.
    """
    if name in OTHER_NAMES | TELEMETRY_NAMES or CHECK.fullmatch(name):
        return True
    if kind == "file":
        parts = [part for part in PurePosixPath(name).parts if part not in (".", "..")]
        end = "/" + "/".join(parts)
        return any(f"/{path}".endswith(end) for path in paths)
    if kind == "folder":
        return any(path.startswith(f"{name}/") or path == name for path in paths)
    return is_importable(name)


def is_importable(name: str) -> bool:
    """Return whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for number in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:number]))
        except ModuleNotFoundError:
            continue
        for part in parts[number:]:
            if not hasattr(value, part) and part not in getattr(value, "__annotations__", {}):
                return False
            value = getattr(value, part, None)
        return True
    return False


def dangling(*patterns: str) -> list[str]:
    """Return the references in the matching files that name nothing."""
    paths = frozenset(str(path.relative_to(REPOSITORY)) for path in tracked())
    return [
        f"{path.relative_to(REPOSITORY)}:{number}: {name}"
        for path in tracked(*patterns)
        for number, kind, name in references(path)
        if not exists(kind, name, paths)
    ]


@pytest.mark.parametrize(
    "patterns",
    [
        pytest.param(("src/*.py",), id="src"),
        pytest.param(("tests/*.py",), id="tests"),
        pytest.param(("tools/*.py", "benchmarks/*.py", "examples/*.py"), id="programs"),
        pytest.param(("docs/*.md", ":/*.md"), id="pages"),
    ],
)
def test_every_reference_names_something(patterns):
    """Style: a reference to another file, folder or module exists."""
    found = dangling(*patterns)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"""See ``core/ticket.py``."""\n', ["core/ticket.py"]),
        ("# as docs/nowhere.md says\n", ["docs/nowhere.md"]),
        ('"""See ``sojourn.testing.lifelaws``."""\n', ["sojourn.testing.lifelaws"]),
        ('"""See `tests/nowhere`."""\n', ["tests/nowhere"]),
        ("# see architecture/overview.md and _core/codec.py\n", ["architecture/overview.md"]),
        ('x = "core/ticket.py"  # a literal\n', []),
        (
            '"""``_core/codec.py``, ``docs/laws.md``, ``sojourn.store.Store``, `tests/unit`."""\n',
            [],
        ),
        ('"""Reads ``*.py`` and ``requirements/<group>.txt``."""\n', []),
    ],
)
def test_dangling_references_are_found(text, expected, tmp_path):
    path = tmp_path / "module.py"
    path.write_text(text, "utf-8")
    paths = frozenset(str(each.relative_to(REPOSITORY)) for each in tracked())
    found = [name for _, kind, name in references(path) if not exists(kind, name, paths)]
    assert found == expected


def test_a_page_may_name_the_files_that_it_creates(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        'Write `shop.py`:\n\n```python title="shop.py"\nimport core.nowhere\n```\n', "utf-8"
    )
    assert list(references(page)) == []
