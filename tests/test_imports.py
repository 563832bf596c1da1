"""The one-way import rule of ARCHITECTURE.md, checked on the source text.

Imports inside functions, under TYPE_CHECKING and by name through importlib count like any other:
a dependency that only the type checker sees still ties two rooms together. What each module
imports is read from its syntax tree, never by importing it. Next: test_public_names.py.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parent.parent / "src"

# A room may import itself and rooms of a lower tier. The front door is the package itself and
# the files beside it that only gather names.
TIERS = {
    "errors": 0,
    "events": 1,
    "record": 2,
    "store": 3,
    "_crypto": 3,
    "audit": 3,
    "_core": 4,
    "stores": 5,
    "web": 5,
    "live": 5,
    "lists": 6,
    "config": 6,
    "sessions": 7,
    "frameworks": 8,
    "admin": 8,
    "cli": 8,
    "testing": 9,
}
FRONT_DOOR = 10
# An open connection is served by both: its socket is a matter of the web, its end one of live.
TOGETHER = {("web", "live"), ("live", "web")}

# Parts of the standard library without I/O, clock, thread or event loop. `secrets` reads the
# operating system's random source: the one thing from outside that a ticket cannot do without.
PURE = frozenset(
    {
        *("__future__", "abc", "base64", "binascii", "bisect", "collections", "contextlib", "copy"),
        *("dataclasses", "datetime", "decimal", "enum", "functools", "hashlib", "heapq", "hmac"),
        *("inspect", "itertools", "math", "operator", "re", "secrets", "string", "struct", "types"),
        *("typing", "unicodedata", "uuid"),
    }
)
CORE_PACKAGES = frozenset({"msgspec", "cryptography"})
# The one place that knows how to wait, and its reason to know what an event loop is.
CORE_EXCEPTIONS = {"sojourn._core.concurrency": frozenset({"asyncio", "threading", "time"})}

# Every type checker brings this one itself; under `if TYPE_CHECKING:` it need not be installed.
TYPES_ALONE = frozenset({"typing_extensions"})

# Packages that are not dependencies of the core, and the only modules that may name them.
OPTIONAL = {
    "anyio": "sojourn.testing",
    "fastapi": "sojourn.frameworks.fastapi",
    "hiredis": "sojourn.stores.redis",
    "hypothesis": "sojourn.testing",
    "pytest": "sojourn.testing",
    "_pytest": "sojourn.testing",
    "redis": "sojourn.stores.redis",
    "starlette": "sojourn.frameworks.starlette",
}
# FastAPI is Starlette underneath; one fixture makes Starlette's test client.
OPTIONAL_TOO = {
    ("starlette", "sojourn.frameworks.fastapi"),
    ("starlette", "sojourn.testing.plugin"),
}

FORBIDDEN = {
    "pickle": "stored bytes must never run (B-10)",
    "_pickle": "stored bytes must never run (B-10)",
    "shelve": "it is pickle underneath (B-10)",
    "marshal": "stored bytes must never run (B-10)",
    "dill": "it is pickle underneath (B-10)",
    "cloudpickle": "it is pickle underneath (B-10)",
    "http.cookies": "it lets control characters through (B-58) and loses cookies after a bad name",
}


class Import(NamedTuple):
    """One import: by which module, in which file and line, of what, for the type checker only."""

    module: str
    where: str
    target: str
    types_only: bool


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in sorted((SOURCE / "sojourn").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path, known: dict[str, Path]) -> Iterator[Import]:
    """Yield everything that the file of a module imports."""
    tree = ast.parse(path.read_text("utf-8"))
    unseen = {
        id(node)
        for guard in ast.walk(tree)
        if isinstance(guard, ast.If) and is_type_checking(guard.test)
        for statement in guard.body
        for node in ast.walk(statement)
    }
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        where = f"{path.relative_to(SOURCE.parent)}:{getattr(node, 'lineno', 0)}"
        for target in targets(node, package, known):
            yield Import(module, where, target, types_only=id(node) in unseen)


def is_type_checking(test: ast.expr) -> bool:
    """Tell whether a condition is TYPE_CHECKING and nothing else."""
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def targets(node: ast.AST, package: str, known: dict[str, Path]) -> Iterator[str]:
    """Yield the full dotted names that one statement or call imports."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=target, names=names, level=level):
            base = package.split(".")[: len(package.split(".")) - level + 1] if level else []
            origin = ".".join(filter(None, [*base, target]))
            for alias in names:
                submodule = f"{origin}.{alias.name}"
                yield submodule if submodule in known or submodule in FORBIDDEN else origin
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str() as target), *_],
        ):
            yield target


def all_imports() -> list[Import]:
    """Return every import of the whole package."""
    known = modules()
    return [found for module, path in known.items() for found in imports(module, path, known)]


def room(module: str) -> str:
    """Return the room that a module of ours belongs to, the empty string for the front door."""
    name = module.split(".")[1] if "." in module else ""
    return name if name in TIERS else ""


def within(module: str, package: str) -> bool:
    """Tell whether module is the package or lies in it."""
    return f"{module}.".startswith(f"{package}.")


def test_imports_run_one_way():
    """Architecture: core, then stores, web and live, then sessions, then what uses them."""
    wrong = []
    for module, where, target, _ in all_imports():
        if not within(target, "sojourn"):
            continue
        here, there = room(module), room(target)
        if (here, there) in TOGETHER:
            continue
        if here != there and TIERS.get(there, FRONT_DOOR) >= TIERS.get(here, FRONT_DOOR):
            wrong.append(f"{where}: {here} must not import {target}")
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle():
    """Also inside a room: what is read first must not need what is read later."""
    known = modules()
    graph = {module: set() for module in known}
    for module, _, target, types_only in all_imports():
        if target in known and target != module and not types_only:
            graph[module].add(target)
    with_door = graph.pop("sojourn")  # every submodule needs its package: no circle of ours
    assert with_door, "the front door imports nothing"
    order = TopologicalSorter({module: needs - {"sojourn"} for module, needs in graph.items()})
    order.prepare()  # raises CycleError, which names the circle


def test_core_imports_only_what_is_pure():
    """Architecture: core has no I/O, no framework, no client, no event loop, no clock."""
    wrong = []
    for module, where, target, types_only in all_imports():
        if types_only and target in TYPES_ALONE:
            continue
        if not within(module, "sojourn._core") or within(target, "sojourn"):
            continue
        allowed = PURE | CORE_PACKAGES | CORE_EXCEPTIONS.get(module, frozenset())
        if target.partition(".")[0] not in allowed:
            wrong.append(f"{where}: {target}")
    assert not wrong, "\n".join(wrong)


def test_no_module_can_run_stored_bytes_or_use_the_lax_cookie_parser():
    """B-10, B-12, B-58: no pickle in any disguise, and no http.cookies, anywhere in src."""
    wrong = [
        f"{where}: {target}: {why}"
        for _, where, target, _ in all_imports()
        for name, why in FORBIDDEN.items()
        if within(target, name)
    ]
    assert not wrong, "\n".join(wrong)


def test_optional_packages_are_named_only_by_their_own_file():
    """Architecture: who does not use a framework never needs it installed."""
    wrong = []
    for module, where, target, types_only in all_imports():
        if types_only and target in TYPES_ALONE:
            continue
        top = target.partition(".")[0]
        if top in sys.stdlib_module_names or top == "sojourn" or top in CORE_PACKAGES:
            continue
        if within(module, OPTIONAL.get(top, "nowhere")) or (top, module) in OPTIONAL_TOO:
            continue
        wrong.append(f"{where}: {target} belongs to {OPTIONAL.get(top, 'no module of ours')}")
    assert not wrong, "\n".join(wrong)


def test_importing_the_package_loads_no_framework():
    """`import sojourn` in a fresh interpreter loads nothing that is optional."""
    program = "import sojourn, sys; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert not set(OPTIONAL) & set(answer.stdout.split())


def test_every_room_is_one_of_the_architecture():
    """A new folder of the package is first a decision in ARCHITECTURE.md, then a tier here."""
    folders = {path.parent.name for path in (SOURCE / "sojourn").glob("*/__init__.py")}
    assert folders <= set(TIERS)
