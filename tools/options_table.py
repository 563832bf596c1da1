"""Write the table of options in docs/options.md from the fields of ``sojourn.config.Options``.

python -m tools.options_table
"""

import ast
import inspect
from collections.abc import Mapping
from itertools import pairwise

from sojourn import config
from tools import markdown

PAGE = markdown.DOCS / "options.md"


def texts(source: str) -> dict[str, str]:
    """Return the text below each field of the classes in a source."""
    found = {}
    for body in (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef)):
        for node, after in pairwise(body):
            match node, after:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str() as text)),
                ):
                    found[name] = " ".join(text.split())
    return found


def default(option: config.Option) -> str:
    """Return the cell for a default."""
    match option.default:
        case _ if option.default_text:
            return option.default_text
        case None:
            return "none"
        case bool() | dict() | tuple():
            return f"`{option.default!r}`"
        case int() as number:
            return f"{number:,}"
        case str() as word if word[0].isdigit():  # a duration
            return word
        case word:
            return f'`"{word}"`'


def table(options: Mapping[str, config.Option], meanings: Mapping[str, str]) -> str:
    """Return the table in Markdown."""
    rows = []
    for name, option in options.items():
        meaning = meanings[name]
        if option.env:
            meaning += f" Environment: `SOJOURN_{name.upper()}`."
        if option.see:
            meaning += f" [More]({option.see})."
        rows.append((f"`{name}`", default(option), meaning))
    return markdown.table(("option", "default", "meaning"), rows)


def page(text: str) -> str:
    """Return the page with its table as it should be."""
    options = table(config.OPTIONS, texts(inspect.getsource(config)))
    begin = "<!-- options: written by tools/options_table.py -->"
    return markdown.replace(text, begin, "<!-- /options -->", options)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
