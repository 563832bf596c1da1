"""Reads the log lines from the source of the package and from the tables of the documentation."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parent.parent.parent / "src" / "sojourn"

METHODS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})

#: The method of ``EventLog`` that writes the line of its caller.
FORWARDER = "log_failure"

#: A field of a format, such as ``%s`` or ``%.20r``.
FIELD = re.compile(r"%(?:\.\d+)?[sdrf]")


def lines_of_source() -> set[tuple[str, str]]:
    """Return the level and the text of each log line; a field is ``…``, a variable level ``*``.

    A line that consists of one field is named by its file.
    """
    found = set()
    for path in sorted(SOURCE.rglob("*.py")):
        source = path.read_text("utf-8")
        if not ("logger." in source or f".{FORWARDER}(" in source):  # parsing all takes a second
            continue
        for level, text in lines_of_calls(ast.parse(source)):
            file = f" ({path.relative_to(SOURCE).as_posix()})" if text in ("…", "…: …") else ""
            found.add((level, text + file))
    return found


def lines_of_calls(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the level and the text of each call of ``logger`` or ``log_failure`` in a module."""
    forwarded = {
        call
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == FORWARDER
        for call in ast.walk(node)
    }
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and node.value is not None
    }
    for node in ast.walk(tree):
        if node in forwarded:
            continue
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="logger"), attr=name), args=args):
                pass
            case ast.Call(func=ast.Attribute(attr="log_failure" as name), args=args):
                pass
            case _:
                continue
        if name == "log":
            level, template = "*", args[1]
        elif name == FORWARDER:
            level, template = "*", args[0]
        elif name in METHODS:
            level, template = {"exception": "ERROR"}.get(name, name.upper()), args[0]
        else:
            continue
        if isinstance(template, ast.Name):
            template = constants[template.id]
        assert isinstance(template, ast.Constant), f"not a constant: {ast.unparse(node)}"
        yield level, FIELD.sub("…", str(template.value))


def lines_of_page(text: str) -> list[tuple[str, str]]:
    """Return the level and the text of each row of the tables ``level | line | …``.

    A file after the line belongs to it, as in ``lines_of_source``.
    """
    rows = re.findall(r"^\| ([A-Z, ]+) \| `([^`]+)`(?: \(`([^`]+)`\))? \|", text, re.MULTILINE)
    return [
        ("*" if "," in levels else levels, f"{line} ({file})" if file else line)
        for levels, line, file in rows
    ]
