"""Canaries: faults planted in named functions, each of which must make a test of its law fail.

A fault replaces the function, method or constant at an import path (``module:Class.member``), so a
rename or a removal is found. ``tools/canaries.py`` runs them.
"""

import importlib
import inspect
import pkgutil
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import citations

#: Modules of this package that hold no canaries.
_INFRASTRUCTURE = {"registry", "plugin", "startup", "test_canaries"}

Fault = Callable[[Any], Any]
"""Returns the faulty replacement of the original that it gets."""


class MissingTarget(Exception):
    """The target of a canary does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """One fault.

    Attributes:
        name: states the fault.
        breaks: the laws and security rows of which a citing test must fail, one for each.
        targets: import paths of what is replaced, ``module:Class.member`` or ``module:name``.
        tests: parts of node IDs; of the citing tests, those run whose ID contains one of them.
        raises: names of exceptions that count as an intended failure besides failed assertions.
        fault: returns the replacement.
    """

    name: str
    breaks: tuple[str, ...]
    targets: tuple[str, ...]
    tests: tuple[str, ...]
    raises: tuple[str, ...]
    fault: Fault

    def select(self, docstrings: Mapping[str, str]) -> list[str]:
        """Return the node IDs of the tests to run, in the order of ``tests``.

        Args:
            docstrings: of the collected tests, by node ID.
        """
        broken = set(self.breaks)
        citing = [test for test in docstrings if broken & citations.names(docstrings[test])]
        if not self.tests:
            return citing
        chosen = (test for part in self.tests for test in citing if part in test)
        return list(dict.fromkeys(chosen))


_registered: dict[str, Canary] = {}


def canary(
    breaks: str, *targets: str, tests: str = "", raises: str = ""
) -> Callable[[Fault], Fault]:
    """Register the decorated fault as a canary named after the function.

    Args:
        breaks: laws and security rows, separated by commas.
        targets: see ``Canary``.
        tests: see ``Canary``; separated by spaces.
        raises: see ``Canary``; separated by spaces.
    """

    def register(fault: Fault) -> Fault:
        name = fault.__name__
        if name in _registered:
            raise ValueError(f"two canaries are named {name}")
        _registered[name] = Canary(
            name=name,
            breaks=tuple(breaks.split(", ")),
            targets=targets,
            tests=tuple(tests.split()),
            raises=tuple(raises.split()),
            fault=fault,
        )
        return fault

    return register


def canaries() -> dict[str, Canary]:
    """Return all canaries by name."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name not in _INFRASTRUCTURE:
            importlib.import_module(f"tests.canaries.{module.name}")
    return dict(_registered)


def plant(name: str) -> Canary:
    """Replace the targets of a canary for the rest of the process.

    Raises:
        MissingTarget: one of them does not exist.
    """
    chosen = canaries()[name]
    for target in chosen.targets:
        owner, attribute, original = resolve(target)
        _replace(owner, attribute, original, _faulty(chosen.fault, original))
    return chosen


@contextmanager
def planted(name: str) -> Iterator[Canary]:
    """Plant a canary for the duration of a block; modules imported in it keep the fault."""
    chosen = canaries()[name]
    undo = []
    try:
        for target in chosen.targets:
            owner, attribute, original = resolve(target)
            fault = _faulty(chosen.fault, original)
            undo.append((owner, attribute, fault, original))
            _replace(owner, attribute, original, fault)
        yield chosen
    finally:
        for owner, attribute, fault, original in reversed(undo):
            _replace(owner, attribute, fault, original)


def resolve(target: str) -> tuple[Any, str, Any]:
    """Return the owner of a target, its attribute's name and what is stored there.

    Raises:
        MissingTarget: the module, the class or the member does not exist. A member that a class
            inherits does not count: name the class that defines it.
    """
    module, _, path = target.partition(":")
    try:
        with warnings.catch_warnings():
            # Frameworks warn about modules that they import; a warning would be an error here.
            warnings.simplefilter("ignore")
            owner: Any = importlib.import_module(module)
        *classes, attribute = path.split(".")
        for name in classes:
            owner = vars(owner)[name]
        return owner, attribute, vars(owner)[attribute]
    except (ImportError, KeyError) as error:
        raise MissingTarget(f"{target} does not exist: {error!r}") from error


def signature_changes(original: object, fault: object) -> str:
    """Return why a fault cannot replace its original; empty if it can."""
    one, other = _function(original), _function(fault)
    if not isinstance(one, types.FunctionType) or not isinstance(other, types.FunctionType):
        return ""
    if inspect.iscoroutinefunction(one) != inspect.iscoroutinefunction(other):
        return "only one of the two is a coroutine function"
    wanted, given = inspect.signature(one).parameters, inspect.signature(other).parameters
    if any(each.kind is each.VAR_POSITIONAL for each in given.values()):
        return ""
    if list(wanted) != list(given):
        return f"expected the parameters {list(wanted)}, found {list(given)}"
    return ""


def _function(member: object) -> object:
    """Return the function of a method as a class stores it."""
    if isinstance(member, classmethod | staticmethod):
        return member.__func__
    if isinstance(member, property):
        return member.fget
    return member


def _faulty(fault: Fault, original: Any) -> Any:
    if isinstance(original, classmethod | staticmethod):
        return type(original)(fault(original.__func__))
    if isinstance(original, property):
        return property(fault(original.fget), original.fset)
    return fault(original)


def _replace(owner: Any, attribute: str, original: Any, fault: Any) -> None:
    setattr(owner, attribute, fault)
    if not isinstance(owner, types.ModuleType):
        return
    # `from module import name` has copied the reference into other modules.
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("sojourn") and (
            vars(module).get(attribute) is original
        ):
            setattr(module, attribute, fault)
