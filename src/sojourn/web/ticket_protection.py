"""Keeps a ticket out of caches after the application has changed the headers of its response."""

from __future__ import annotations

from collections.abc import Iterable

from sojourn.web.cache_headers import RawHeaders, apply
from sojourn.web.installation import WebInstallation
from sojourn.web.lifecycle import warn_overruled


def find_added(web: WebInstallation, headers: RawHeaders) -> RawHeaders:
    """Return the headers behind Cache-Control: the ticket, other cookies, Clear-Site-Data.

    Args:
        web: the installation.
        headers: as its middleware sends them.

    Returns:
        Nothing if there is no ticket among them.
    """
    names = web.added_headers
    count = 0
    while count < len(headers) and headers[-1 - count][0] in names:
        count += 1
    if 0 < count < len(headers) and headers[-1 - count][0] == b"cache-control":
        return headers[-count:]
    return []


def combine_added(
    web: WebInstallation, headers: Iterable[tuple[bytes, bytes]], added: RawHeaders
) -> RawHeaders:
    """Return headers that the application has changed, with the ticket as it was added.

    No cache may store it (law A13).

    Args:
        web: the installation.
        headers: as the application has changed them.
        added: by ``find_added``; not empty.
    """
    own = [header for header in headers if header not in added]
    name, value = added[0]
    own = apply(
        own,
        accessed=True,
        private=True,
        set_cookie=value,
        overruled=warn_overruled,
        ticket_name=name,
        vary=web.vary,
    )
    return [*own, *added[1:]]


def protect_ticket(web: WebInstallation, selected: RawHeaders, added: RawHeaders) -> RawHeaders:
    """Return the caching headers of a response with a ticket, after the application's changes.

    Args:
        web: the installation.
        selected: by ``select_caching``, as the application has changed them.
        added: by ``find_added``; not empty.

    Returns:
        What replaces ``selected``: without the ticket, which the response has already.
    """
    return [header for header in combine_added(web, selected, added) if header not in added]
