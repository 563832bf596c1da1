"""Clear-Site-Data: the header that makes browsers delete data at logout (ASVS 14.3.1).

Off by default: "cookies" deletes those of all subdomains of the registrable domain, and "storage"
the data of other applications of the origin. The session cookie is deleted in any case.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sojourn.errors import ConfigurationError
from sojourn.web.transport_security import TransportSecurity

_EVERYTHING: Final = "*"
_COOKIES: Final = "cookies"

#: W3C Clear Site Data 3.1: case-sensitive, and quoted in the header.
DIRECTIVES: Final = ("cache", _COOKIES, "storage", "executionContexts", _EVERYTHING)


class ClearSiteData:
    """The header of an installation.

    Args:
        directives: of ``DIRECTIVES``; empty for no header.

    Raises:
        ConfigurationError: browsers would ignore one of them.
    """

    __slots__ = ("_with_cookies", "_without_cookies")

    def __init__(self, directives: Collection[str] = ()) -> None:
        wanted = [directives] if isinstance(directives, str) else list(directives)
        for directive in wanted:
            if directive not in DIRECTIVES:
                raise ConfigurationError(
                    f"clear_site_data expects some of {', '.join(map(repr, DIRECTIVES))}, without "
                    f"quotes inside, found {directive!r}"
                )
        everything = _EVERYTHING in wanted
        self._with_cookies = _quote(wanted)
        self._without_cookies = _quote(
            [
                each
                for each in (DIRECTIVES if everything else wanted)
                if each not in (_COOKIES, _EVERYTHING)
            ]
        )

    def header(self, transport: TransportSecurity, *, new_cookie: bool = False) -> bytes | None:
        """Return the header for a response that ends a session; None for no header.

        Browsers ignore it without https (W3C Clear Site Data 4.1).

        Args:
            transport: of the request.
            new_cookie: the response also sets the cookie of a new session, as for a flash message
                after logout; the header must not delete that cookie.
        """
        if transport is not TransportSecurity.SECURE:
            return None
        return self._without_cookies if new_cookie else self._with_cookies


def _quote(directives: Collection[str]) -> bytes | None:
    """Return the header: quoted strings, each once, in the given order."""
    return ", ".join(f'"{each}"' for each in dict.fromkeys(directives)).encode() or None
