"""Stylesheet: the style of the pages, served under a name that changes with its content."""

from __future__ import annotations

import hashlib
from functools import cache
from http import HTTPStatus
from importlib.resources import files

from sojourn.admin.response import AdminResponse


class Stylesheet:
    """A file of CSS that browsers may keep for a year.

    Args:
        content: of the file.

    Attributes:
        name: contains a digest of the content.
    """

    def __init__(self, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()[:16]
        self.name: str = f"style-{digest}.css"
        self._content = content

    def serves(self, path: str) -> bool:
        """Return whether a path below the mount is that of the file."""
        return path == f"/{self.name}"

    def response(self) -> AdminResponse:
        """Return the file."""
        return AdminResponse(
            HTTPStatus.OK,
            self._content,
            "text/css; charset=utf-8",
            (("cache-control", "public, max-age=31536000, immutable"),),
        )


@cache
def load_stylesheet() -> Stylesheet:
    """Return the style of the admin application and of the device page."""
    return Stylesheet(files("sojourn.admin").joinpath("static", "admin.css").read_bytes())
