"""`import sojourn` is fast, and each integration imports only its own framework."""

import os
import pkgutil
import subprocess
import sys
from statistics import median

import pytest

import sojourn.frameworks
import sojourn.legacy
from tests.test_imports import OPTIONAL

#: From statement to seconds of CPU time, about three times those of an idle machine, because other
#: programs slow this one down. The aim of the first is 0.06. Of the second, which loads everything
#: but frameworks and stores, asyncio, msgspec, logging and cryptography take more than half.
LIMITS = {"import sojourn": 0.03, "from sojourn import *": 0.2}
RUNS = 5

FRAMEWORKS = frozenset(OPTIONAL) - {"pytest", "_pytest", "hypothesis", "anyio", "pydantic"}

#: What a framework imports itself.
BUILT_ON = {
    "blacksheep": {"blacksheep", "guardpost", "pydantic_core"},
    "django": {"django", "asgiref"},
    "fastapi": {"fastapi", "starlette", "pydantic_core", "opentelemetry"},  # if it is installed
    "flask": {"flask", "werkzeug", "markupsafe", "click", "jinja2"},
    "flask_commands": {"click"},  # with every command of Flask: not Flask itself, and not rich
    "install": set(),
    "pyramid": {"pyramid", "zope"},
    "quart": {"quart", "flask", "werkzeug", "markupsafe", "click", "jinja2"},
    "sanic": {"sanic", "websockets"},
    "text_options": set(),
}

#: From the name of an integration to that of the package that it needs, if they differ.
NAMED_OTHERWISE = {"flask_commands": "click", "install": "sojourn", "text_options": "sojourn"}


def measure(program, environment):
    """Return what a program prints in a new interpreter."""
    command = [sys.executable, "-c", program]
    answer = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=60
    )
    return answer.stdout


def loaded_by(module):
    """Return the optional packages that are loaded when a module is imported."""
    program = f"import {module}, sys; print(*sys.modules)"
    names = {name.partition(".")[0] for name in measure(program, None).split()}
    return names & FRAMEWORKS


def submodules(package):
    """Return the names of the modules in a package."""
    return sorted(found.name for found in pkgutil.iter_modules(package.__path__))


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("statement", "limit"), LIMITS.items())
def test_the_package_is_imported_quickly(tmp_path, statement, limit):
    """The median of several runs with compiled modules, without the start of the interpreter."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    program = (
        f"from time import process_time; at = process_time(); {statement}; "
        "print(process_time() - at)"
    )
    measure(program, environment)  # compiles
    taken = [float(measure(program, environment)) for _ in range(RUNS)]
    assert median(taken) < limit, taken


def test_the_package_imports_its_modules_at_first_use():
    """`import sojourn` imports neither asyncio nor the engine."""
    program = (
        "import sojourn, sys; early = {*sys.modules}; sojourn.Sessions; sojourn.asgi; "
        "print(*early, '/', *sys.modules)"
    )
    early, _, later = (set(part.split()) for part in measure(program, None).partition("/"))
    parts = {"asyncio", "cryptography", "msgspec", "sojourn.sessions", "sojourn.web.asgi"}
    assert not early & parts
    assert parts <= later


def test_annotations_and_inspection_find_every_name():
    """PEP 562: also names that are not imported yet, by each way of importing them."""
    program = (
        "import sojourn, inspect; names = set(dir(sojourn)); "
        "assert names >= set(sojourn.__all__); "
        "assert {*dict(inspect.getmembers(sojourn))} >= set(sojourn.__all__); "
        "from sojourn import Revoked; assert vars(sojourn)['Revoked'] is Revoked; "
        "from sojourn import *; assert Session and wsgi and asgi; "
        "import sojourn.asgi as direct; assert direct is asgi"
    )
    measure(program, None)


def test_the_public_names_import_neither_legacy_readers_nor_database_clients():
    loaded = set(measure("from sojourn import *; import sys; print(*sys.modules)", None).split())
    assert not loaded & {"sojourn.legacy", "sqlite3", "importlib.metadata", "redis"}


@pytest.mark.parametrize("name", submodules(sojourn.frameworks))
def test_an_integration_imports_only_its_framework(name):
    pytest.importorskip(NAMED_OTHERWISE.get(name, name))
    assert loaded_by(f"sojourn.frameworks.{name}") <= BUILT_ON.get(name, {name})


@pytest.mark.parametrize("name", submodules(sojourn.legacy))
def test_a_legacy_reader_imports_no_framework(name):
    """The former library need not be installed."""
    assert loaded_by(f"sojourn.legacy.{name}") == set()
