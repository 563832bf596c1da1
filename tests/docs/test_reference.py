"""docs/reference.md covers every public name; a framework's page may cover its own names.

A `::: sojourn.x` directive covers the object, or every public name of the module, that it names.
Names are compared by their definition, so `sojourn.Revoked` is covered by `::: sojourn.events`.
"""

import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

import sojourn

DOCS = Path(__file__).parent.parent.parent / "docs"

# Public modules without `__all__`, with their public names.
NAMES = {
    "sojourn.frameworks.fastapi": ["SessionDep", "get_session"],
    "sojourn.record": ["Record", "UnreadableRecord"],
    "sojourn.sessions": ["SessionInfo", "Usage"],
    "sojourn.stores.callback": ["CallbackStore"],
    "sojourn.stores.memory": ["MemoryStore"],
    "sojourn.stores.urls": ["StoreURL"],
    "sojourn.web.session_context": ["SessionContext"],
}


def public_modules() -> list[str]:
    """Return every module that users may import: no part of its name has an underscore."""
    names = ["sojourn", *(m.name for m in pkgutil.walk_packages(sojourn.__path__, "sojourn."))]
    return [name for name in names if not any(part[0] == "_" for part in name.split("."))]


def public_names() -> list[str]:
    """Return every public name with its module: those of `__all__`, and those of `NAMES`."""
    found = []
    for module in public_modules():
        names = getattr(importlib.import_module(module), "__all__", NAMES.get(module, []))
        found += [f"{module}.{name}" for name in names]
    return found


def definition(name: str) -> tuple[str, str]:
    """Return the module and the name under which an object is defined."""
    module, _, attribute = name.rpartition(".")
    value = getattr(importlib.import_module(module), attribute)
    if isinstance(value, ModuleType):
        return value.__name__, ""
    is_definition = isinstance(getattr(value, "__qualname__", None), str)
    return (value.__module__, value.__qualname__) if is_definition else (module, attribute)


def directives(folder: Path) -> set[str]:
    """Return what the `:::` directives of all pages name."""
    pages = (page.read_text("utf-8") for page in sorted(folder.rglob("*.md")))
    return {name for page in pages for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE)}


def covered(directive: str) -> set[tuple[str, str]]:
    """Return the definitions that a directive covers."""
    try:
        module = importlib.import_module(directive)
    except ModuleNotFoundError:
        return {definition(directive)}
    names = getattr(module, "__all__", [name for name in vars(module) if name[0] != "_"])
    return {(directive, ""), *(definition(f"{directive}.{name}") for name in names)}


def missing(folder: Path) -> list[str]:
    """Return the public names that no page covers."""
    found = {each for directive in directives(folder) for each in covered(directive)}
    # A module is covered if its names are, which are in the list themselves. A name of another
    # package, such as an exception of Django that the session engine exports, is documented there.
    return [
        name
        for name in public_names()
        if definition(name) not in found
        and definition(name)[1] != ""
        and definition(name)[0].partition(".")[0] == "sojourn"
    ]


def test_every_public_name_is_in_the_reference():
    assert missing(DOCS) == []


def test_every_directive_names_something_that_exists():
    """The build of the documentation checks it, too; this test needs no further packages."""
    for directive in directives(DOCS):
        assert covered(directive), directive


@pytest.mark.parametrize("name", ["sojourn.install", "sojourn.store.Store", "sojourn.Revoked"])
def test_a_missing_name_is_found(name, tmp_path):
    page = (DOCS / "reference.md").read_text("utf-8")
    module = definition(name)[0]
    page = re.sub(rf"^::: ({re.escape(name)}|{re.escape(module)})$", "", page, flags=re.MULTILINE)
    (tmp_path / "reference.md").write_text(page, "utf-8")
    assert name in missing(tmp_path)
