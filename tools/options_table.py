"""Write the table of options in docs/options.md from the fields of ``sojourn.config.Options``.

python -m tools.options_table
"""

import ast
import inspect
from itertools import pairwise
from pathlib import Path

from sojourn import config

PAGE = Path(__file__).resolve().parent.parent / "docs" / "options.md"
BEGIN = "<!-- options: written by tools/options_table.py -->"
END = "<!-- /options -->"


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


def table(options: dict[str, config.Option], meanings: dict[str, str]) -> str:
    """Return the table in Markdown."""
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for name, option in options.items():
        meaning = meanings[name]
        if option.env:
            meaning += f" Environment: `SOJOURN_{name.upper()}`."
        if option.see:
            meaning += f" [More]({option.see})."
        lines.append(f"| `{name}` | {default(option)} | {meaning} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """Return the page with its table as it should be."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{PAGE.name} has no place for the table: {BEGIN} … {END}")
    rows = table(dict(config.OPTIONS), texts(inspect.getsource(config)))
    return f"{before}{BEGIN}\n{rows}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
