"""The session cookie: find it in a request, and write the headers that set and delete it.

Limits and rules are from RFC 6265bis and from experiments with Chromium.
"""

from __future__ import annotations

import re
import time
from typing import Final, Literal

import msgspec

from sojourn.errors import ConfigurationError

MAX_AGE_LIMIT: Final = 34_560_000
"""Seconds; browsers reduce a longer age to 400 days (RFC 6265bis 5.5)."""

MAX_PAIR_BYTES: Final = 4096
"""Name and value together; browsers drop a larger cookie (RFC 6265bis 5.6, ASVS 3.3.5)."""

MAX_ATTRIBUTE_BYTES: Final = 1024
"""A path; browsers ignore a longer one but keep the cookie (RFC 6265bis 5.6)."""

MAX_DOMAIN_BYTES: Final = 253
"""A host name without its final dot (RFC 1035 2.3.4)."""

MAX_NAME_BYTES: Final = 1024
"""A limit of sojourn, so that every accepted name leaves room for a ticket."""

# Of options: compiled when they are checked. A value is checked for a response.
_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110 5.6.2
_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]*")  # cookie-octet, RFC 6265bis 4.1.1
_PATH = r"/[!-:<-~]*"  # visible ASCII without ";"
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"  # RFC 1035 2.3.4, and "_" as seen in names
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)

# Browsers compare prefixes case-insensitively, so the rules also apply to "__host-x". The two
# prefixes with Http also require HttpOnly (layered cookies draft), which is always sent.
_SECURE_PREFIXES = ("__host-", "__secure-", "__http-")
_HOST_PREFIX = "__host-"  # also the beginning of __Host-Http-


class CookieReader:
    """Finds the values of one cookie in a Cookie header, in linear time (laws A8 and A19).

    Names are compared byte by byte. Nothing is decoded: ``%5f%5fHost-sid`` is another cookie, and
    so is the nameless ``=__Host-sid=x`` (B-27). Other parsers disagree on malformed input: some
    lose every cookie after an invalid name, some take the last of two equal names (security.md
    A.5).
    """

    __slots__ = ("_values", "name")

    def __init__(self, name: str) -> None:
        self.name: str = name
        # The leading ";" makes the search linear, and *+ never backtracks.
        self._values = re.compile(rb";[ \t]*+%b=([^;]*+)" % re.escape(name.encode())).findall

    def find(self, header: bytes) -> tuple[str, ...]:
        """Return the distinct values of the cookie, in the order of the header.

        More than one means that an attacker may have planted a cookie of this name; treat that as
        none.

        Double quotes are part of the value (RFC 6265bis 4.1.1). Values that sojourn writes have
        none.

        Args:
            header: the Cookie header; several of them (HTTP/2 splits it) joined with ``b"; "``.
        """
        find = self._values  # faster: `self._values()` looks up a method first
        values: list[bytes] = find(b";" + header)
        if not values:
            return ()
        if len(values) == 1:
            return (values[0].strip(b" \t").decode("latin-1"),)
        # Latin-1 maps each byte to one character: decoding never fails and keeps values distinct.
        return tuple(dict.fromkeys(value.strip(b" \t").decode("latin-1") for value in values))


class Cookie(msgspec.Struct, frozen=True):
    """The session cookie for one kind of transport. Created by ``CookieSettings``."""

    name: str
    secure: bool
    tail: bytes
    """The attributes after the age: ``; Path=/; Secure; HttpOnly; SameSite=Lax``."""

    def set(self, value: str, max_age: int | None, *, now: int | None = None) -> bytes:
        """Return the Set-Cookie header that sets the cookie.

        The age is sent as Max-Age, which browsers prefer (RFC 6265bis 5.5), and as Expires: Java's
        ``CookieManager`` and other old clients drop a cookie at once, or keep it permanently,
        without.

        Args:
            value: visible ASCII without quote, comma, semicolon or backslash.
            max_age: seconds, reduced to 400 days; None for a cookie that ends with the browser
                session.
            now: seconds since 1970 UTC, for Expires; None for the system's clock.

        Raises:
            ValueError: the value has other characters, or is so long that browsers drop the
                cookie. The message does not show the value (law A18).
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
        expires_at = (int(time.time()) if now is None else now) + seconds
        age = b"Max-Age=%d; Expires=%b" % (seconds, _http_date(expires_at))
        return b"%b=%b; %b%b" % (self.name.encode(), value.encode(), age, self.tail)

    def with_lower_case_attributes(self) -> Cookie:
        """Return the same cookie, with lower case wherever case has no meaning."""
        tail = b"; ".join(map(_lower_case_attribute, self.tail.split(b"; ")))
        return msgspec.structs.replace(self, tail=tail)

    def delete(self) -> bytes:
        """Return the Set-Cookie header that deletes the cookie.

        Name, path, domain and flags are those of ``set``; otherwise browsers keep it (B-44).
        """
        past = b"Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        return b"%b=; %b%b" % (self.name.encode(), past, self.tail)


class CookieSettings(msgspec.Struct, frozen=True):
    """The cookie's options. HttpOnly is not an option: it is always set.

    Attributes:
        name: the exact name; None for ``__Host-sid`` over https and ``sid`` over http, or
            ``__Secure-sid`` over https when a domain or a path is given.
        suffix: of the default names, such as ``-admin``; installations that may meet in one
            application have different ones.
        secure: ``"auto"`` sends Secure over https; True always, False never.
        same_site: ``"lax"``, ``"strict"`` or ``"none"``, in any case; always sent (ASVS 3.3.2).
        path: begins with a slash, visible ASCII.
        domain: share the cookie with all subdomains of this host; None for this host only.
        partitioned: one cookie for each top-level site (CHIPS).
        persistent: survive the end of the browser session; the caller passes the age to ``set``.

    Raises:
        ConfigurationError: browsers would reject the cookie or ignore one of its attributes.
    """

    name: str | None = None
    secure: bool | Literal["auto"] = "auto"
    same_site: str = "lax"
    path: str = "/"
    domain: str | None = None
    partitioned: bool = False
    persistent: bool = False
    suffix: str = ""

    def __post_init__(self) -> None:
        # Normalise first, so that the checks see the values that are sent.
        msgspec.structs.force_setattr(self, "same_site", _lower_case(self.same_site))
        if self.domain is not None:  # RFC 6265bis 5.6.3: case and a leading dot are ignored
            msgspec.structs.force_setattr(self, "domain", self.domain.removeprefix(".").lower())
        self._check_each()
        self._check_together()

    def over_https(self) -> Cookie:
        """Return the cookie for https and wss."""
        if self.secure is False:
            return self._resolve("sid", secure=False)
        shared = self.domain is not None or self.path != "/"
        return self._resolve("__Secure-sid" if shared else "__Host-sid", secure=True)

    def over_http(self) -> Cookie:
        """Return the cookie for http and ws requests that ``transport_security.classify`` accepts.

        With ``secure="auto"`` they come from the same machine. From there, browsers also accept
        Secure cookies and prefixes over http (tested with Chromium), so a cookie that requires
        Secure is sent with it. Other cookies are sent without, for curl and test clients.
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
        return Cookie(self.name or default_name + self.suffix, secure, tail.encode())

    def _secure_only(self) -> str | None:
        """Return the option for which browsers require Secure; None if there is none."""
        if self.name is not None and self.name.lower().startswith(_SECURE_PREFIXES):
            return f"name={self.name!r}"
        if self.same_site == "none":
            return "same_site='none'"
        if self.partitioned:
            return "partitioned=True"
        return None

    def _check_each(self) -> None:
        if self.name is not None and re.fullmatch(_NAME, self.name) is None:
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
        if re.fullmatch(_PATH, self.path) is None or len(self.path) > MAX_ATTRIBUTE_BYTES:
            raise ConfigurationError(
                f"a cookie path begins with '/' and has at most {MAX_ATTRIBUTE_BYTES} visible "
                f"ASCII characters without ';', found {self.path[:80]!r}; percent-encode others"
            )
        if self.domain is not None and (
            re.fullmatch(_DOMAIN, self.domain) is None or len(self.domain) > MAX_DOMAIN_BYTES
        ):
            raise ConfigurationError(
                f"a cookie domain is a host name such as 'example.com', without scheme, port and "
                f"path, found {self.domain[:80]!r}; write an international name in its xn-- form"
            )

    def _check_together(self) -> None:
        secure_only = self._secure_only()
        if secure_only is not None and self.secure is False:
            raise ConfigurationError(
                f"browsers accept a cookie with {secure_only} only if it is Secure, found "
                "secure=False; remove secure=False, or that option"
            )
        if self.name is not None and self.name.lower().startswith(_HOST_PREFIX):
            if self.domain is not None:
                raise ConfigurationError(
                    f"browsers accept the cookie {self.name} only without a domain, found "
                    f"domain={self.domain!r}; remove domain, or name it __Secure-sid"
                )
            if self.path != "/":
                raise ConfigurationError(
                    f"browsers accept the cookie {self.name} only with path='/', found "
                    f"path={self.path!r}; remove path, or name it __Secure-sid"
                )


def _lower_case_attribute(attribute: bytes) -> bytes:
    name, equals, value = attribute.partition(b"=")
    return name.lower() + equals + (value if name == b"Path" else value.lower())


def _http_date(seconds: int) -> bytes:
    """Return an instant as headers write it (RFC 9110 5.6.7), in any locale.

    Args:
        seconds: since 1970 UTC.
    """
    at = time.gmtime(seconds)
    return b"%b, %02d %b %04d %02d:%02d:%02d GMT" % (
        _WEEKDAYS[at.tm_wday].encode(),
        at.tm_mday,
        _MONTHS[at.tm_mon - 1].encode(),
        *(at.tm_year, at.tm_hour, at.tm_min, at.tm_sec),
    )


def _lower_case(value: object) -> object:
    """Return text in lower case; other values are rejected by a later check."""
    return value.lower() if isinstance(value, str) else value
