"""Markdown that the programs of this folder write into pages."""

from collections.abc import Iterable
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (headings, *rows)]
    return "\n".join([lines[0], "|---" * (lines[0].count("|") - 1) + "|", *lines[1:]])


def replace(page: str, begin: str, end: str, block: str) -> str:
    """Return a page with another block between two lines.

    Raises:
        SystemExit: the page lacks one of the lines.
    """
    before, begun, rest = page.partition(f"{begin}\n")
    _, ended, after = rest.partition(f"{end}\n")
    if not (begun and ended):
        raise SystemExit(f"the page has no place for the table: it needs {begin} … {end}")
    return f"{before}{begun}{block}\n{ended}{after}"
