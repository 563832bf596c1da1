"""Makefile: each target is declared, listed by ``make help`` and documented in CONTRIBUTING.md."""

import re

import pytest


@pytest.fixture(scope="module")
def makefile(repository):
    return (repository / "Makefile").read_text("utf-8")


def targets(makefile):
    """Return the names of the public targets."""
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", makefile, re.MULTILINE))


def test_every_target_is_declared_phony(makefile):
    (declared,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(declared.split()) == targets(makefile)


def test_help_lists_every_target(makefile):
    listed = re.findall(r'^\t@echo "make ([a-z-]+)', makefile, re.MULTILINE)
    assert sorted(listed) == sorted(targets(makefile) - {"help"})


def test_contributing_documents_every_target(makefile, repository):
    page = (repository / "CONTRIBUTING.md").read_text("utf-8")
    documented = re.findall(r"^\| `make ([a-z-]+)` \|", page, re.MULTILINE)
    assert set(documented) == targets(makefile) - {"help", "clean"}
