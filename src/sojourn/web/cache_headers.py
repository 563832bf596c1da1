"""Cache-Control, Vary and Set-Cookie of responses whose handler accessed the session (law A13)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]
TextHeaders: TypeAlias = list[tuple[str, str]]

PRIVATE: Final = (b"cache-control", b"private")
"""The Cache-Control header of a response that only the browser may store."""
PRIVATE_NO_STORE: Final = (b"cache-control", b"private, no-store")
"""The Cache-Control header of a response with a ticket or data of a logged-in user."""
VARY_COOKIE: Final = (b"vary", b"Cookie")
"""The Vary header where requests carry the ticket in a cookie."""

_CACHING: Final = frozenset({b"vary", b"cache-control"})
_CACHING_LENGTHS: Final = frozenset(map(len, _CACHING))
_CACHING_NAME_ENDINGS: Final = ("vary", "control")  # of the names, at most seven letters
_QUOTED: Final = re.compile(rb'"[^"]*"?')
# Directives that let shared caches store a response; must-understand overrides no-store (RFC 9111
# 5.2.2.3).
_SHARED_DIRECTIVES: Final = (b"public", b"s-maxage", b"must-understand")
# Headers that shared caches may obey instead of Cache-Control (RFC 9213 and its predecessors).
_TARGETED: Final = (b"-cache-control", b"surrogate-control")
# What `select_caching` selects besides, and the last seven letters of the names.
_SELECTED: Final = _CACHING | {b"retry-after"}
_ENDINGS: Final = frozenset({"control", "y-after"})


def apply(
    headers: RawHeaders,
    *,
    accessed: bool,
    private: bool,
    set_cookie: bytes | None,
    overruled: Callable[[str], object] | None = None,
    ticket_name: bytes = b"set-cookie",
    vary: tuple[bytes, bytes] = VARY_COOKIE,
) -> RawHeaders:
    """Return the headers to send; ``headers`` itself if nothing is added.

    Set-Cookie does not prevent a cache from storing a response (RFC 9111 7.3). Without these
    headers, a cache could send the session of one visitor to another (B-1 to B-8).

    Args:
        headers: of the application, names in any case; not modified.
        accessed: the handler accessed the session.
        private: the response may contain data of a logged-in user.
        set_cookie: the Set-Cookie header of the session; None for none.
        overruled: called with each header of the application (as ``name: value``) that is replaced
            because it would let a shared cache store the Set-Cookie.
        ticket_name: the header that carries ``set_cookie``, if it is another one.
        vary: the Vary header of a response whose handler accessed the session.
    """
    if set_cookie is None:
        return add_private_headers(headers, private, vary) if accessed else headers
    ticket = (ticket_name, set_cookie)
    return _combine(headers, private=private, ticket=ticket, overruled=overruled, vary=vary)


def add_private_headers(
    headers: Iterable[tuple[bytes, bytes]],
    private: bool,  # noqa: FBT001 - positional: called for most responses
    vary: tuple[bytes, bytes] = VARY_COOKIE,
) -> RawHeaders:
    """Return the headers of a response whose handler accessed the session, without Set-Cookie.

    See ``apply``.
    """
    sent = list(headers)
    for name, _ in sent:
        if len(name) in _CACHING_LENGTHS and name.lower() in _CACHING:
            return _combine(sent, private=private, ticket=None, overruled=None, vary=vary)
    # The usual case: the application sets no caching headers.
    sent += (vary, PRIVATE_NO_STORE if private else PRIVATE)
    return sent


def _combine(
    headers: RawHeaders,
    *,
    private: bool,
    ticket: tuple[bytes, bytes] | None,
    overruled: Callable[[str], object] | None,
    vary: tuple[bytes, bytes],
) -> RawHeaders:
    """Combine the caching headers of the application with those of the session."""
    varies: list[bytes] = []
    control: list[bytes] = []
    sent: RawHeaders = []
    for header in headers:
        name = header[0].lower()
        if name == b"vary":
            varies.append(header[1])
        elif name == b"cache-control":
            control.append(header[1])
        elif ticket is not None and name.endswith(_TARGETED):
            _report(overruled, header)
        else:
            sent.append(header)
    sent.append((b"vary", _add_names(b", ".join(varies), vary[1])) if varies else vary)
    combined = b", ".join(control)
    if not combined:
        sent.append(PRIVATE if ticket is None and not private else PRIVATE_NO_STORE)
    elif ticket is None:
        sent.append((b"cache-control", combined))
    elif (unshared := _unshared(combined)) is not None:
        sent.append((b"cache-control", unshared))
    else:
        _report(overruled, (b"cache-control", combined))
        sent.append(PRIVATE_NO_STORE)
    if ticket is not None:
        sent.append(ticket)
    return sent


def has_caching(headers: Iterable[tuple[str, str]]) -> bool:
    """Return whether there may be headers that ``apply`` replaces; names in any case."""
    return any(name[-7:].lower() in _CACHING_NAME_ENDINGS for name, _ in headers)


def select_caching(headers: Iterable[tuple[str, str]]) -> RawHeaders:
    """Return the headers that a session may replace, for frameworks whose headers are text.

    They are those of ``apply``, and Retry-After, which belongs to a failing store.

    Args:
        headers: of the application, names in any case.
    """
    found: RawHeaders = []
    for name, value in headers:
        if name[-7:].lower() in _ENDINGS or name.lower() == "vary":
            raw = name.encode("latin-1")
            if raw.lower() in _SELECTED or raw.lower().endswith(_TARGETED):
                found.append((raw, value.encode("latin-1", "replace")))
    return found


def replace_caching(
    selected: RawHeaders,
    sent: RawHeaders,
    *,
    remove: Callable[[str], object],
    add: Callable[[str, str], object],
) -> None:
    """Replace the selected headers of a framework's response by those that are sent.

    Args:
        selected: by ``select_caching``.
        sent: the same list if nothing changes.
        remove: removes all headers of a name.
        add: adds a header.
    """
    if sent is selected:
        return
    for name in {name for name, _ in selected}:
        remove(name.decode("latin-1"))
    for raw_name, value in sent:
        add(raw_name.decode("latin-1"), value.decode("latin-1"))


def _add_names(vary: bytes, names: bytes) -> bytes:
    """Return the application's Vary with names added; ``*`` includes them (B-5).

    Args:
        vary: of the application.
        names: joined with ", ".
    """
    present = {name.strip() for name in vary.lower().split(b",")}
    if b"*" in present:
        return vary
    missing = [name for name in names.split(b", ") if name.lower() not in present]
    return b", ".join((vary, *missing) if vary else missing)


def _unshared(control: bytes) -> bytes | None:
    """Return the application's Cache-Control for a response with Set-Cookie.

    None if it lets a shared cache store the response (B-6, B-8). If only the browser may store it,
    no-store is added, because a ticket must not be cached on a disk (security.md A.6).
    """
    unquoted = _QUOTED.sub(
        b"", control.lower()
    )  # private="a-header" lets shared caches store the rest
    directives = {directive.strip() for directive in unquoted.split(b",")}
    if any(directive.startswith(_SHARED_DIRECTIVES) for directive in directives):
        return None
    if b"no-store" in directives:
        return control
    return control + b", no-store" if b"private" in directives else None


def _report(overruled: Callable[[str], object] | None, header: tuple[bytes, bytes]) -> None:
    if overruled is not None:
        overruled(b": ".join(header).decode("latin-1"))
