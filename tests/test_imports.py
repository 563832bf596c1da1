"""The import order of ARCHITECTURE.md, checked on the syntax trees of the modules.

Imports inside functions, under TYPE_CHECKING and by name through importlib count, too.
"""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parent.parent / "src"

# A part of the package may import itself and parts with a lower number.
ORDER = {
    "errors": 0,
    "_folder": 0,
    "events": 1,
    "record": 2,
    "store": 3,
    "_crypto": 3,
    "_core": 4,
    "stores": 5,
    "session": 6,
    "live": 7,
    "legacy": 9,
    "web": 8,
    "audit": 8,
    "config": 9,
    "sessions": 10,
    "asgi": 10,
    "wsgi": 10,
    "admin": 11,
    "cli": 11,
    "telemetry": 11,
    "frameworks": 12,
    "__main__": 13,
    "testing": 13,
}
# The package itself, which only collects public names; its modules do not import it.
ROOT = "sojourn"
ROOT_IMPORTS = {part for part, number in ORDER.items() if number < ORDER["testing"]}

# What a store may import, besides its own package.
STORE_CONTRACT = frozenset(
    {
        "sojourn._folder",
        "sojourn.errors",
        "sojourn.record",
        "sojourn.store",
        "sojourn._core.concurrency",
        "sojourn._core.json_records",
        "sojourn.stores.broadcast_messages",
        "sojourn.stores.history",
        "sojourn.stores.reconnection",
        "sojourn.stores.urls",
        "sojourn.stores.batching",
    }
)

# Modules of the standard library without I/O, clock, threads or event loop. `secrets` reads the
# random source of the operating system, which tickets need.
PURE = frozenset(
    {
        *("__future__", "abc", "base64", "binascii", "bisect", "collections", "contextlib", "copy"),
        *("dataclasses", "datetime", "decimal", "enum", "functools", "hashlib", "heapq", "hmac"),
        *("inspect", "itertools", "math", "operator", "re", "secrets", "string", "struct", "types"),
        *("typing", "unicodedata", "uuid"),
    }
)
CORE_PACKAGES = frozenset({"msgspec", "cryptography"})
# Modules of the core that may import more, each for one purpose.
CORE_EXCEPTIONS = {
    # Marks coroutine functions, which Python 3.11 does with a name of asyncio.
    "sojourn._core.coroutine_function": frozenset({"asyncio"}),
    # Imported when a pydantic model is given as the state.
    "sojourn._core.pydantic_state": frozenset({"pydantic", "pydantic_core"}),
    # The clock of the machine.
    "sojourn._core.clock": frozenset({"time"}),
    # Imported when a session holds Markup.
    "sojourn._core.codec": frozenset({"markupsafe"}),
    # Runs coroutines with and without an event loop. `os` and `weakref` for the hook that replaces
    # locks after a fork.
    "sojourn._core.concurrency": frozenset({"asyncio", "os", "threading", "time", "weakref"}),
    # Reports from a finalizer, in which the listeners of an event must not run.
    "sojourn._core.late_changes": frozenset({"logging"}),
    # Logs that entries are missing, once for each outage.
    "sojourn._core.history": frozenset({"logging"}),
}

# Part of every type checker; under `if TYPE_CHECKING:` it need not be installed.
TYPING_ONLY = frozenset({"typing_extensions"})

# Optional packages, and the only modules that may import them.
OPTIONAL = {
    "aiohttp": "sojourn.frameworks.aiohttp",
    "anyio": "sojourn.testing",
    "asgiref": "sojourn.frameworks.django",
    "blacksheep": "sojourn.frameworks.blacksheep",
    "bottle": "sojourn.frameworks.bottle",
    "channels": "sojourn.frameworks.django",
    "click": "sojourn.cli",
    "django": "sojourn.frameworks.django",
    "falcon": "sojourn.frameworks.falcon",
    "fastapi": "sojourn.frameworks.fastapi",
    "flask": "sojourn.frameworks.flask",
    "flask_login": "sojourn.frameworks.flask",
    "guardpost": "sojourn.frameworks.blacksheep",
    "hiredis": "sojourn.stores.redis",
    "jinja2": "sojourn.admin",
    "litestar": "sojourn.frameworks.litestar",
    "markupsafe": "sojourn._core.codec",
    "opentelemetry": "sojourn.telemetry",
    "prometheus_client": "sojourn.telemetry",
    "psycopg": "sojourn.stores.postgresql",
    "psycopg_pool": "sojourn.stores.postgresql",
    "pyramid": "sojourn.frameworks.pyramid",
    "pytest": "sojourn.testing",
    "_pytest": "sojourn.testing",
    "pydantic": "sojourn._core.pydantic_state",
    "pydantic_core": "sojourn._core.pydantic_state",
    "quart": "sojourn.frameworks.quart",
    "redis": "sojourn.stores.redis",
    "rich": "sojourn.cli",
    "sanic": "sojourn.frameworks.sanic",
    "starlette": "sojourn.frameworks.starlette",
    "tornado": "sojourn.frameworks.tornado",
    "ua_parser": "sojourn.admin",
    "websockets": "sojourn.frameworks.sanic",  # a requirement of Sanic
    "werkzeug": "sojourn.frameworks.flask",
    "zope": "sojourn.frameworks.pyramid",
}
# FastAPI is built on Starlette; one fixture uses Starlette's test client.
ALSO_ALLOWED = {
    ("starlette", "sojourn.frameworks.fastapi"),
    ("starlette", "sojourn.testing.plugin"),
    # Reads the sessions of a Django project from inside of it.
    ("django", "sojourn.legacy.django"),
    ("asgiref", "sojourn.legacy.django"),
    ("redis", "sojourn.legacy.redis_records"),
    # Quart is built on Werkzeug.
    ("werkzeug", "sojourn.frameworks.quart.csrf"),
    ("werkzeug", "sojourn.frameworks.quart.errors"),
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
#: Django's ``response.cookies`` holds Morsels: this module writes one, and parses no cookie.
HARMLESS = {("http.cookies", "sojourn.frameworks.django.response")}


class Import(NamedTuple):
    """One import: the importing module, its file and line, the imported name, and its kind."""

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
    """Yield the imports of a module."""
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
    """Return whether a condition is TYPE_CHECKING."""
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


@functools.cache
def all_imports() -> list[Import]:
    """Return every import of the whole package."""
    known = modules()
    return [found for module, path in known.items() for found in imports(module, path, known)]


def part(module: str) -> str:
    """Return the part of the package that a module belongs to; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def within(module: str, package: str) -> bool:
    """Return whether a module is the package or inside it."""
    return f"{module}.".startswith(f"{package}.")


def disorder(module: str, target: str) -> str:
    """Return why one module of the package must not import another one; "" if it may."""
    here, there = part(module), part(target)
    if target == ROOT:
        return "" if module == ROOT else "modules do not import the package itself"
    if module == ROOT:
        return "" if there in ROOT_IMPORTS else f"the package must not import {there}"
    if here not in ORDER or there not in ORDER:
        return f"{here} or {there} is not in ORDER"
    if here == "stores" and not allowed_in_stores(module, target):
        return f"a store must not import {target}"
    return "" if here == there or ORDER[there] < ORDER[here] else f"{here} must not import {target}"


def allowed_in_stores(module: str, target: str) -> bool:
    """Return whether a module of ``sojourn.stores`` may import another module."""
    own = ".".join(module.split(".")[:3])
    return target in STORE_CONTRACT or within(target, own)


def cycle(needs: dict[str, set[str]]) -> list[str]:
    """Return a cycle of modules that import each other; empty if there is none."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_imports_run_one_way():
    """Architecture: the import order, type-only imports included."""
    wrong = [
        f"{where}: {reason}"
        for module, where, target, _ in all_imports()
        if within(target, ROOT) and (reason := disorder(module, target))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("sojourn.live.broadcast", "sojourn.web.websocket"),
        ("sojourn._core.engine", "sojourn.session"),
        ("sojourn.web.asgi", "sojourn.audit"),
        ("sojourn.web.asgi", "sojourn"),
        ("sojourn.session", "sojourn.web.lifecycle"),
        ("sojourn.sessions", "sojourn.frameworks.install"),
        ("sojourn", "sojourn.testing"),
        ("sojourn.stores.redis.user_index", "sojourn._core.policy"),
        ("sojourn.stores.memory", "sojourn.stores.callback"),
        ("sojourn.new_module", "sojourn.errors"),
    ],
)
def test_an_import_in_the_wrong_direction_is_found(module, target):
    assert disorder(module, target)


def test_modules_have_no_import_cycles():
    """Architecture: no cycles inside of a part either, type-only imports included."""
    known = modules()
    needs: dict[str, set[str]] = {module: set() for module in known if module != ROOT}
    for module, _, target, _ in all_imports():
        if module in needs and target in needs and target != module:
            needs[module].add(target)
    assert all_imports()
    assert cycle(needs) == []


def test_a_cycle_is_found():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()})


def test_core_imports_only_what_is_pure():
    """Architecture: the core has no I/O, no framework, no client, no event loop and no clock."""
    wrong = []
    for module, where, target, types_only in all_imports():
        if types_only and target in TYPING_ONLY:
            continue
        if not within(module, "sojourn._core") or within(target, "sojourn"):
            continue
        allowed = PURE | CORE_PACKAGES | CORE_EXCEPTIONS.get(module, frozenset())
        if target.partition(".")[0] not in allowed:
            wrong.append(f"{where}: {target}")
    assert not wrong, "\n".join(wrong)


def test_no_module_can_run_stored_bytes_or_use_the_lax_cookie_parser():
    """B-10, B-12, B-58: no module like pickle, and no http.cookies, in src."""
    wrong = [
        f"{where}: {target}: {why}"
        for module, where, target, _ in all_imports()
        for name, why in FORBIDDEN.items()
        if within(target, name) and (name, module) not in HARMLESS
    ]
    assert not wrong, "\n".join(wrong)


def test_optional_packages_are_imported_only_by_their_own_file():
    """Architecture: a framework that is not used need not be installed."""
    wrong = []
    for module, where, target, types_only in all_imports():
        if types_only and target in TYPING_ONLY:
            continue
        top = target.partition(".")[0]
        if top in sys.stdlib_module_names or top == "sojourn" or top in CORE_PACKAGES:
            continue
        if within(module, OPTIONAL.get(top, "nowhere")) or any(
            top == package and within(module, user) for package, user in ALSO_ALLOWED
        ):
            continue
        wrong.append(f"{where}: {target} belongs to {OPTIONAL.get(top, 'no module')}")
    assert not wrong, "\n".join(wrong)


def test_importing_the_package_loads_no_framework():
    """Every public name in a fresh interpreter loads nothing that is optional."""
    program = "from sojourn import *; import sys; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert not set(OPTIONAL) & set(answer.stdout.split())


def test_every_part_has_a_place_in_the_order():
    """Architecture: a new module or folder of the package is added to ORDER."""
    parts = {part(module) for module in modules()} - {""}
    assert parts <= set(ORDER)
