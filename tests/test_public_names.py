"""`__all__` tells the truth, and the front door stays small enough to know by heart.

What the names mean is settled in docs/; that each documented option and member exists is
compared elsewhere. Here: only that a public name can be had, is ours, and is announced.
"""

import importlib
import inspect
import pkgutil
import types

import pytest

import sojourn

MOST_NAMES = 24


def announcing_modules() -> list[str]:
    """Return every module of the package that has an `__all__`, but those for pytest to load."""
    names = ["sojourn"]
    for found in pkgutil.walk_packages(sojourn.__path__, "sojourn."):
        module = importlib.import_module(found.name)
        if hasattr(module, "__all__"):
            names.append(found.name)
    return names


@pytest.mark.parametrize("name", announcing_modules())
def test_each_announced_name_exists_once(name):
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    missing = [public for public in module.__all__ if not hasattr(module, public)]
    assert not missing


@pytest.mark.parametrize("name", ["sojourn.asgi", "sojourn.wsgi"])
def test_the_middleware_can_be_imported_by_the_name_that_errors_and_docs_give(name):
    module = importlib.import_module(name)
    assert callable(module.SessionMiddleware)
    assert getattr(sojourn, name.rpartition(".")[2]) is module


def test_the_front_door_has_at_most_24_names():
    assert 0 < len(sojourn.__all__) <= MOST_NAMES


def test_each_public_name_of_the_front_door_is_announced():
    """What a user can reach as `sojourn.name` without an underscore is in `__all__`."""
    reachable = {
        name
        for name, value in vars(sojourn).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert reachable <= set(sojourn.__all__)


def test_each_announced_name_is_listed_and_documented():
    """`dir()` shows what `__all__` promises, and each class or function says what it does."""
    listed = dir(sojourn)
    for name in sojourn.__all__:
        assert name in listed
        value = getattr(sojourn, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert inspect.getdoc(value), f"sojourn.{name} has no docstring"


def test_unknown_names_are_attribute_errors():
    """A typo fails where it is typed, also when names are looked up lazily."""
    with pytest.raises(AttributeError, match="instal"):
        _ = sojourn.instal
