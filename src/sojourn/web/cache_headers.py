"""What a response must say to caches once a session had a part in it (law A13).

What lives here: ``Vary``, ``Cache-Control`` and the place of ``Set-Cookie``, one rule for the
headers of ASGI and of WSGI. What must not: whether the session was looked at or has a cookie to
send; the adapters know. A Set-Cookie does not keep a cache from storing the response (RFC 9111
7.3), so whoever forgets this hands one visitor's session to the next (B-1 to B-8).
Read next: ``cookies.py``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]
TextHeaders: TypeAlias = list[tuple[str, str]]

_PRIVATE: Final = (b"cache-control", b"private")
_PRIVATE_NO_STORE: Final = (b"cache-control", b"private, no-store")
_VARY_COOKIE: Final = (b"vary", b"Cookie")

# The same three as WSGI wants them.
_PRIVATE_TEXT: Final = ("cache-control", "private")
_PRIVATE_NO_STORE_TEXT: Final = ("cache-control", "private, no-store")
_VARY_COOKIE_TEXT: Final = ("vary", "Cookie")

_CACHING: Final = frozenset({b"vary", b"cache-control"})
_CACHING_LENGTHS: Final = frozenset(map(len, _CACHING))
_CACHING_TEXT: Final = frozenset({"vary", "cache-control"})
_COOKIE_OR_ANYTHING: Final = frozenset({b"cookie", b"*"})
_QUOTED: Final = re.compile(rb'"[^"]*"?')
# What lets shared caches keep a response; must-understand switches no-store off (RFC 9111 5.2.2.3).
_SHARED: Final = (b"public", b"s-maxage", b"must-understand")
# Headers that shared caches may obey instead of Cache-Control (RFC 9213 and its predecessors).
_TARGETED: Final = (b"-cache-control", b"surrogate-control")


def apply(
    headers: RawHeaders,
    *,
    looked: bool,
    private: bool,
    set_cookie: bytes | None,
    overruled: Callable[[str], object] | None = None,
) -> RawHeaders:
    """Return the headers to send; the very same list if the session had no part in them.

    Args:
        headers: what the application wants to send, names in any case; this list is not changed.
        looked: the handler looked at the session, in whatever way.
        private: the response may show what belongs to a logged-in user.
        set_cookie: the value of our Set-Cookie, setting or deleting; None for none.
        overruled: called with each header of the application (as ``name: value``) that would have
            let a shared cache keep our Set-Cookie and is therefore replaced. Worth a warning.
    """
    if set_cookie is None:
        return looked_at(headers, private) if looked else headers
    return _combine(headers, private=private, set_cookie=set_cookie, overruled=overruled)


def looked_at(
    headers: Iterable[tuple[bytes, bytes]],
    private: bool,  # noqa: FBT001 - by position, as most answers come this way
) -> RawHeaders:
    """Return what to send where the handler looked at a session that keeps its cookie.

    This is what most answers come to; see ``apply``.
    """
    sent = list(headers)
    for name, _ in sent:
        if len(name) in _CACHING_LENGTHS and name.lower() in _CACHING:
            return _combine(sent, private=private, set_cookie=None, overruled=None)
    # Most say nothing of caching themselves.
    sent += (_VARY_COOKIE, _PRIVATE_NO_STORE if private else _PRIVATE)
    return sent


def _combine(
    headers: RawHeaders,
    *,
    private: bool,
    set_cookie: bytes | None,
    overruled: Callable[[str], object] | None,
) -> RawHeaders:
    """Bring together what the application says to caches and what we must say."""
    vary: list[bytes] = []
    control: list[bytes] = []
    sent: RawHeaders = []
    for header in headers:
        name = header[0].lower()
        if name == b"vary":
            vary.append(header[1])
        elif name == b"cache-control":
            control.append(header[1])
        elif set_cookie is not None and name.endswith(_TARGETED):
            _report(overruled, header)
        else:
            sent.append(header)
    sent.append((b"vary", _varying(b", ".join(vary))) if vary else _VARY_COOKIE)
    said = b", ".join(control)
    if not said:
        sent.append(_PRIVATE if set_cookie is None and not private else _PRIVATE_NO_STORE)
    elif set_cookie is None:
        sent.append((b"cache-control", said))
    elif (unshared := _unshared(said)) is not None:
        sent.append((b"cache-control", unshared))
    else:
        _report(overruled, (b"cache-control", said))
        sent.append(_PRIVATE_NO_STORE)
    if set_cookie is not None:
        sent.append((b"set-cookie", set_cookie))
    return sent


def apply_text(
    headers: TextHeaders,
    *,
    looked: bool,
    private: bool,
    set_cookie: bytes | None,
    overruled: Callable[[str], object] | None = None,
) -> TextHeaders:
    """Do the same for the headers of WSGI, which are bytes spelled as text (PEP 3333)."""
    if set_cookie is None:
        if not looked:
            return headers
        for name, _ in headers:
            if name.lower() in _CACHING_TEXT:
                break
        else:
            own = _PRIVATE_NO_STORE_TEXT if private else _PRIVATE_TEXT
            return [*headers, _VARY_COOKIE_TEXT, own]
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    sent = apply(raw, looked=looked, private=private, set_cookie=set_cookie, overruled=overruled)
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent]


def _varying(said: bytes) -> bytes:
    """Return the application's Vary with Cookie in it; ``*`` says more and stays (B-5)."""
    names = {name.strip() for name in said.lower().split(b",")}
    if not names.isdisjoint(_COOKIE_OR_ANYTHING):
        return said
    return said + b", Cookie" if said else b"Cookie"


def _unshared(said: bytes) -> bytes | None:
    """Return the application's Cache-Control as it may stand beside Set-Cookie.

    None if it lets a shared cache keep the response (B-6, B-8). If the browser alone may keep it,
    no-store is added: a ticket has no business in a cache on a disk (security.md A.6).
    """
    unquoted = _QUOTED.sub(b"", said.lower())  # private="a-header" leaves the rest to everybody
    directives = {directive.strip() for directive in unquoted.split(b",")}
    if any(directive.startswith(_SHARED) for directive in directives):
        return None
    if b"no-store" in directives:
        return said
    return said + b", no-store" if b"private" in directives else None


def _report(overruled: Callable[[str], object] | None, header: tuple[bytes, bytes]) -> None:
    if overruled is not None:
        overruled(b": ".join(header).decode("latin-1"))
