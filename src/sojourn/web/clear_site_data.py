"""Clear-Site-Data: what a browser is told to throw away at logout (ASVS 14.3.1).

What lives here: the option ``clear_site_data``, checked once, and the header's value. What must
not: when a session ends (``_core/engine.py``) and our own cookie, which is deleted by Set-Cookie
whatever is asked for here (``cookies.py``).

Off by default, because a browser does it for more than us: "cookies" throws away those of all
subdomains of the registrable domain, and "storage" what other applications of this origin keep.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sojourn.errors import ConfigurationError
from sojourn.web.transport import Transport

_EVERYTHING: Final = "*"
_COOKIES: Final = "cookies"

#: W3C Clear Site Data 3.1: case-sensitive, and quoted when they are sent.
DIRECTIVES: Final = ("cache", _COOKIES, "storage", "executionContexts", _EVERYTHING)


class ClearSiteData:
    """The header of an installation.

    Args:
        directives: what to throw away, of ``DIRECTIVES``; empty for nothing.

    Raises:
        ConfigurationError: a browser would ignore one of them.
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

    def header(self, transport: Transport, *, new_cookie: bool = False) -> bytes | None:
        """Return the value for a response that ends a session, None for no header.

        Browsers obey it over https alone (W3C Clear Site Data 4.1), and over http a proxy could
        have written it.

        Args:
            transport: how the request came.
            new_cookie: a new session begins in the same response, as for a farewell message. Its
                cookie, which arrives together with the header, must not be thrown away by it.
        """
        if transport is not Transport.SECURE:
            return None
        return self._without_cookies if new_cookie else self._with_cookies


def _quote(directives: Collection[str]) -> bytes | None:
    """Spell a header's value: quoted strings, each once, in the order given."""
    return ", ".join(f'"{each}"' for each in dict.fromkeys(directives)).encode() or None
