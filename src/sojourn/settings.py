"""Settings: what a developer may ask for, checked once.

What lives here: the options of ``install`` and ``Sessions`` (one definition for both, for the docs
and for type checkers), their defaults, and the environment. What must not: how an option works; the
room concerned checks its own (``web/cookies.py``, ``_core/policy.py``, ``secret.py``).

The table in ``docs/options.md`` is compared with ``Options`` by a test, in both directions.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypedDict, get_args

from sojourn._core.limits import UNSET, build_policy
from sojourn._core.operations import Merge
from sojourn._core.policy import Duration, Policy, milliseconds
from sojourn._core.typed_state import StateSpec
from sojourn._crypto.encryption import Encrypt, check_encrypt
from sojourn._crypto.secret_key import check
from sojourn.audit import Audit, Sink
from sojourn.checks import flag, function, one_of, positive, seconds, text, texts
from sojourn.errors import ConfigurationError
from sojourn.store import LimitPolicy, SessionLimit, Store, SupportsTimeout, SupportsUserIndex
from sojourn.stores.urls import open_store
from sojourn.web.clear_site_data import ClearSiteData
from sojourn.web.cookies import CookieSettings
from sojourn.web.lifecycle import OnStoreFailure, Rules
from sojourn.web.origin import validate
from sojourn.web.paths import Patterns
from sojourn.web.transport import validate_origins

DEFAULT_STORE: Final = "sqlite:///.sojourn/sessions.db"

#: Labels that ``check_labels`` may name: those that a request brings.
CLIENT_LABELS: Final = frozenset({"address", "browser"})

#: Letters; a realm becomes part of keys and of the names of tables.
_MAX_REALM: Final = 32

#: The largest ``max_sessions``: whoever wants more wants none.
MOST_SESSIONS: Final = 1_000_000

#: The options about time, besides the two names of the first.
_TIMES: Final = (
    "absolute_timeout",
    "anonymous_timeout",
    "anonymous_absolute_timeout",
    "remember_timeout",
    "remember_absolute_timeout",
    "touch_interval",
    "unconfirmed_timeout",
    "rotate_interval",
    "preset",
)

#: Those of them for which None is no answer: there is no session without an idle timeout.
_NEVER_NONE: Final = (
    "timeout",
    "idle_timeout",
    "anonymous_timeout",
    "remember_timeout",
    "touch_interval",
)

SameSite = Literal["lax", "strict", "none", "Lax", "Strict", "None"]


class Options(TypedDict, total=False):
    """The options of ``sojourn.install`` and ``sojourn.Sessions``; ``docs/options.md`` has each.

    ``state`` is missing here: it is a parameter of its own, because it decides a type.
    """

    store: str | Store
    secret: str | bytes | Sequence[str | bytes]
    cookie: str
    secure: bool | Literal["auto"]
    same_site: SameSite
    path: str
    domain: str
    partitioned: bool
    persistent: bool
    timeout: Duration
    idle_timeout: Duration
    absolute_timeout: Duration | None
    anonymous_timeout: Duration
    anonymous_absolute_timeout: Duration | None
    remember_timeout: Duration
    remember_absolute_timeout: Duration | None
    preset: Literal["aal1", "aal2", "aal3"]
    touch_interval: Duration
    unconfirmed_timeout: Duration | None
    rotate_interval: Duration | None
    on_reuse: Literal["revoke", "ignore"]
    max_sessions: int | None
    on_limit: Literal["evict_oldest", "evict_idlest", "refuse"]
    encrypt: Literal[False, True, "ticket"]
    merge: Mapping[str, str]
    max_bytes: int
    store_timeout: Duration
    recheck_interval: Duration
    on_store_failure: OnStoreFailure | Sequence[str]
    save_on_error: bool
    realm: str
    allowed_origins: Collection[str]
    protect: bool
    clear_site_data: Sequence[str]
    audit: Sink
    passive: Sequence[str]
    include: Sequence[str]
    exclude: Sequence[str]
    autoload: bool
    check_labels: Sequence[str]
    clock: Callable[[], int]


#: What applies where an option is not given; None where it follows from others.
DEFAULTS: Final[Mapping[str, Any]] = {
    "store": None,
    "secret": None,
    "cookie": None,
    "secure": "auto",
    "same_site": "lax",
    "path": "/",
    "domain": None,
    "partitioned": False,
    "persistent": False,
    "timeout": None,
    "idle_timeout": None,
    "absolute_timeout": UNSET,
    "anonymous_timeout": None,
    "anonymous_absolute_timeout": UNSET,
    "remember_timeout": None,
    "remember_absolute_timeout": UNSET,
    "preset": None,
    "touch_interval": None,
    "unconfirmed_timeout": None,
    "rotate_interval": None,
    "on_reuse": "revoke",
    "max_sessions": None,
    "on_limit": "evict_oldest",
    "encrypt": False,
    "merge": {},
    "max_bytes": 65_536,
    "store_timeout": 2,
    "recheck_interval": 30,
    "on_store_failure": "error",
    "save_on_error": False,
    "realm": "default",
    "allowed_origins": (),
    "protect": False,
    "clear_site_data": (),
    "audit": None,
    "passive": (),
    "include": (),
    "exclude": (),
    "autoload": True,
    "check_labels": (),
    "clock": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options after all checks, in the forms that the rooms work with.

    Attributes:
        secrets: newest first, as given or found in the environment; None where one must be made.
    """

    store: Store
    store_name: str
    secrets: tuple[bytes, ...] | None = field(repr=False)
    policy: Policy
    rules: Rules
    merges: Mapping[str, Merge]
    state: StateSpec
    max_bytes: int
    realm: str
    check_labels: tuple[str, ...]
    clock: Callable[[], int] | None
    limit: SessionLimit | None
    encrypt: Encrypt
    revoke_reused: bool
    audit: Audit | None


def resolve(
    options: Options, state: type | None, environment: Mapping[str, str] = os.environ
) -> Settings:
    """Check options and fill in the environment's and the defaults.

    Args:
        options: keywords of ``install`` or ``Sessions``.
        state: the class for ``session.state``, None for none.
        environment: where ``SOJOURN_STORE`` and ``SOJOURN_SECRET`` are looked for.

    Raises:
        ConfigurationError: an option is unknown, has a wrong value, or contradicts another.
    """
    for name in options:
        if name not in DEFAULTS:
            raise ConfigurationError(_unknown(name))
    if "timeout" in options and "idle_timeout" in options:
        raise ConfigurationError("timeout and idle_timeout are two names of one option; give one")
    chosen: dict[str, Any] = {**DEFAULTS, **options}
    for name in _NEVER_NONE:
        if name in options:
            milliseconds(chosen[name], option=name)
    realm = _realm(chosen["realm"])
    store = chosen["store"]
    if store is None:
        store = environment.get("SOJOURN_STORE") or DEFAULT_STORE
    deadline = seconds(chosen, "store_timeout")
    secret, source = chosen["secret"], "secret="
    if secret is None and environment.get("SOJOURN_SECRET"):
        secret, source = _split(environment["SOJOURN_SECRET"]), "SOJOURN_SECRET"
    spec = StateSpec(state)
    cookie = CookieSettings(
        name=text(chosen, "cookie"),
        secure=chosen["secure"],
        same_site=chosen["same_site"],
        path="/" if chosen["path"] is None else text(chosen, "path") or "",
        domain=text(chosen, "domain"),
        partitioned=flag(chosen, "partitioned"),
        persistent=flag(chosen, "persistent"),
    )
    policy = build_policy(
        timeout=chosen["timeout" if chosen["idle_timeout"] is None else "idle_timeout"],
        **{name: chosen[name] for name in _TIMES},
    )
    origins = validate_origins(_origins(chosen["allowed_origins"]))
    limit = _limit(chosen["max_sessions"], chosen["on_limit"])
    clock = function(chosen["clock"])
    return Settings(
        secrets=None if secret is None else check(secret, source=source),
        policy=policy,
        rules=Rules(
            cookie=cookie,
            patterns=Patterns(texts(chosen, "include"), texts(chosen, "exclude")),
            autoload=flag(chosen, "autoload"),
            save_on_error=flag(chosen, "save_on_error"),
            allowed_origins=origins,
            protect=validate(protect=flag(chosen, "protect"), allowed_origins=origins),
            passive=_passive(texts(chosen, "passive")),
            clear_site_data=ClearSiteData(texts(chosen, "clear_site_data")),
            recheck_interval=seconds(chosen, "recheck_interval"),
            anonymous=_anonymous(chosen),
        ),
        merges={**spec.merges, **_merges(chosen["merge"])},
        state=spec,
        max_bytes=positive(chosen["max_bytes"], "max_bytes"),
        realm=realm,
        check_labels=_labels(texts(chosen, "check_labels")),
        clock=clock,
        limit=limit,
        encrypt=check_encrypt(chosen["encrypt"]),
        revoke_reused=one_of(chosen, "on_reuse", ("revoke", "ignore")) == "revoke",
        # Last, because they may make files and threads, which a wrong option above must not.
        audit=_audit(chosen["audit"], clock),
        store=_listing(_open(store, realm, deadline), limit),
        store_name=store.split("://")[0] + "://" if isinstance(store, str) else repr(store),
    )


def _split(text: str) -> list[str]:
    """Return the secrets in the environment's one text: commas separate, spaces may be inside."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, list(DEFAULTS), n=1)
    hint = f". Did you mean {close[0]!r}?" if close else f"; known are {', '.join(DEFAULTS)}"
    return f"there is no option {name!r}{hint}"


def _open(store: object, realm: str, deadline: float) -> Store:
    if isinstance(store, str):
        return open_store(store, realm=realm, timeout=deadline)
    if isinstance(store, type) or not isinstance(store, Store):
        raise ConfigurationError(
            "store= expects a URL or an object with load, create, save, touch, delete and purge, "
            f"found {store!r}"
        )
    if isinstance(store, SupportsTimeout):
        store.set_timeout(deadline)
    return store


def _realm(value: Any) -> str:
    if (
        not isinstance(value, str)
        or not value.isascii()
        or not 1 <= len(value) <= _MAX_REALM
        or not value.replace("-", "").replace("_", "").isalnum()
    ):
        raise ConfigurationError(
            f"realm expects 1 to {_MAX_REALM} letters, digits, '-' and '_', found "
            f"{value!r}; it becomes part of keys and table names"
        )
    return value


def _merges(declared: Any) -> dict[str, Merge]:
    allowed = [merge.value for merge in Merge if merge is not Merge.EDIT]
    if not isinstance(declared, Mapping):
        raise ConfigurationError(f"merge expects a dict from key to rule, found {declared!r}")
    for key, rule in declared.items():
        if not isinstance(key, str):
            raise ConfigurationError(
                f"merge expects session keys, which are strings, found {key!r}"
            )
        if rule not in allowed:
            raise ConfigurationError(
                f"merge[{key!r}] expects one of {', '.join(allowed)}, found {rule!r}"
            )
    return {key: Merge(rule) for key, rule in declared.items()}


def _limit(most: Any, on_limit: Any) -> SessionLimit | None:
    evict = LimitPolicy(
        one_of({"on_limit": on_limit}, "on_limit", [each.value for each in LimitPolicy])
    )
    if most is None:
        return None
    return SessionLimit(positive(most, "max_sessions", most=MOST_SESSIONS), evict)


def _listing(store: Store, limit: SessionLimit | None) -> Store:
    if limit is not None and not isinstance(store, SupportsUserIndex):
        raise ConfigurationError(
            f"max_sessions needs a store that keeps lists of users, found {store!r}; use one that "
            "does, such as sqlite:/// or memory://, or leave max_sessions out"
        )
    return store


def _passive(paths: tuple[str, ...]) -> Patterns | None:
    return Patterns(paths, (), option="passive") if paths else None


def _anonymous(chosen: Mapping[str, Any]) -> Patterns | None:
    """Return the paths whose requests go on without the store."""
    name = "on_store_failure"
    if isinstance(chosen[name], str):
        how = one_of(chosen, name, get_args(OnStoreFailure))
        return Patterns((), ()) if how == "anonymous" else None
    return Patterns(paths, (), option=name) if (paths := texts(chosen, name)) else None


def _audit(sink: Any, clock: Callable[[], int] | None) -> Audit | None:
    if sink is None:
        return None
    return Audit(sink) if clock is None else Audit(sink, clock=clock)


def _origins(value: Any) -> Collection[str]:
    return (
        [value] if isinstance(value, str) else texts({"allowed_origins": value}, "allowed_origins")
    )


def _labels(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in CLIENT_LABELS:
            raise ConfigurationError(
                f"check_labels expects some of {', '.join(sorted(CLIENT_LABELS))}, found {name!r}"
            )
    return names
