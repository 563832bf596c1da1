"""The session cookie: finding it in a request, and writing the header that sets or deletes it.

What lives here: ``CookieReader``, ``CookieSettings`` (what the developer asked for, refused at
construction when a browser would refuse it) and ``Cookie`` (those settings resolved for one kind
of transport). What must not: what the value means (``_crypto/tickets.py``), which transport a request
came by (``transport.py``), and anything that knows a framework.

We parse and write ourselves because the parsers in use disagree on malformed input: one loses
every cookie after a bad name, others take the last of two equal names (security.md A.5).
Limits and rules: RFC 6265bis, and what Chromium was seen to do. Read next: ``headers.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from sojourn.errors import ConfigurationError

MAX_AGE_LIMIT: Final = 34_560_000
"""Seconds; browsers cut longer lives down to 400 days (RFC 6265bis 5.5)."""

MAX_PAIR_BYTES: Final = 4096
"""Name and value together; browsers drop a larger cookie (RFC 6265bis 5.6, ASVS 3.3.5)."""

MAX_ATTRIBUTE_BYTES: Final = 1024
"""A path; browsers ignore a longer one but keep the cookie (RFC 6265bis 5.6)."""

MAX_DOMAIN_BYTES: Final = 253
"""A host name without its final dot (RFC 1035 2.3.4)."""

MAX_NAME_BYTES: Final = 1024
"""Ours, so that any name accepted at the start leaves room for any ticket."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 5.6.2
_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]*")  # cookie-octet, RFC 6265bis 4.1.1
_PATH = re.compile(r"/[!-:<-~]*")  # visible ASCII without ";"
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"  # RFC 1035 2.3.4, and "_" as seen in names
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")

# Browsers compare prefixes without regard to case, so "__host-x" is bound by the rules as well.
# The two with Http demand HttpOnly besides (layered cookies draft), which we always send.
_SECURE_PREFIXES = ("__host-", "__secure-", "__http-")
_HOST_PREFIX = "__host-"  # also the beginning of __Host-Http-


class CookieReader:
    """Find the values of one cookie in a Cookie header, in linear time (laws A8 and A19).

    A cookie is ours when its name is ours byte for byte. Nothing is decoded: ``%5f%5fHost-sid``
    is another cookie, and the nameless ``=__Host-sid=x`` is none of ours (B-27).
    """

    __slots__ = ("_values", "name")

    def __init__(self, name: str) -> None:
        self.name: str = name
        # The leading ";" lets the search jump from cookie to cookie, and *+ never backtracks.
        self._values = re.compile(rb";[ \t]*+%b=([^;]*+)" % re.escape(name.encode())).findall

    def find(self, header: bytes) -> tuple[str, ...]:
        """Return the distinct values of our cookie, in the order the browser sent them.

        More than one means that somebody else planted a cookie under our name; treat that as none.

        Double quotes around a value stay: RFC 6265bis 4.1.1 makes them part of it, and as we never
        write any, a value in quotes is not one that we sent.

        Args:
            header: the Cookie header; several of them (HTTP/2 splits it) joined with ``b"; "``.
        """
        find = self._values  # fetched first: `self._values()` looks for a method
        values: list[bytes] = find(b";" + header)
        if not values:
            return ()
        if len(values) == 1:
            return (values[0].strip(b" \t").decode("latin-1"),)
        # Latin-1 maps each byte to one character: it never fails and keeps different values apart.
        return tuple(dict.fromkeys(value.strip(b" \t").decode("latin-1") for value in values))


@dataclass(frozen=True, slots=True)
class Cookie:
    """The session cookie as it is sent over one kind of transport. Made by ``CookieSettings``."""

    name: str
    secure: bool
    tail: bytes
    """Everything after the value and its age: ``; Path=/; Secure; HttpOnly; SameSite=Lax``."""

    def set(self, value: str, max_age: int | None) -> bytes:
        """Write the value of the Set-Cookie header that hands out a ticket.

        Args:
            value: visible ASCII without quote, comma, semicolon or backslash.
            max_age: seconds from now, cut down to 400 days; None for a cookie that ends with the
                browser session.

        Raises:
            ValueError: the value has other characters, or is so long that a browser would drop
                the cookie. The message does not show the value (law A18).
        """
        if _VALUE.fullmatch(value) is None:
            raise ValueError(
                f"the value of cookie {self.name} may hold only visible ASCII without quotes, "
                "commas, semicolons and backslashes; encode it first, for example as base64url"
            )
        size = len(self.name) + len(value)
        if size > MAX_PAIR_BYTES:
            raise ValueError(
                f"cookie {self.name} would take {size} bytes with its value; browsers drop a "
                f"cookie of more than {MAX_PAIR_BYTES}; use a shorter value"
            )
        if max_age is None:
            return b"%b=%b%b" % (self.name.encode(), value.encode(), self.tail)
        seconds = min(max(max_age, 0), MAX_AGE_LIMIT)
        return b"%b=%b; Max-Age=%d%b" % (self.name.encode(), value.encode(), seconds, self.tail)

    def delete(self) -> bytes:
        """Write the value of the Set-Cookie header that makes a browser forget the cookie.

        Name, path, domain and flags are those it was set with, or the browser keeps it (B-44).
        """
        past = b"Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        return b"%b=; %b%b" % (self.name.encode(), past, self.tail)


@dataclass(frozen=True, slots=True)
class CookieSettings:
    """What the developer asked of the cookie. HttpOnly is no setting: the cookie always has it.

    Attributes:
        name: the exact name; None for ``__Host-sid`` over https and ``sid`` over http, or
            ``__Secure-sid`` over https when a domain or a path is given.
        secure: ``"auto"`` sends Secure over https; True always, False never.
        same_site: ``"lax"``, ``"strict"`` or ``"none"``, in any case; always sent (ASVS 3.3.2).
        path: begins with a slash, visible ASCII.
        domain: share the cookie with all hosts below this one; None for this host alone.
        partitioned: one jar for each top-level site (CHIPS).
        persistent: survive the end of the browser session; the caller passes the age to ``set``.

    Raises:
        ConfigurationError: a browser would reject the cookie or ignore one of its attributes.
    """

    name: str | None = None
    secure: bool | Literal["auto"] = "auto"
    same_site: str = "lax"
    path: str = "/"
    domain: str | None = None
    partitioned: bool = False
    persistent: bool = False

    def __post_init__(self) -> None:
        # Normalise first, so that equal settings are equal and the checks see what is sent.
        object.__setattr__(self, "same_site", _lowered(self.same_site))
        if self.domain is not None:  # RFC 6265bis 5.6.3: case and a leading dot mean nothing
            object.__setattr__(self, "domain", self.domain.removeprefix(".").lower())
        self._check_each()
        self._check_together()

    def over_https(self) -> Cookie:
        """Return the cookie for https and wss."""
        if self.secure is False:
            return self._resolve("sid", secure=False)
        shared = self.domain is not None or self.path != "/"
        return self._resolve("__Secure-sid" if shared else "__Host-sid", secure=True)

    def over_http(self) -> Cookie:
        """Return the cookie for those plain http requests that ``transport.classify`` let through.

        With ``secure="auto"`` they come from this machine. Browsers take Secure cookies and those
        with a prefix from there over http as well (tried with Chromium), so a cookie that they
        take only as Secure is sent as such. Others are not, for curl and test clients.
        """
        if self.secure is True:
            return self.over_https()
        secure = self.secure == "auto" and self._secure_only() is not None
        return self._resolve("sid", secure=secure)

    def _resolve(self, default_name: str, *, secure: bool) -> Cookie:
        attributes = [f"Path={self.path}"]
        if self.domain is not None:
            attributes.append(f"Domain={self.domain}")
        if secure:
            attributes.append("Secure")
        attributes.append("HttpOnly")  # ASVS 3.3.4
        attributes.append(f"SameSite={self.same_site.capitalize()}")
        if self.partitioned:
            attributes.append("Partitioned")
        tail = "".join(f"; {attribute}" for attribute in attributes)
        return Cookie(self.name or default_name, secure, tail.encode())

    def _secure_only(self) -> str | None:
        """Return the setting for which browsers take this cookie only as Secure; None if none."""
        if self.name is not None and self.name.lower().startswith(_SECURE_PREFIXES):
            return f"name={self.name!r}"
        if self.same_site == "none":
            return "same_site='none'"
        if self.partitioned:
            return "partitioned=True"
        return None

    def _check_each(self) -> None:
        if self.name is not None and _TOKEN.fullmatch(self.name) is None:
            raise ConfigurationError(
                f"a cookie name is one or more of letters, digits and !#$%&'*+-.^_`|~, found "
                f"{self.name!r}; choose a name such as 'sid'"
            )
        if self.name is not None and len(self.name) > MAX_NAME_BYTES:
            raise ConfigurationError(
                f"a cookie name has at most {MAX_NAME_BYTES} bytes, found {len(self.name)}; choose "
                "a shorter one"
            )
        if not (isinstance(self.secure, bool) or self.secure == "auto"):
            raise ConfigurationError(f"secure is True, False or 'auto', found {self.secure!r}")
        if self.same_site not in ("lax", "strict", "none"):
            raise ConfigurationError(
                f"same_site is 'lax', 'strict' or 'none' (a string), found {self.same_site!r}"
            )
        if _PATH.fullmatch(self.path) is None or len(self.path) > MAX_ATTRIBUTE_BYTES:
            raise ConfigurationError(
                f"a cookie path begins with '/' and has at most {MAX_ATTRIBUTE_BYTES} visible "
                f"ASCII characters without ';', found {self.path[:80]!r}; percent-encode others"
            )
        if self.domain is not None and (
            _DOMAIN.fullmatch(self.domain) is None or len(self.domain) > MAX_DOMAIN_BYTES
        ):
            raise ConfigurationError(
                f"a cookie domain is a host name such as 'example.com', without scheme, port and "
                f"path, found {self.domain[:80]!r}; write an international name in its xn-- form"
            )

    def _check_together(self) -> None:
        secure_only = self._secure_only()
        if secure_only is not None and self.secure is False:
            raise ConfigurationError(
                f"browsers take a cookie with {secure_only} only when it is Secure, found "
                "secure=False; remove secure=False, or that setting"
            )
        if self.name is not None and self.name.lower().startswith(_HOST_PREFIX):
            if self.domain is not None:
                raise ConfigurationError(
                    f"browsers take the cookie {self.name} only without a domain, found "
                    f"domain={self.domain!r}; remove domain, or name it __Secure-sid"
                )
            if self.path != "/":
                raise ConfigurationError(
                    f"browsers take the cookie {self.name} only with path='/', found "
                    f"path={self.path!r}; remove path, or name it __Secure-sid"
                )


def _lowered(value: object) -> object:
    """Lower text; leave what is no text, such as None for "none", to the check that follows."""
    return value.lower() if isinstance(value, str) else value
