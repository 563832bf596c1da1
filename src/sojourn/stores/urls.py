"""From a store's URL to the store: the table of schemes, ours and third parties'.

What lives here: the registry and the errors for URLs that lead nowhere. What must not: how a store
reads its own URL; each has a ``from_url``. A store's module, and the client library it needs, is
imported when its scheme is asked for.

A third party adds a scheme with an entry point in the group ``sojourn.stores`` whose name is the
scheme and whose object is a function with the signature of ``Opener``.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final, Protocol
from urllib.parse import SplitResult, parse_qsl, urlsplit

from sojourn.errors import ConfigurationError
from sojourn.store import Store

ENTRY_POINTS: Final = "sojourn.stores"

#: scheme -> module and function; the function is an ``Opener``.
_BUILT_IN: Final = {
    "memory": ("sojourn.stores.memory", "open_memory"),
    "sqlite": ("sojourn.stores.sqlite.store", "open_sqlite"),
    "redis": ("sojourn.stores.redis.urls", "open_redis"),
    "rediss": ("sojourn.stores.redis.urls", "open_redis"),
    "unix": ("sojourn.stores.redis.urls", "open_redis"),
    "valkey": ("sojourn.stores.redis.urls", "open_redis"),
    "redis+sentinel": ("sojourn.stores.redis.urls", "open_sentinel"),
    "rediss+sentinel": ("sojourn.stores.redis.urls", "open_sentinel"),
    "redis+cluster": ("sojourn.stores.redis.urls", "open_cluster"),
    "rediss+cluster": ("sojourn.stores.redis.urls", "open_cluster"),
}


@dataclass(frozen=True, slots=True)
class StoreURL:
    """A store's URL, taken apart.

    Attributes:
        text: the URL without its password, for messages.
        parts: as ``urllib.parse.urlsplit`` gives them.
        realm: the installation's namespace.
        timeout: seconds that a store call may take.
    """

    text: str
    parts: SplitResult = field(repr=False)
    realm: str
    timeout: float

    def options(self, **known: type[int | float | str]) -> dict[str, int | float | str]:
        """Return the query as options of the given types.

        Raises:
            ConfigurationError: an option is unknown or not of its type.
        """
        found: dict[str, int | float | str] = {}
        for name, value in parse_qsl(self.parts.query, keep_blank_values=True):
            if name not in known:
                raise ConfigurationError(
                    f"{self.text}: unknown option {name!r}; expected "
                    f"{', '.join(known) or 'none'}{_suggest(name, known)}"
                )
            try:
                found[name] = known[name](value)
            except ValueError:
                raise ConfigurationError(
                    f"{self.text}: option {name!r} expects {known[name].__name__}, found {value!r}"
                ) from None
        return found


class Opener(Protocol):
    """Makes a store of a URL."""

    def __call__(self, url: StoreURL) -> Store:
        """Return the store.

        Raises:
            ConfigurationError: the URL makes no sense.
        """
        ...


def open_store(url: str, *, realm: str, timeout: float) -> Store:
    """Return the store that a URL names.

    Args:
        url: such as ``memory://``, ``sqlite:///.sojourn/sessions.db``.
        realm: the installation's namespace.
        timeout: seconds that a store call may take.

    Raises:
        ConfigurationError: the scheme is unknown, its client is not installed, or the rest of the
            URL makes no sense.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        why = error if "@" not in url else "escape what is special in user and password, as in %40"
        raise ConfigurationError(f"store= expects a URL, found one that is wrong: {why}") from None
    if not parts.scheme or "://" not in url:
        raise ConfigurationError(
            f"store= expects a URL such as 'sqlite:///sessions.db' or 'memory://', or a Store "
            f"object, found {url.rpartition('@')[2]!r}"
        )
    opener = _find_opener(parts.scheme)
    return opener(StoreURL(_without_password(url), parts, realm, timeout))


def _find_opener(scheme: str) -> Opener:
    if scheme in _BUILT_IN:
        module, function = _BUILT_IN[scheme]
        try:
            opener: Opener = getattr(import_module(module), function)
        except ImportError as error:
            raise ConfigurationError(
                f"the store for {scheme}:// needs {error.name}, which is not installed; install "
                "'sojourn[redis]'"
            ) from error
        return opener
    others = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if scheme in others:
        try:
            opener = others[scheme].load()
        except ImportError as error:
            raise ConfigurationError(
                f"the store for {scheme}:// needs {error.name or 'a package'}, which cannot be "
                f"imported ({error}); install it"
            ) from error
        return opener
    known = sorted({*_BUILT_IN, *others})
    raise ConfigurationError(
        f"no store has the URL scheme {scheme!r}; expected one of "
        f"{', '.join(f'{name}://' for name in known)}{_suggest(scheme, known)}"
    )


#: Passwords: before the last '@', since one that is not escaped may have others, and in options.
_PASSWORD: Final = re.compile(r"(?<=//)([^:/?#@]*:).*@|([?&]\w*password=)[^&#]*", re.DOTALL)


def _without_password(url: str) -> str:
    def hidden(found: re.Match[str]) -> str:
        return f"{found[1]}***@" if found[1] else f"{found[2]}***"

    return _PASSWORD.sub(hidden, url)


def _suggest(found: str, known: object) -> str:
    close = difflib.get_close_matches(found, list(known), n=1)  # type: ignore[call-overload]
    return f". Did you mean {close[0]!r}?" if close else ""
