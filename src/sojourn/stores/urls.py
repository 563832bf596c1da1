"""Opens the store of a URL by its scheme: a built-in store or one of another package.

A store's module and its client library are imported when its scheme is used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib import import_module
from typing import Final, Protocol
from urllib.parse import SplitResult, parse_qsl, urlsplit

from sojourn.errors import ConfigurationError
from sojourn.store import Store

ENTRY_POINTS: Final = "sojourn.stores"

#: From scheme to module and name of its ``StoreFactory``. The dependencies of a store are in the
#: extra with the name of its package: ``sojourn[redis]`` for ``sojourn.stores.redis``.
_BUILT_IN: Final = {
    "memory": ("sojourn.stores.memory", "open_memory"),
    "sqlite": ("sojourn.stores.sqlite.store", "open_sqlite"),
    "postgresql": ("sojourn.stores.postgresql.urls", "open_postgresql"),
    "postgres": ("sojourn.stores.postgresql.urls", "open_postgresql"),
    "redis": ("sojourn.stores.redis.urls", "open_redis"),
    "rediss": ("sojourn.stores.redis.urls", "open_redis"),
    "unix": ("sojourn.stores.redis.urls", "open_redis"),
    "valkey": ("sojourn.stores.redis.urls", "open_redis"),
    "redis+sentinel": ("sojourn.stores.redis.urls", "open_sentinel"),
    "rediss+sentinel": ("sojourn.stores.redis.urls", "open_sentinel"),
    "redis+cluster": ("sojourn.stores.redis.urls", "open_cluster"),
    "rediss+cluster": ("sojourn.stores.redis.urls", "open_cluster"),
}

#: What to do if a client library is installed but cannot be imported, by the package of the store.
_IMPORT_REMEDIES: Final = {
    "postgresql": "install 'psycopg[binary]', which contains libpq, or the system's libpq",
}


@dataclass(frozen=True, slots=True)
class StoreURL:
    """A parsed store URL.

    Attributes:
        text: the URL without passwords, for messages.
        parts: the result of ``urllib.parse.urlsplit``.
        realm: the installation's namespace.
        timeout: seconds that a store call may take.
    """

    text: str
    parts: SplitResult = field(repr=False)
    realm: str
    timeout: float

    def options(self, **known: type[int | float | str]) -> dict[str, int | float | str]:
        """Return the query parameters, converted to the given types.

        Raises:
            ConfigurationError: an option is unknown or not of its type.
        """
        options: dict[str, int | float | str] = {}
        for name, value in parse_qsl(self.parts.query, keep_blank_values=True):
            if name not in known:
                raise ConfigurationError(
                    f"{self.text}: unknown option {name!r}; expected "
                    f"{', '.join(known) or 'none'}{_suggest(name, known)}"
                )
            try:
                options[name] = known[name](value)
            except ValueError:
                raise ConfigurationError(
                    f"{self.text}: option {name!r} expects {known[name].__name__}, found {value!r}"
                ) from None
        return options


class StoreFactory(Protocol):
    """Opens a store by its URL.

    A package adds a scheme with an entry point in the group ``sojourn.stores``, whose name is the
    scheme and whose object is a ``StoreFactory``.
    """

    def __call__(self, url: StoreURL) -> Store:
        """Return the store.

        Raises:
            ConfigurationError: the URL is invalid.
        """
        ...


def open_store(url: str, *, realm: str, timeout: float) -> Store:
    """Open the store of a URL.

    Args:
        url: such as ``memory://``, ``sqlite:///.sojourn/sessions.db``.
        realm: the installation's namespace.
        timeout: seconds that a store call may take.

    Raises:
        ConfigurationError: the scheme is unknown, its client library is not installed, or the URL
            is invalid.
    """
    try:
        parts = _split(url)
    except ValueError as error:
        # The error may quote the password.
        reason = error if "@" not in url else "percent-encode user and password, such as '%40'"
        raise ConfigurationError(f"store= expects a URL, found an invalid one: {reason}") from None
    if not parts.scheme or "://" not in url:
        raise ConfigurationError(
            f"store= expects a URL such as 'sqlite:///sessions.db' or 'memory://', or a Store "
            f"object, found {url.rpartition('@')[2]!r}"
        )
    factory = _find_factory(parts.scheme)
    return factory(StoreURL(without_password(url), parts, realm, timeout))


def _split(url: str) -> SplitResult:
    scheme, separator, rest = url.partition("://")
    netloc_end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    netloc = rest[:netloc_end]
    if not separator or "," not in netloc:
        return urlsplit(url)
    # Several hosts: `urlsplit` of Python 3.14 rejects a bracketed host that is not the first.
    return urlsplit(f"{scheme}://hosts{rest[netloc_end:]}")._replace(netloc=netloc)


def _find_factory(scheme: str) -> StoreFactory:
    if scheme in _BUILT_IN:
        module, function = _BUILT_IN[scheme]
        try:
            factory: StoreFactory = getattr(import_module(module), function)
        except ImportError as error:
            package = module.split(".")[2]
            if error.name is None:  # it is installed
                reason = " ".join(str(error).split())
                raise ConfigurationError(
                    f"the client library of {scheme}:// cannot be imported ({reason}); "
                    f"{_IMPORT_REMEDIES.get(package, 'install it again')}"
                ) from error
            raise ConfigurationError(
                f"the store for {scheme}:// needs {error.name}, which is not installed; install "
                f"'sojourn[{package}]'"
            ) from error
        return factory
    # Imported here: it takes a tenth of the time to import the package.
    from importlib.metadata import entry_points

    plugins = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if scheme in plugins:
        try:
            factory = plugins[scheme].load()
        except ImportError as error:
            raise ConfigurationError(
                f"the store for {scheme}:// needs {error.name or 'a package'}, which cannot be "
                f"imported ({error}); install it"
            ) from error
        return factory
    known = sorted({*_BUILT_IN, *plugins})
    raise ConfigurationError(
        f"no store has the URL scheme {scheme!r}; expected one of "
        f"{', '.join(f'{name}://' for name in known)}{_suggest(scheme, known)}"
    )


#: Matches passwords before the last '@' (an unescaped one may contain others) and in the query,
#: and there URLs, whose passwords may be percent-encoded.
_CREDENTIALS: Final = (
    r"(?s)(?<=//)([^:/?#@]*:).*@|([?&]\w*password=)[^&#]*|([?&]\w*_url=)(?:.*@)?[^&#]*"
)


def without_password(url: str) -> str:
    """Return a URL with ``***`` in place of its passwords."""

    def mask(match: re.Match[str]) -> str:
        return f"{match[1]}***@" if match[1] else f"{match[2] or match[3]}***"

    return re.sub(_CREDENTIALS, mask, url)


def _suggest(found: str, known: object) -> str:
    import difflib  # only for errors

    close = difflib.get_close_matches(found, list(known), n=1)  # type: ignore[call-overload]
    return f". Did you mean {close[0]!r}?" if close else ""
