"""The redirect of a visitor to the login page of the host application."""

from __future__ import annotations

from urllib.parse import quote

from sojourn.admin.request import AdminRequest
from sojourn.admin.response import AdminResponse, redirect


def login_redirect(login_url: str, request: AdminRequest) -> AdminResponse:
    """Return a redirect to the login page, with the address to return to as ``next``.

    A form cannot be sent again by a redirect: its visitor returns to the first page.
    """
    separator = "&" if "?" in login_url else "?"
    here = request.full_path if request.method in ("GET", "HEAD") else request.first_page
    return redirect(f"{login_url}{separator}next={quote(here, safe='/')}")
