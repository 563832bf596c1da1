"""`__all__` of each module, and the number of public names of the package."""

import importlib
import inspect
import pkgutil
import types

import pytest

import sojourn
from sojourn.events import KINDS

#: Names besides the event classes; modules count.
MOST_NAMES = 16


def modules_with_all() -> list[str]:
    """Return every module of the package that has an `__all__`."""
    names = ["sojourn"]
    for found in pkgutil.walk_packages(sojourn.__path__, "sojourn."):
        module = importlib.import_module(found.name)
        if hasattr(module, "__all__"):
            names.append(found.name)
    return names


@pytest.mark.parametrize("name", modules_with_all())
def test_each_name_of_all_exists_once(name):
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    missing = [public for public in module.__all__ if not hasattr(module, public)]
    assert not missing


@pytest.mark.parametrize("name", ["sojourn.asgi", "sojourn.wsgi"])
def test_the_middleware_is_importable_by_its_documented_name(name):
    module = importlib.import_module(name)
    assert callable(module.SessionMiddleware)
    assert getattr(sojourn, name.rpartition(".")[2]) is module


def test_the_package_has_few_public_names_besides_events():
    events = {kind.__name__ for kind in KINDS}
    assert events < set(sojourn.__all__)
    assert len(set(sojourn.__all__) - events) <= MOST_NAMES


def test_each_public_name_of_the_package_is_in_all():
    """Each attribute of the package without an underscore, except modules, is in `__all__`."""
    reachable = {
        name
        for name, value in vars(sojourn).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert reachable <= set(sojourn.__all__)


def test_each_public_name_is_listed_and_documented():
    """`dir()` lists `__all__`, and each class or function has a docstring."""
    listed = dir(sojourn)
    for name in sojourn.__all__:
        assert name in listed
        value = getattr(sojourn, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert inspect.getdoc(value), f"sojourn.{name} has no docstring"


def test_unknown_names_are_attribute_errors():
    """Also if names are imported lazily."""
    with pytest.raises(AttributeError, match="instal"):
        _ = sojourn.instal
