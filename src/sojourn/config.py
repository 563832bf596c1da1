"""Config: each option once, with its type, default, rule and text, and the rules between options.

The text below a field is what editors show for the keyword and what ``docs/options.md`` says
(``python -m tools.options_table``).
"""
# Without `from __future__ import annotations`: the annotations below hold the `Option` objects, and
# evaluating them from text would cost more at import.

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from typing import Annotated, Any, Final, Literal, TypedDict, Unpack, cast, get_args

import msgspec

from sojourn._core.context import CoreConfig
from sojourn._core.durations import Duration, milliseconds
from sojourn._core.immediate_store import immediate_store
from sojourn._core.operations import Merge
from sojourn._core.policy import PRESETS, Limits, Policy
from sojourn._core.state_upgrade import StateUpgrade
from sojourn._core.typed_state import OnInvalidState, StateSpec
from sojourn._crypto.encryption import Encrypt, check_encrypt
from sojourn._crypto.secret_key import check_secrets
from sojourn.audit import Audit, Sink
from sojourn.errors import ConfigurationError, SojournError
from sojourn.store import (
    LimitPolicy,
    RequiresEventLoop,
    SessionLimit,
    Store,
    StoreSource,
    SupportsBroadcast,
    SupportsHistory,
    SupportsTimeout,
    SupportsUserIndex,
    value_check,
)
from sojourn.stores.migration.store import MigratingStore
from sojourn.stores.urls import open_store
from sojourn.web.clear_site_data import ClearSiteData
from sojourn.web.cookies import CookieSettings
from sojourn.web.header_transport import TransportName, header_transport
from sojourn.web.installation import OnError, OnStoreFailure, WebConfig
from sojourn.web.legacy_reader import LegacyReader
from sojourn.web.origin import check_protect, validate_origins
from sojourn.web.paths import Patterns

__all__ = [
    "OPTIONS",
    "AllOptions",
    "Config",
    "Duration",
    "Option",
    "Options",
    "build_config",
    "build_policy",
    "options_from_mapping",
]

SameSite = Literal["lax", "strict", "none", "Lax", "Strict", "None"]
Preset = Literal["aal1", "aal2", "aal3"]
OnReuse = Literal["revoke", "ignore"]
OnLimit = Literal["evict_oldest", "evict_idlest", "refuse"]

#: Labels that a request carries, so that ``check_labels`` can compare them.
CLIENT_LABELS: Final = frozenset({"address", "browser"})

#: Close codes of WebSockets for applications (RFC 6455 7.4.2), and "policy violation".
_CLOSE_CODES: Final = frozenset({1008, *range(3000, 5000)})

#: Upper bound of ``max_sessions``; None means no limit.
MAX_SESSIONS: Final = 1_000_000

#: The realm whose cookie has the default name.
_DEFAULT_REALM: Final = "default"

#: Characters; the realm is part of keys and table names.
_MAX_REALM_LENGTH: Final = 32

#: A read leaves ``seen_at`` at most a minute old, whatever the idle timeout.
_MAX_TOUCH_INTERVAL: Final = 60_000

#: Milliseconds; the longest ``near_cache``.
_MAX_NEAR_CACHE: Final = 10_000

_ENVIRONMENT_PREFIX: Final = "SOJOURN_"


# --- Rules: each checks one value, converts it, or raises ConfigurationError with the option's name

Rule = Callable[[Any, str], Any]


def checked_by_consumer(value: Any, _: str) -> Any:
    """Accept any value; the object that is built from it checks it."""
    return value


def boolean(value: Any, name: str) -> bool:
    """Accept True and False."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} expects True or False, found {value!r}")
    return value


def text(value: Any, name: str) -> str:
    """Accept a string."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} expects text, found {value!r}")
    return value


def texts(value: Any, name: str) -> tuple[str, ...]:
    """Accept a collection of strings, but not a single string."""
    if (
        isinstance(value, str)
        or not isinstance(value, Collection)
        or not all(isinstance(item, str) for item in value)
    ):
        raise ConfigurationError(f"{name} expects a list of texts, found {value!r}")
    return tuple(value)


def duration(value: Any, name: str) -> int:
    """Accept a duration; return milliseconds."""
    return milliseconds(value, option=name)


def whole_number(maximum: int = 2**63 - 1) -> Rule:
    """Accept 1 to ``maximum``; the default is the largest number that every store can hold."""

    def rule(value: Any, name: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigurationError(f"{name} expects a whole number above zero, found {value!r}")
        if value > maximum:
            raise ConfigurationError(f"{name} expects {maximum} at most, found {value!r}")
        return value

    return rule


def choice(literal: Any) -> Rule:
    """Accept the words of a ``Literal``."""
    allowed = get_args(literal)

    def rule(value: Any, name: str) -> str:
        if value not in allowed:
            raise ConfigurationError(f"{name} expects one of {', '.join(allowed)}, found {value!r}")
        return str(value)

    return rule


def optional(rule: Rule) -> Rule:
    """Accept None, and what another rule accepts."""
    return lambda value, name: None if value is None else rule(value, name)


def _secrets(value: Any, name: str) -> tuple[bytes, ...]:
    return check_secrets(value, source=name)


def _encrypt(value: Any, _: str) -> Encrypt:
    return check_encrypt(value)


def _realm(value: Any, name: str) -> str:
    if (
        not isinstance(value, str)
        or not value.isascii()
        or not 1 <= len(value) <= _MAX_REALM_LENGTH
        or not value.replace("-", "").replace("_", "").isalnum()
    ):
        raise ConfigurationError(
            f"{name} expects 1 to {_MAX_REALM_LENGTH} letters, digits, '-' and '_', found "
            f"{value!r}; it becomes part of keys and table names"
        )
    return value


def _merges(value: Any, name: str) -> dict[str, Merge]:
    allowed = [merge.value for merge in Merge if merge is not Merge.EDIT]
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{name} expects a dict from key to rule, found {value!r}")
    for key, rule in value.items():
        if not isinstance(key, str):
            raise ConfigurationError(
                f"{name} expects session keys, which are strings, found {key!r}"
            )
        if rule not in allowed:
            raise ConfigurationError(
                f"{name}[{key!r}] expects one of {', '.join(allowed)}, found {rule!r}"
            )
    return {key: Merge(rule) for key, rule in value.items()}


def _labels(value: Any, name: str) -> tuple[str, ...]:
    labels = texts(value, name)
    for label in labels:
        if label not in CLIENT_LABELS:
            raise ConfigurationError(
                f"{name} expects some of {', '.join(sorted(CLIENT_LABELS))}, found {label!r}"
            )
    return labels


def _origins(value: Any, name: str) -> frozenset[str]:
    return validate_origins([value] if isinstance(value, str) else texts(value, name))


def _store_failure(value: Any, name: str) -> Patterns | None:
    """Return the paths whose requests continue without the store, None for no path."""
    if isinstance(value, str):
        anonymous = choice(OnStoreFailure)(value, name) == "anonymous"
        return Patterns((), ()) if anonymous else None
    return _paths(value, name)


def _paths(value: Any, name: str) -> Patterns | None:
    paths = texts(value, name)
    return Patterns(paths, (), option=name) if paths else None


def _clear_site_data(value: Any, name: str) -> ClearSiteData:
    return ClearSiteData(texts(value, name))


def _on_invalid_state(value: Any, name: str) -> OnInvalidState:
    if callable(value):
        return cast("OnInvalidState", value)
    if value not in ("error", "default"):
        raise ConfigurationError(
            f'{name} expects "error", "default" or a function of the key and the stored value, '
            f"found {value!r}"
        )
    return cast("OnInvalidState", value)


def _upgrade(value: Any, name: str) -> Callable[[int, dict[str, Any]], dict[str, Any]]:
    if not callable(value):
        raise ConfigurationError(
            f"{name} expects a function of the stored version and the data, found {value!r}"
        )
    return cast("Callable[[int, dict[str, Any]], dict[str, Any]]", value)


def _near_cache(value: Any, name: str) -> int:
    """Accept a duration of at most ``_MAX_NEAR_CACHE``; return milliseconds."""
    found = duration(value, name)
    if found > _MAX_NEAR_CACHE:
        raise ConfigurationError(
            f"{name} expects a duration of 10 seconds at most, found {value!r}: a revoked session "
            "might be served from memory for that long"
        )
    return found


def _readers(value: Any, name: str) -> tuple[LegacyReader, ...]:
    readers = tuple(value) if isinstance(value, Collection) and not isinstance(value, str) else ()
    if not readers or not all(isinstance(reader, LegacyReader) for reader in readers):
        raise ConfigurationError(
            f"{name} expects a list of readers such as sojourn.legacy.StarletteCookie(...), found "
            f"{value!r}"
        )
    return readers


def _last_day(value: Any, name: str) -> int:
    """Accept a date, whose day is included, or a datetime; return milliseconds since 1970 UTC.

    Without a time zone it is UTC, so that every machine ends at the same instant.
    """
    try:
        given = value
        if isinstance(value, str):
            is_date = len(value) == len("2027-01-31")
            given = date.fromisoformat(value) if is_date else datetime.fromisoformat(value)
        if isinstance(given, datetime):
            at = given if given.tzinfo is not None else given.replace(tzinfo=UTC)
        elif isinstance(given, date):
            at = datetime(given.year, given.month, given.day, tzinfo=UTC) + timedelta(days=1)
        else:
            raise TypeError  # noqa: TRY301 - answered below
        return int(at.timestamp() * 1000)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"{name} expects a date such as '2027-01-31', found {value!r}"
        ) from error


def _clock(value: Any, name: str) -> Callable[[], int]:
    if not callable(value):
        raise ConfigurationError(
            f"{name} expects a function that returns milliseconds since 1970, found {value!r}"
        )
    return cast("Callable[[], int]", value)


def _close_code(value: Any, name: str) -> int:
    if type(value) is not int or value not in _CLOSE_CODES:
        raise ConfigurationError(
            f"{name} expects a close code for applications, 3000 to 4999, or 1008, found {value!r}"
        )
    return value


def _on_error(value: Any, name: str) -> OnError:
    if not callable(value):
        raise ConfigurationError(
            f"{name} expects a function of the request and the error, found {value!r}"
        )
    return cast("OnError", value)


def _transport(value: Any, name: str) -> frozenset[str]:
    """Return the set of transports."""
    allowed = get_args(TransportName)
    names = (value,) if isinstance(value, str) else texts(value, name)
    if not names or not set(names) <= set(allowed):
        raise ConfigurationError(
            f"{name} expects 'cookie', 'header' or ['cookie', 'header'], found {value!r}"
        )
    return frozenset(names)


def _split(value: str) -> list[str]:
    """Split the secrets in an environment variable: commas separate, spaces may be inside."""
    return [part.strip() for part in value.split(",") if part.strip()]


# --- Options


class Option(msgspec.Struct, frozen=True, eq=False):
    """One option; its type and its text are those of its field in ``Options``.

    Attributes:
        default: what applies if the option is not given, as a user would write it; None if there is
            none, or if it follows from other options.
        rule: checks and converts a value that was given.
        default_text: the default in ``docs/options.md``, where ``default`` does not say it.
        see: page and anchor in ``docs/`` that say more.
        env: converts the text of the environment variable ``SOJOURN_<NAME>``; None if the
            environment cannot set the option.
        other_names: names in other libraries, in lower case and without ``session_``, ``cookie_``
            or ``session_cookie_`` in front; they are answered with an error that names this option.
    """

    default: Any
    rule: Rule
    default_text: str = ""
    see: str = ""
    env: Callable[[str], Any] | None = None
    other_names: tuple[str, ...] = ()


class Options(TypedDict, total=False):
    """The keywords of ``sojourn.install`` and ``sojourn.Sessions``."""

    store: Annotated[
        str | Store | StoreSource,
        Option(
            "sqlite:///.sojourn/sessions.db",
            checked_by_consumer,
            see="stores.md",
            env=str,
            other_names=("backend", "engine", "redis", "redis_url", "type", "url"),
        ),
    ]
    """Where sessions are stored: a URL such as `memory://`, `sqlite:///path`,
    `postgresql://host/database` or `redis://host:6379/0`, or a Store object. Other packages add URL
    schemes by entry point."""

    secret: Annotated[
        str | bytes | Sequence[str | bytes],
        Option(
            None,
            _secrets,
            default_text="generated",
            env=_split,
            other_names=("secret_key", "secret_keys", "signing_key"),
        ),
    ]
    """The secret that seals tickets: one or a list, newest first. The first seals, all unseal. In
    the environment, commas separate several. White space around a text is ignored. An embedded
    store generates one and stores it beside its file, readable by its owner only; a shared store
    needs one given. Secrets of fewer than 16 bytes, guessable ones and placeholders are refused."""

    cookie: Annotated[
        str,
        Option(
            None,
            optional(text),
            default_text="`__Host-sid` on https, `sid` on http to this machine",
            other_names=("name", "session_cookie"),
        ),
    ]
    """The exact name of the cookie. With `path` or `domain` the default on https is
    `__Secure-sid`. With another `realm` than the default, `-` and the realm follow:
    `__Host-sid-admin`, `sid-admin`."""

    secure: Annotated[
        bool | Literal["auto"], Option("auto", checked_by_consumer, other_names=("https_only",))
    ]
    """When the cookie is Secure. `"auto"`: on https; plain http is accepted only to this machine
    (localhost, 127.0.0.0/8, `*.test`, the hosts of test clients such as `testserver`), other
    requests raise `InsecureTransport` with the remedy. `True`: always, for TLS that ends in front
    of the server. `False`: never."""

    same_site: Annotated[SameSite, Option("lax", checked_by_consumer, other_names=("samesite",))]
    """SameSite of the cookie: `"lax"`, `"strict"` or `"none"`; always sent."""

    path: Annotated[str, Option("/", optional(text))]
    """Path of the cookie."""

    domain: Annotated[str, Option(None, optional(text))]
    """Share the cookie with all hosts below this one."""

    partitioned: Annotated[bool, Option(False, boolean)]
    """Use one cookie jar for each top-level site (CHIPS)."""

    persistent: Annotated[bool, Option(False, boolean, other_names=("permanent",))]
    """The cookie survives the end of the browser session: as long as the session can live, at most
    400 days. Sent with Max-Age and Expires."""

    transport: Annotated[
        TransportName | Sequence[TransportName],
        Option("cookie", _transport, see="transports.md"),
    ]
    """What carries the ticket: `"cookie"`, `"header"` for clients that are not browsers, or
    `["cookie", "header"]` for both. `"header"` includes the WebSocket subprotocol."""

    header: Annotated[
        str,
        Option(
            None,
            optional(text),
            default_text="Authorization",
            see="transports.md",
            other_names=("header_name",),
        ),
    ]
    """The request header with the ticket: `Authorization: Session <ticket>`, or a name such as
    `X-Session`, whose value is the ticket. Needs `transport="header"`."""

    timeout: Annotated[
        Duration,
        Option(
            "30 minutes",
            duration,
            other_names=(
                *("age", "expire", "expires", "lifetime", "max_age"),
                *("permanent_session_lifetime", "ttl"),
            ),
        ),
    ]
    """Longest inactivity. `idle_timeout` is another name of it. Given alone, a longer one than 12
    hours is the longest lifetime, too: `timeout="14 days"` sets `absolute_timeout` to 14 days."""

    idle_timeout: Annotated[Duration, Option(None, duration, default_text="as `timeout`")]
    """Another name of `timeout`; give one of them."""

    absolute_timeout: Annotated[Duration | None, Option("12 hours", optional(duration))]
    """Longest lifetime, however active the session is; `None` for no limit. Only a login restarts
    it. Given, it applies as given, and must not be shorter than a given `timeout`; the default of
    `timeout` is never longer than it."""

    anonymous_timeout: Annotated[Duration, Option(None, duration, default_text="as `timeout`")]
    """Longest inactivity of a session without a login. Given alone, it extends the lifetime as
    `timeout` does, unless `absolute_timeout` is given."""

    anonymous_absolute_timeout: Annotated[
        Duration | None, Option(None, optional(duration), default_text="as `absolute_timeout`")
    ]
    """Longest lifetime of a session without a login; `None` for no limit."""

    remember_timeout: Annotated[Duration, Option("14 days", duration, see="users.md#remember-me")]
    """Longest inactivity after `login(…, remember=True)`. The default is never shorter than
    `timeout`. Given alone, a longer one than 30 days is the longest lifetime, too."""

    # The default is NIST SP 800-63B-4 2.1.3.
    remember_absolute_timeout: Annotated[Duration | None, Option("30 days", optional(duration))]
    """Longest lifetime after `login(…, remember=True)`; `None` for no limit."""

    preset: Annotated[
        Preset, Option(None, optional(choice(Preset)), see="users.md#limits-by-level")
    ]
    """`"aal1"`, `"aal2"`, `"aal3"`: the limits of NIST SP 800-63B-4. The timeouts above may be
    shorter and not longer."""

    touch_interval: Annotated[
        Duration, Option(None, duration, default_text="a tenth of `timeout`, at most a minute")
    ]
    """How old `seen_at` may become before a read writes it again."""

    unconfirmed_timeout: Annotated[Duration | None, Option(None, optional(duration))]
    """Lifetime of a new session until its cookie comes back once. For public sites that robots
    visit, which never send it back."""

    rotate_interval: Annotated[
        Duration | None, Option(None, optional(duration), see="users.md#rotation")
    ]
    """Age at which a ticket is replaced, counted from its first use; at the next request of its
    session, and not while the previous ticket still works."""

    on_reuse: Annotated[OnReuse, Option("revoke", choice(OnReuse))]
    """What happens when a replaced ticket is used after its grace period, the sign of a stolen one:
    `"revoke"` revokes the session, `"ignore"` rejects the ticket and keeps the session. Both emit
    `Reused`."""

    max_sessions: Annotated[
        int | None,
        Option(None, optional(whole_number(MAX_SESSIONS)), see="users.md#how-many-sessions"),
    ]
    """How many sessions a user may have; needs a store that lists users."""

    on_limit: Annotated[OnLimit, Option("evict_oldest", choice(OnLimit))]
    """What a login beyond `max_sessions` does: `"evict_oldest"` revokes the session with the
    earliest login, `"evict_idlest"` the one seen least recently, `"refuse"` raises
    `LimitReached`."""

    encrypt: Annotated[Encrypt, Option(False, _encrypt, see="users.md#encryption")]
    """`True`: user data is encrypted with a key from the secret. `"ticket"`: with a key from the
    secret and the ticket, so that the database and the secret together cannot decrypt it."""

    merge: Annotated[Mapping[str, str], Option({}, _merges, see="session.md#requests-in-parallel")]
    """How an assigned key combines with a concurrent assignment: `"sum"`, `"dict"`,
    `"dict of sum"`, `"union"`, `"append"` or `"last"` for each key."""

    on_invalid_state: Annotated[
        Literal["error", "default"] | Callable[[str, Any], Any],
        Option("error", _on_invalid_state, see="changing-the-class.md"),
    ]
    """What a field of `session.state` is whose stored value does not fit its type: `"error"` raises
    `InvalidState`, `"default"` is the field's default, and a function of the key and the stored
    value returns another value. The stored value is replaced when the field changes."""

    state_version: Annotated[
        int, Option(None, optional(whole_number()), see="changing-the-class.md")
    ]
    """The version of the state class, stored with the data; 1 or more. Data that was written
    without it has version 0."""

    upgrade: Annotated[
        Callable[[int, dict[str, Any]], dict[str, Any]],
        Option(None, optional(_upgrade), see="changing-the-class.md"),
    ]
    """A function of the stored version and the data as a dict, which returns the data of the
    present `state_version`. It is called when older data is read; the result is stored with the
    next change."""

    max_bytes: Annotated[int, Option(65_536, whole_number())]
    """A larger session raises `SessionTooLarge` at the commit; nothing is written."""

    store_timeout: Annotated[Duration, Option("2 seconds", duration)]
    """Deadline of every store call; then `StoreUnavailable`, answered 503 with Retry-After. A
    request without a cookie does not wait for the store."""

    near_cache: Annotated[
        Duration | None,
        Option(None, optional(_near_cache), see="near-cache.md"),
    ]
    """Serve GET, HEAD, OPTIONS and TRACE requests from the memory of the process with a record that
    was loaded less than this time ago, at most 10 seconds. For stores on a server with broadcast.
    After a revocation, other processes may accept the ticket for this time at most. Set it in every
    process of the installation."""

    near_cache_bytes: Annotated[int, Option(16_777_216, whole_number(), see="near-cache.md")]
    """How much memory of each process `near_cache` uses; needs `near_cache`."""

    recheck_interval: Annotated[
        Duration, Option("30 seconds", duration, see="websockets.md#several-processes")
    ]
    """The longest time until an open socket is closed whose session another process revoked, if the
    store has no broadcast or the message was lost."""

    close_code: Annotated[
        int, Option(4401, _close_code, see="websockets.md#close-on-revocation-and-timeout")
    ]
    """The code with which a WebSocket is closed when its session ends, or because it requires a
    session or a user and has none: 3000 to 4999, or 1008. Pages distinguish it from a broken
    connection and do not reconnect."""

    on_store_failure: Annotated[
        OnStoreFailure | Sequence[str],
        Option("error", _store_failure, see="frameworks.md#when-the-store-fails"),
    ]
    """The response to a request whose session cannot be loaded. `"error"`: 503 with Retry-After.
    `"anonymous"`: an empty session that is not saved, and no cookie changes; logged once for each
    outage. A list of paths, `["/", "/news/*"]`: anonymous for those. A route may decide for
    itself."""

    on_error: Annotated[
        Callable[[Any, SojournError], Any],
        Option(None, optional(_on_error), default_text="the framework's handlers", see="errors.md"),
    ]
    """A function of the request and an error of sojourn that returns the response; `None` for the
    default. For errors while a session is loaded or saved, and for those that a handler does not
    catch. The request is the framework's, the ASGI scope or the WSGI environ; the response is the
    framework's, or an ASGI or WSGI application. Under ASGI it may be `async`. It is called
    for a WebSocket before the accept, if the server can send its response."""

    save_on_error: Annotated[bool, Option(False, boolean)]
    """Keep data changes of a request that ends 5xx or raises. The end of a session is always
    kept."""

    realm: Annotated[str, Option(_DEFAULT_REALM, _realm, other_names=("key_prefix", "prefix"))]
    """Namespace of this installation. A ticket of one realm is invalid in another, and the
    realms of one store are separate. Applications with different secrets need different realms."""

    allowed_origins: Annotated[Collection[str], Option((), _origins, default_text="same origin")]
    """Further origins from which WebSocket handshakes are accepted; others get 403. `"*"` switches
    the check off. With `protect` also for requests that change something."""

    protect: Annotated[bool, Option(False, boolean, see="users.md#csrf")]
    """Accept requests other than GET, HEAD, OPTIONS and TRACE only from pages of this application,
    by Sec-Fetch-Site and Origin. Others get 403 before the store is called and the handler runs."""

    clear_site_data: Annotated[Sequence[str], Option((), _clear_site_data)]
    """What browsers delete when a visitor ends the session, over https: `"cache"`, `"cookies"`,
    `"storage"`, `"executionContexts"`, `"*"`. Off by default: it also affects sibling hosts
    (`"cookies"`) and other applications of the origin."""

    audit: Annotated[Sink, Option(None, checked_by_consumer, see="users.md#audit")]
    """A path, an open file or a function: one line of JSON for each event except `Read` and
    `Written`."""

    history: Annotated[Duration | None, Option(None, optional(duration), see="history.md", env=str)]
    """How long the store keeps entries about ended sessions, such as `"30 days"`: when, why
    and by whom they ended, and whose they were. Needs a store with a history. Read it with
    `sessions.history()`."""

    passive: Annotated[Sequence[str], Option((), _paths, default_text="nothing")]
    """Paths whose requests are not activity of the visitor, for pages that poll: `["/status",
    "/live/*"]`. They read and write as usual and extend no timeout. On a socket, a message from the
    client is activity."""

    include: Annotated[Sequence[str], Option((), texts, default_text="everything")]
    """Only these paths have a session: `["/account/*"]`, where `*` matches any text. Paths are as
    in your routes, wherever the application is mounted."""

    exclude: Annotated[Sequence[str], Option((), texts, default_text="nothing")]
    """These paths have no session, also if `include` matches them."""

    autoload: Annotated[bool, Option(True, boolean, see="frameworks.md#only-some-routes")]
    """`False`: only routes that request a session have one, by decorator or dependency."""

    check_labels: Annotated[Sequence[str], Option((), _labels)]
    """Labels that must not change during the life of a session, `"browser"` and `"address"`; a
    request with another label has no session. Off by default: the address of a phone changes."""

    read_legacy: Annotated[
        Sequence[LegacyReader],
        Option(None, optional(_readers), see="coming-from/keeping-visitors.md"),
    ]
    """Readers of the cookies and records that visitors have from another library, such as
    `sojourn.legacy.StarletteCookie(...)`, so that a switch logs no visitor out. A session is
    read once, continued here, and removed there."""

    read_legacy_until: Annotated[
        str | date | datetime,
        Option(None, optional(_last_day), see="coming-from/keeping-visitors.md"),
    ]
    """The last day on which `read_legacy` applies: `"2027-01-31"`, a date or a datetime; UTC if it
    has no time zone. Needed with `read_legacy`."""

    clock: Annotated[Callable[[], int], Option(None, optional(_clock), default_text="the system's")]
    """A function that returns milliseconds since 1970 UTC; for tests."""


class AllOptions(Options, total=False):
    """``Options`` and ``state``, which is a parameter of its own where it decides a type."""

    state: Annotated[type | None, Option(None, checked_by_consumer, see="session.md#typed-state")]
    """A dataclass, `msgspec.Struct` or pydantic model: `session.state` is typed, checked and has
    defaults."""


#: Every option by name.
OPTIONS: Final[Mapping[str, Option]] = {
    name: annotation.__metadata__[0] for name, annotation in AllOptions.__annotations__.items()
}

#: Options of other libraries that have no counterpart here, and why none is needed.
_NOT_NEEDED: Final = {
    "httponly": "the cookie is always HttpOnly",
    "http_only": "the cookie is always HttpOnly",
    "expire_at_browser_close": (
        "the cookie ends with the browser session; pass persistent=True for one that does not"
    ),
    "refresh_each_request": "activity always extends a session; see touch_interval",
    "rolling": "activity always extends a session; see touch_interval",
    "save_every_request": "activity always extends a session; see touch_interval",
    "serializer": "values are stored as msgpack; convert other types, or declare them with state",
    "use_signer": "the cookie is always sealed",
}


def options_from_mapping(
    mapping: Mapping[str, Any],
    *,
    prefix: str = _ENVIRONMENT_PREFIX,
    names: Collection[str] | None = None,
) -> AllOptions:
    """Return the options in a framework's settings, such as ``SOJOURN_TIMEOUT = "1 hour"``.

    Args:
        mapping: Django's settings as a dict, Flask's ``app.config``, ``os.environ``.
        prefix: the beginning of the keys; after it comes the option's name in capitals. Other keys
            are ignored.
        names: the options to look for; others are ignored. None for all.

    Raises:
        ConfigurationError: a key has the prefix and names no option (only if ``names`` is None).
    """
    found = {
        key.removeprefix(prefix).lower(): value
        for key, value in mapping.items()
        if key.startswith(prefix)
    }
    if names is None:
        for name in found:
            if name not in OPTIONS:
                raise ConfigurationError(_unknown_option(name, partial(setting_name, prefix)))
        names = OPTIONS
    return cast("AllOptions", {name: found[name] for name in names if name in found})


def setting_name(prefix: str, name: str) -> str:
    """Return the key of an option in settings with this prefix, such as ``SOJOURN_TIMEOUT``."""
    return prefix + (name.upper() if prefix.isupper() else name)


def _unknown_option(name: str, spell: Callable[[str], str] = str) -> str:
    """Return the error text for a name that is no option; ``spell`` writes names as they came."""
    lowered = name.lower()
    for prefix in ("", "session_cookie_", "session_", "cookie_"):
        word = lowered.removeprefix(prefix)
        if word in _NOT_NEEDED:
            return f"{spell(name)} is no option here: {_NOT_NEEDED[word]}; remove it"
        for ours, option in OPTIONS.items():
            if word in option.other_names or word == ours:
                return f"{spell(name)} is called {spell(ours)} here; use that name"
    import difflib  # only for errors

    close = difflib.get_close_matches(lowered, list(OPTIONS), n=1)
    hint = f". Did you mean {spell(close[0])!r}?" if close else f"; known are {', '.join(OPTIONS)}"
    return f"there is no option {spell(name)!r}{hint}"


# --- Rules between options


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The options of one installation, checked and resolved.

    Attributes:
        read_legacy_until: milliseconds since 1970 UTC; None without readers.
        near_cache: seconds for which a record may be served from memory; None for no cache.
        near_cache_bytes: of memory for it.
        history: milliseconds for which an entry of the history is kept; None for no history.
        store_name: the URL's scheme, or the repr of a Store object; for messages.
        secrets: newest first, as given or found in the environment; None if one must be generated.
    """

    store: Store
    store_name: str
    secrets: tuple[bytes, ...] | None = field(repr=False)
    core: CoreConfig
    web: WebConfig
    merges: Mapping[str, Merge]
    state: StateSpec
    realm: str
    clock: Callable[[], int] | None
    encrypt: Encrypt
    audit: Audit | None
    read_legacy: tuple[LegacyReader, ...] = ()
    read_legacy_until: int | None = None
    near_cache: float | None = None
    near_cache_bytes: int = 0
    history: int | None = None


def build_config(options: AllOptions, environment: Mapping[str, str] = os.environ) -> Config:
    """Check options; fill in the environment and the defaults.

    Args:
        options: the keywords of ``install`` or ``Sessions``.
        environment: where ``SOJOURN_STORE``, ``SOJOURN_SECRET`` and ``SOJOURN_HISTORY`` are looked
            up.

    Raises:
        ConfigurationError: an option is unknown, has a wrong value, or contradicts another.
    """
    given = _check(options, environment)
    values = {**_defaults(), **given}
    state = _state(given, values)
    clock = values["clock"]
    core = _core_config(values, _policy(given))
    _check_legacy(values)
    _check_near_cache(given)
    web = _web_config(values)
    store = values["store"]
    return Config(
        secrets=values["secret"],
        core=core,
        web=web,
        merges={**state.merges, **values["merge"]},
        state=state,
        realm=values["realm"],
        clock=clock,
        encrypt=values["encrypt"],
        read_legacy=values["read_legacy"] or (),
        read_legacy_until=values["read_legacy_until"],
        near_cache=web.near_cache,
        near_cache_bytes=values["near_cache_bytes"],
        history=values["history"],
        # Last, because they may create files and threads, which a wrong option above must not.
        audit=_audit(values["audit"], clock),
        store=_store(values, core.session_limit),
        store_name=store.split("://")[0] + "://" if isinstance(store, str) else repr(store),
    )


def build_policy(**options: Unpack[Options]) -> Policy:
    """Check the options about time; fill in those that follow from others.

    Raises:
        ConfigurationError: a duration is wrong, or contradicts another or the preset.
    """
    return _policy(_check(options, {}))


def _check(options: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the options that were given, by keyword or environment, each checked by its rule."""
    for name in options:
        if name not in OPTIONS:
            raise ConfigurationError(_unknown_option(name))
    from_environment = {name: option.env for name, option in OPTIONS.items() if option.env}
    variables: Mapping[str, Any] = options_from_mapping(environment, names=from_environment)
    checked: dict[str, Any] = {}
    for name, read in from_environment.items():
        if variables.get(name) and options.get(name) is None:
            source = _ENVIRONMENT_PREFIX + name.upper()
            checked[name] = OPTIONS[name].rule(read(variables[name]), source)
    for name, value in options.items():
        if value is not None or name not in from_environment:
            checked[name] = OPTIONS[name].rule(value, name)
    if "idle_timeout" in checked:
        if "timeout" in checked:
            raise ConfigurationError(
                "timeout and idle_timeout are two names of one option; give one"
            )
        checked["timeout"] = checked.pop("idle_timeout")
    return checked


@cache
def _defaults() -> Mapping[str, Any]:
    return {name: _default(name) for name in OPTIONS}


def _default(name: str) -> Any:
    option = OPTIONS[name]
    return None if option.default is None else option.rule(option.default, name)


def _state(given: Mapping[str, Any], values: Mapping[str, Any]) -> StateSpec:
    cls, version, function = values["state"], values["state_version"], values["upgrade"]
    if cls is None and "on_invalid_state" in given:
        raise ConfigurationError(
            "on_invalid_state needs state=, the class whose fields it concerns"
        )
    if version is None and function is not None:
        raise ConfigurationError("upgrade needs state_version=, the version that it upgrades to")
    upgrade = None if version is None else StateUpgrade(version, function)
    return StateSpec(cls, on_invalid=values["on_invalid_state"], upgrade=upgrade)


def _check_legacy(values: Mapping[str, Any]) -> None:
    readers, until = values["read_legacy"], values["read_legacy_until"]
    if readers is not None and until is None:
        raise ConfigurationError(
            "read_legacy needs read_legacy_until=, the last day on which old sessions are read, "
            "such as '2027-01-31'; take the longest lifetime of an old session from today"
        )
    if until is not None and readers is None:
        raise ConfigurationError("read_legacy_until needs read_legacy=, the readers that it ends")


def _check_near_cache(given: Mapping[str, Any]) -> None:
    if given.get("near_cache") is None:
        if "near_cache_bytes" in given:
            raise ConfigurationError(
                "near_cache_bytes needs near_cache=, the time for which records are cached, such "
                "as '1 second'"
            )
    elif "header" in given.get("transport", ()):
        raise ConfigurationError(
            "near_cache needs the transport 'cookie': a client that sends its ticket in a header "
            "has no cookie, by which it would read its own writes; leave near_cache out"
        )


def _check_near_cache_store(store: Store) -> None:
    if immediate_store(store) is not None:
        raise ConfigurationError(
            f"near_cache is for stores on a server, and {store!r} answers without one; leave "
            "near_cache out"
        )
    if not isinstance(store, SupportsBroadcast):
        raise ConfigurationError(
            f"near_cache needs a store with broadcast, such as redis:// or valkey://, and "
            f"{store!r} has none: a revocation would not reach the memory of other processes; "
            "leave near_cache out"
        )
    if isinstance(store, MigratingStore):
        # A probe that returns from one of the stores confirms nothing about messages of the other.
        raise ConfigurationError(
            f"near_cache needs the messages of one store, and {store!r} has those of two; leave "
            "near_cache out until all sessions are moved"
        )
    if isinstance(store, RequiresEventLoop) and (advice := store.requires_event_loop()):
        raise ConfigurationError(
            f"near_cache needs a store that can subscribe in a thread, and {store!r} waits for an "
            f"event loop: {advice}"
        )


def _core_config(values: Mapping[str, Any], policy: Policy) -> CoreConfig:
    return CoreConfig(
        policy=policy,
        max_bytes=values["max_bytes"],
        store_timeout=values["store_timeout"] / 1000,
        check_labels=values["check_labels"],
        session_limit=_session_limit(values),
        revoke_reused=values["on_reuse"] == "revoke",
    )


def _web_config(values: Mapping[str, Any]) -> WebConfig:
    origins = values["allowed_origins"]
    return WebConfig(
        cookie=CookieSettings(
            name=values["cookie"],
            secure=values["secure"],
            same_site=values["same_site"],
            path="/" if values["path"] is None else values["path"],
            domain=values["domain"],
            partitioned=values["partitioned"],
            persistent=values["persistent"],
            suffix="" if values["realm"] == _DEFAULT_REALM else f"-{values['realm']}",
        ),
        patterns=Patterns(values["include"], values["exclude"]),
        autoload=values["autoload"],
        save_on_error=values["save_on_error"],
        allowed_origins=origins,
        protect=check_protect(protect=values["protect"], allowed_origins=origins),
        passive=values["passive"],
        clear_site_data=values["clear_site_data"],
        recheck_interval=values["recheck_interval"] / 1000,
        anonymous=values["on_store_failure"],
        close_code=values["close_code"],
        on_error=values["on_error"],
        header_transport=header_transport(values["transport"], values["header"]),
        near_cache=None if values["near_cache"] is None else values["near_cache"] / 1000,
    )


def _session_limit(values: Mapping[str, Any]) -> SessionLimit | None:
    if values["max_sessions"] is None:
        return None
    return SessionLimit(values["max_sessions"], LimitPolicy(values["on_limit"]))


def _audit(sink: Any, clock: Callable[[], int] | None) -> Audit | None:
    if sink is None:
        return None
    return Audit(sink) if clock is None else Audit(sink, clock=clock)


def _store(values: Mapping[str, Any], limit: SessionLimit | None) -> Store:
    store, timeout = values["store"], values["store_timeout"] / 1000
    if isinstance(store, str):
        store = open_store(store, realm=values["realm"], timeout=timeout)
    elif isinstance(store, StoreSource) and not isinstance(store, type):
        store = store.open(realm=values["realm"], timeout=timeout)
    elif isinstance(store, type) or not isinstance(store, Store):
        raise ConfigurationError(
            "store= expects a URL or an object with load, create, save, touch, delete and purge, "
            f"found {store!r}"
        )
    elif isinstance(store, SupportsTimeout):
        store.set_timeout(timeout)
    if limit is not None and not isinstance(store, SupportsUserIndex):
        raise ConfigurationError(
            f"max_sessions needs a store with an index of users, found {store!r}; use one with "
            "an index, such as sqlite:/// or memory://, or leave max_sessions out"
        )
    if values["encrypt"] and value_check(store) is not None:
        raise ConfigurationError(
            f"encrypt={values['encrypt']!r} needs a store that holds bytes, and {store!r} holds "
            "values that other programs can read; leave encrypt out, or use another store or "
            "CallbackStore(format='bytes')"
        )
    if values["near_cache"] is not None:
        _check_near_cache_store(store)
    if values["history"] is not None and not isinstance(store, SupportsHistory):
        raise ConfigurationError(
            f"history needs a store with a history of ended sessions, and {store!r} has "
            "none; use one with a history, such as sqlite:///, redis:// or postgresql://, or leave "
            "history out"
        )
    return store


# --- Rules between the options about time: milliseconds, None for no limit


def _policy(given: Mapping[str, Any]) -> Policy:
    preset = given.get("preset")
    maximum = None if preset is None else PRESETS[preset]
    authenticated = _limits(
        given,
        "timeout",
        "absolute_timeout",
        maximum or Limits(_default("timeout"), _default("absolute_timeout")),
    )
    anonymous = _limits(
        given,
        "anonymous_timeout",
        "anonymous_absolute_timeout",
        authenticated,
        inherited="absolute_timeout",
    )
    remembered = _limits(
        given,
        "remember_timeout",
        "remember_absolute_timeout",
        maximum
        or _longest(
            Limits(_default("remember_timeout"), _default("remember_absolute_timeout")),
            authenticated,
        ),
    )
    if preset is not None and maximum is not None:
        _check_within_preset(maximum, authenticated, ("timeout", "absolute_timeout"), preset)
        _check_within_preset(
            maximum, remembered, ("remember_timeout", "remember_absolute_timeout"), preset
        )
    shortest = min(authenticated.idle_timeout, anonymous.idle_timeout)
    return Policy(
        authenticated,
        anonymous,
        remembered,
        _touch_interval(given.get("touch_interval"), shortest),
        given.get("unconfirmed_timeout"),
        given.get("rotate_interval"),
    )


def _limits(
    given: Mapping[str, Any],
    idle_name: str,
    absolute_name: str,
    default: Limits,
    *,
    inherited: str = "",
) -> Limits:
    """Return the limits of one kind of session.

    If only one of the two options is given, the default of the other gives way: "14 days" of
    inactivity need a lifetime of 14 days, and a lifetime of 5 minutes bounds the inactivity.

    Args:
        given: the options that were given.
        idle_name: the option for the inactivity.
        absolute_name: the option for the lifetime.
        default: of the options that were not given.
        inherited: the option that ``default`` takes the lifetime from; it stands if it was given.
    """
    idle = given.get(idle_name, default.idle_timeout)
    absolute = given.get(absolute_name, default.absolute_timeout)
    if absolute is None or idle <= absolute:
        return Limits(idle, absolute)
    if idle_name not in given:
        return Limits(absolute, absolute)
    if absolute_name not in given and inherited not in given:
        return Limits(idle, idle)
    raise ConfigurationError(
        f"{absolute_name} ({absolute} ms) must not be shorter than {idle_name} ({idle} ms): "
        f"a session would end before it can become idle; give a longer {absolute_name}=, or "
        "None for no such limit"
    )


def _check_within_preset(
    maximum: Limits, found: Limits, names: tuple[str, str], preset: str
) -> None:
    """Reject limits beyond those of a preset; ``names`` are the idle and the absolute option."""
    if found.idle_timeout > maximum.idle_timeout:
        raise ConfigurationError(
            f"preset={preset!r} allows no {names[0]} beyond {maximum.idle_timeout} ms, found "
            f"{found.idle_timeout}; leave one of the two out"
        )
    limit = maximum.absolute_timeout
    if limit is not None and (found.absolute_timeout is None or found.absolute_timeout > limit):
        raise ConfigurationError(
            f"preset={preset!r} allows no {names[1]} beyond {limit} ms, found "
            f"{found.absolute_timeout or 'none'}; leave one of the two out"
        )


def _longest(one: Limits, other: Limits) -> Limits:
    """Return limits that are nowhere shorter than either: "remember me" never shortens."""
    absolute = (
        None
        if one.absolute_timeout is None or other.absolute_timeout is None
        else max(one.absolute_timeout, other.absolute_timeout)
    )
    return Limits(max(one.idle_timeout, other.idle_timeout), absolute)


def _touch_interval(given: int | None, idle_timeout: int) -> int:
    if given is None:
        return max(1, min(idle_timeout // 10, _MAX_TOUCH_INTERVAL))
    if given >= idle_timeout:
        raise ConfigurationError(
            f"touch_interval ({given} ms) must be shorter than timeout ({idle_timeout} ms), or "
            "active visitors would be logged out; leave it out for a tenth of the timeout"
        )
    return given
