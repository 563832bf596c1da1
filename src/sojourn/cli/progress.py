"""The progress of long work, on the standard error of a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sojourn.cli.target import Target

Report = Callable[[int, str], object]


@contextmanager
def progress_bar(target: Target, name: str, total: int | None = None) -> Iterator[Report]:
    """Show a progress bar inside of the block; nothing if the standard error is no terminal.

    Args:
        target: whose console is used.
        name: of the work.
        total: None if unknown.

    Yields:
        A function of the number that is done and a text.
    """
    if not sys.stderr.isatty():
        yield lambda _done, _note: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=target.error_console) as progress:
        task = progress.add_task(name, total=total, note="")
        yield lambda done, note: progress.update(task, completed=done, note=note)
