"""Sessions as JSON files in a folder, with ``CallbackStore(format="json")``.

    SOJOURN_SECRET=$(python -c "import secrets; print(secrets.token_urlsafe(32))") \
        uvicorn examples.json_files:app

Each file holds the state and the metadata of one session, for any program to read. Made for one
process: two functions have no compare-and-set (see ``docs/stores.md``).
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import sojourn

folder = Path(os.environ.get("SESSION_FOLDER", "session-files"))
folder.mkdir(mode=0o700, exist_ok=True)


def read(session_id: str) -> str | None:
    """Return the text last written, or None."""
    try:
        return (folder / f"{session_id}.json").read_text("utf-8")
    except FileNotFoundError:
        return None


def write(session_id: str, value: dict[str, Any] | None, seconds: int) -> None:
    """Store a value for a number of seconds; None deletes it."""
    file = folder / f"{session_id}.json"
    if value is None:
        file.unlink(missing_ok=True)
        return
    new = file.with_suffix(".new")
    new.write_text(json.dumps(value), "utf-8")
    keep_until = time.time() + seconds
    os.utime(new, (keep_until, keep_until))
    new.replace(file)  # a reader never meets half a file


def remove_expired() -> None:
    """Remove the files whose time is over; run it once in a while."""
    for file in folder.glob("*.json"):
        if file.stat().st_mtime < time.time():
            file.unlink(missing_ok=True)


def count(request: Request) -> PlainTextResponse:
    """Count the visits of a visitor."""
    visits = request.session.increment("visits")
    return PlainTextResponse(f"visit {visits}\n")


remove_expired()
app = Starlette(routes=[Route("/", count)])
sojourn.install(app, store=sojourn.CallbackStore(read=read, write=write, format="json"))
