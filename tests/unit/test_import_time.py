"""`import sojourn` is quick, and each integration imports its own framework alone."""

import os
import pkgutil
import subprocess
import sys
from statistics import median

import pytest

import sojourn.frameworks
import sojourn.legacy
from tests.test_imports import OPTIONAL

#: Seconds of CPU time. The aim is 0.06 on an idle machine; other programs slow this one down.
LIMIT = 0.25
RUNS = 5

FRAMEWORKS = frozenset(OPTIONAL) - {"pytest", "_pytest", "hypothesis", "anyio", "pydantic"}

#: What a framework imports itself.
BUILT_ON = {
    "blacksheep": {"blacksheep", "guardpost"},
    "django": {"django", "asgiref"},
    "fastapi": {"fastapi", "starlette", "pydantic_core"},
    "install": set(),
    "pyramid": {"pyramid", "zope"},
    "quart": {"quart", "flask"},
    "text_options": set(),
}


def measure(program, environment):
    """Return what a program prints in a fresh interpreter."""
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
def test_the_package_is_imported_quickly(tmp_path):
    """The median of several runs, without the start of the interpreter, with compiled modules."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    program = (
        "from time import process_time; at = process_time(); import sojourn; "
        "print(process_time() - at)"
    )
    measure(program, environment)  # compiles
    taken = [float(measure(program, environment)) for _ in range(RUNS)]
    assert median(taken) < LIMIT, taken


def test_the_package_loads_no_reader_and_no_database():
    """`import sojourn` loads what every application needs."""
    loaded = set(measure("import sojourn, sys; print(*sys.modules)", None).split())
    assert not loaded & {"sojourn.legacy", "sqlite3", "importlib.metadata", "redis"}


@pytest.mark.parametrize("name", submodules(sojourn.frameworks))
def test_an_integration_imports_only_its_framework(name):
    pytest.importorskip(name if name not in BUILT_ON or BUILT_ON[name] else "sojourn")
    assert loaded_by(f"sojourn.frameworks.{name}") <= BUILT_ON.get(name, {name})


@pytest.mark.parametrize("name", submodules(sojourn.legacy))
def test_a_reader_imports_no_framework(name):
    """The former library need not be installed."""
    assert loaded_by(f"sojourn.legacy.{name}") == set()
