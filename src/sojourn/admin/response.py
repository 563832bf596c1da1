"""AdminResponse: a complete response, with the headers that protect a page."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

HTML: Final = "text/html; charset=utf-8"

#: No script, no frame, no image; styles of the application itself only.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)

#: ``same-origin`` instead of ``no-referrer``: with the latter, browsers send ``Origin: null`` with
#: forms (Fetch 3.2), and the check of the origin would refuse them.
SECURITY_HEADERS: Final = (
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-frame-options", "DENY"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-robots-tag", "noindex"),
)

_NO_STORE: Final = ("cache-control", "no-store")


@dataclass(frozen=True, slots=True)
class AdminResponse:
    """A response of a page.

    Attributes:
        status: of the response.
        body: complete.
        content_type: of the body; empty for none.
        headers: further headers; names in lower case.
    """

    status: HTTPStatus
    body: bytes = b""
    content_type: str = HTML
    headers: tuple[tuple[str, str], ...] = ()

    def complete_headers(self) -> list[tuple[str, str]]:
        """Return every header of the response: of the body, given ones, and of the protection.

        Raises:
            ValueError: a value has other characters than printable ASCII; a line break would start
                another header.
        """
        found = [*self.headers, *SECURITY_HEADERS, ("content-length", str(len(self.body)))]
        if self.content_type:
            found.append(("content-type", self.content_type))
        if all(name != "cache-control" for name, _ in found):
            found.append(_NO_STORE)
        for name, value in found:
            if not value.isascii() or not value.isprintable():
                raise ValueError(
                    f"the header {name} expects printable ASCII characters, found others; quote "
                    "them as %XX"
                )
        return found


def redirect(location: str, status: HTTPStatus = HTTPStatus.SEE_OTHER) -> AdminResponse:
    """Return a redirect, such as to the page that shows the result of a form (303).

    Args:
        location: quoted; relative to the page of the request, so that it is right behind any mount.
        status: of the response.
    """
    return AdminResponse(status, b"", "", (("location", location),))
