"""Headers and cookies of sojourn in a response of Django."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from collections.abc import Container
from http.cookies import Morsel
from typing import Any, Final

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import http_date

from sojourn._core.clock import wall_clock
from sojourn.frameworks.django.expiry import EXPIRY
from sojourn.session import Session
from sojourn.web.cache_headers import RawHeaders, TextHeaders
from sojourn.web.error_response import RETRY_HEADERS
from sojourn.web.lifecycle import decode_headers

#: Ends of the names of headers that concern caches.
_CACHING: Final = ("cache-control", "surrogate-control", "vary")

_NAMES: Final = {b"vary": "Vary", b"cache-control": "Cache-Control"}


class SessionMorsel(Morsel[str]):
    """The session cookie in ``response.cookies``, which may be Partitioned.

    Morsels of Python before 3.14 cannot.
    """

    partitioned: bool = False

    def output(self, attrs: Container[str] | None = None, header: str = "Set-Cookie:") -> str:
        """Return the header with its name; without a name also without the space before it."""
        return super().output(attrs, header).lstrip()

    def OutputString(self, attrs: Container[str] | None = None) -> str:  # noqa: N802 - the base's name
        """Return the Set-Cookie header."""
        text = super().OutputString(attrs)
        return f"{text}; Partitioned" if self.partitioned else text


def raw_headers(response: HttpResponseBase) -> RawHeaders:
    """Return the headers of a response that concern caches, which are all that the lifecycle reads.

    The others would cost a microsecond each.
    """
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in response.items()
        if name.lower().endswith(_CACHING)
    ]


def update_response(
    response: HttpResponseBase,
    before: RawHeaders,
    after: RawHeaders,
    session: Session[Any] | None,
) -> None:
    """Give a response the headers that the lifecycle returned.

    Args:
        response: to be sent.
        before: what was given to the lifecycle.
        after: what it returned.
        session: of the request; None if it cannot have set the cookie.
    """
    kept = {name for name, _ in after}
    for name, _ in before:
        if name not in kept:
            del response.headers[name.decode()]
    known = set(before)
    for header in after:
        if header in known:
            continue
        name, value = header[0].lower(), header[1].decode("latin-1")
        if name == b"set-cookie":
            morsel = _parse(value)
            if session is not None and morsel.value:
                _limit(morsel, session)
            _add_cookie(response, morsel)
        else:
            response.headers[_NAMES.get(name) or name.decode().title()] = value


def error_page(status: int, page: tuple[RawHeaders, bytes]) -> HttpResponse:
    """Return a built-in response to an error."""
    headers, body = page
    response = HttpResponse(body, status=status)
    add_headers(response, decode_headers(headers))
    return response


def add_headers(response: HttpResponseBase, headers: TextHeaders) -> None:
    """Set the headers of a response; Set-Cookie may occur several times."""
    for name, value in headers:
        if name.lower() == "set-cookie":
            _add_cookie(response, _parse(value))
        else:
            response.headers[name.title()] = value


def answer_unavailable(response: HttpResponseBase) -> None:
    """Make an error page of the application 503 with Retry-After, because the store failed."""
    response.status_code = 503
    add_headers(response, decode_headers(list(RETRY_HEADERS)))


def _add_cookie(response: HttpResponseBase, morsel: SessionMorsel) -> None:
    # A cookie's own `__setitem__` makes another Morsel of the value.
    dict.__setitem__(response.cookies, morsel.key, morsel)


def _parse(header: str) -> SessionMorsel:
    """Return the cookie of a Set-Cookie header of sojourn, or of an application of ``on_error``."""
    pair, *attributes = (part.strip() for part in header.split(";"))
    name, _, value = pair.partition("=")
    morsel = SessionMorsel()
    morsel.set(name, value, value)
    for attribute in attributes:
        key, equals, text = attribute.partition("=")
        if key.lower() == "partitioned":
            morsel.partitioned = True
        elif morsel.isReservedKey(key):
            morsel[key.lower()] = int(text) if text.isdigit() else text if equals else True
    return morsel


def _limit(morsel: SessionMorsel, session: Session[Any]) -> None:
    """Give the cookie the age that ``set_expiry`` was given, if it was called."""
    expiry = None if session.new else session.get(EXPIRY)
    if expiry is None:
        return
    if expiry == 0:
        morsel["max-age"] = morsel["expires"] = ""
        return
    age: int = session.get_expiry_age()  # type: ignore[attr-defined] # it is a RequestSession
    morsel["max-age"] = max(age, 0)
    morsel["expires"] = http_date(wall_clock() / 1000 + max(age, 0))
