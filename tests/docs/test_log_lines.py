"""The tables of the page on logging match the log lines of the source."""

import ast
from pathlib import Path

import pytest

from tests.docs.log_lines import SOURCE, lines_of_calls, lines_of_page, lines_of_source

PAGE = (Path(__file__).parent.parent.parent / "docs/production/logging.md").read_text("utf-8")


def test_every_log_line_is_documented_and_exists():
    """In both directions; each row once."""
    rows = lines_of_page(PAGE)
    assert len(rows) == len(set(rows))
    found = lines_of_source()
    assert set(rows) - found == set()
    assert found - set(rows) == set()


def test_every_module_uses_the_same_logger():
    """An operator sets the level of one logger."""
    sources = {path: path.read_text("utf-8") for path in SOURCE.rglob("*.py")}
    for path in [path for path, source in sources.items() if "logging" in source]:
        for node in ast.walk(ast.parse(sources[path])):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="getLogger"), args=[ast.Constant(value=name)]
                ):
                    assert name == "sojourn", path
                case ast.Call(func=ast.Attribute(value=ast.Name(id="logging"), attr=name)):
                    # A command prints its errors, so its process needs no logging handler.
                    assert name in ("getLogger", "NullHandler"), f"{path}: logging.{name}"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ('logger.info("a %s and %.20r", b, c)', ("INFO", "a … and …")),
        ('logger.exception("failed")', ("ERROR", "failed")),
        ('logger.log(level, "a" "b")', ("*", "ab")),
        ('web.event_log.log_failure("a: %s", error)', ("*", "a: …")),
        ('_TEXT = "a"\ndef f():\n    logger.warning(_TEXT)', ("WARNING", "a")),
    ],
)
def test_a_line_is_found_in_source(source, line):
    assert list(lines_of_calls(ast.parse(source))) == [line]


def test_a_row_is_found_in_a_page():
    page = "| ERROR, DEBUG | `a …` | b |\n| INFO | `…: …` (`web/a.py`) | |\n| level | line | c |\n"
    assert lines_of_page(page) == [("*", "a …"), ("INFO", "…: … (web/a.py)")]
