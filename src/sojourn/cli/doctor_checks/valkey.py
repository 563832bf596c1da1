"""Checks of Valkey or Redis servers: version, eviction, persistence, role, user, cluster."""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Iterator
from typing import Any, Final, cast
from urllib.parse import urlsplit

from sojourn.cli.doctor_checks import sentinel
from sojourn.cli.doctor_checks.connection import (
    CERTIFICATE,
    DATABASE,
    FAILING,
    LOGIN,
    TLS,
    TLS_EXPECTED,
    UNREACHABLE,
    UNUSABLE,
)
from sojourn.cli.doctor_checks.context import CheckContext
from sojourn.cli.doctor_checks.findings import Finding, Problem, error, info, warning
from sojourn.errors import ConfigurationError
from sojourn.record import ID_BYTES
from sojourn.stores.redis.connection import DEFAULT_PORT, Line
from sojourn.stores.redis.errors import ConnectionLost, ServerError, has_code
from sojourn.stores.redis.inspection import Inspector, Primary
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.scripts import FINGERPRINT_BYTES, FINGERPRINTS_FORMAT
from sojourn.stores.redis.server_checks import server_version, unsupported_version
from sojourn.stores.redis.store import RedisStore
from sojourn.stores.urls import without_password

VERSION: Final = error(
    "valkey-version",
    "Valkey 7.2 or newer, or Redis 6.2 or newer",
    "upgrade the server: the replica first, then fail over",
)
EVICTION: Final = error(
    "valkey-eviction",
    "maxmemory-policy noeviction: every other policy drops sessions when memory is full, and the "
    "cutoffs that keep revoked sessions out",
    "`CONFIG SET maxmemory-policy noeviction` and the same in the configuration file; give caches "
    "a server of their own",
)
LATENT_EVICTION: Final = warning(
    "valkey-eviction-latent",
    "maxmemory-policy noeviction, also while there is no maxmemory",
    "`CONFIG SET maxmemory-policy noeviction`, before a limit is set",
)
MEMORY: Final = error(
    "valkey-memory",
    "less than 90 % of maxmemory in use: a full server rejects new sessions and changes",
    "raise maxmemory, shorten the timeouts, or move other data to another server",
)
PERSISTENCE: Final = error(
    "valkey-persistence",
    "persistence (appendonly yes, or save): without it a restart of the server ends every session "
    "and loses every revocation",
    "`CONFIG SET appendonly yes` and the same in the configuration file; if sessions may be "
    "lost, leave it out with --ignore valkey-persistence",
)
DISK: Final = error(
    "valkey-disk",
    "a server that writes its data to the disk",
    "see the log of the server: its disk is full, or the folder is not writable",
)
REPLICA: Final = error(
    "valkey-replica",
    "a primary, because a replica is read-only",
    "give the address of the primary, or use redis+sentinel:// or redis+cluster://",
)
COMMANDS: Final = error(
    "valkey-acl",
    "an ACL user with the commands and keys of docs/valkey.md",
    "extend the user with ACL SETUSER as docs/valkey.md says; the server's ACL LOG names what it "
    "refused",
)
HISTORY: Final = warning(
    "valkey-acl-history",
    "an ACL user with the commands of docs/valkey.md for streams, which the option history needs",
    "ACL SETUSER … +xadd +xrange +xrevrange +xdel; without the option history leave it out with "
    "--ignore valkey-acl-history",
)
PUBSUB: Final = error(
    "valkey-pubsub",
    "an ACL user that may publish and subscribe on the channels of the prefix; without it "
    "revocations reach open connections late",
    "add the channels of the prefix and the commands to the ACL user: ACL SETUSER … "
    "resetchannels &sojourn:* +publish +subscribe +unsubscribe, in a cluster also +spublish "
    "+ssubscribe +sunsubscribe",
)
SLOTS: Final = error(
    "valkey-slots",
    "a cluster whose 16384 slots are all served by primaries",
    "bring the failed nodes back, or `valkey-cli --cluster fix`",
)
REPLICAS: Final = warning(
    "valkey-replica-missing",
    "behind Sentinels and in a cluster, a connected replica of each primary: otherwise the failure "
    "of one server ends its sessions",
    "start the replica, or add one; for a server that is gone for good `SENTINEL RESET`, in a "
    "cluster `CLUSTER FORGET`",
)
CLOCKS: Final = warning(
    "valkey-clocks",
    "primaries of a cluster whose clocks differ by less than 5 seconds: each expires its own "
    "records",
    "synchronize the clocks of the servers with NTP: `timedatectl set-ntp true`",
)
NO_CLUSTER: Final = error(
    "valkey-no-cluster",
    "a cluster, as redis+cluster:// in the URL says",
    "write redis:// for a single server; existing sessions have other keys in a cluster",
)
IS_CLUSTER: Final = error(
    "valkey-is-cluster",
    "a single server, as redis:// in the URL says",
    "write redis+cluster:// and name some of its nodes",
)
IS_SENTINEL: Final = error(
    "valkey-is-sentinel",
    "a server that stores data, as redis:// in the URL says",
    "write redis+sentinel://host:26379/service with the addresses of the Sentinels",
)
UNKNOWN: Final = info(
    "valkey-unknown",
    "a user that may call INFO and CONFIG GET, so that the settings can be examined",
    "run the doctor once as an administrator, or check maxmemory-policy, appendonly and save in "
    "the console of the provider",
)

PROBLEMS: Final = (
    *(VERSION, EVICTION, LATENT_EVICTION, MEMORY, PERSISTENCE, DISK, REPLICA, COMMANDS, HISTORY),
    *(PUBSUB, SLOTS, REPLICAS, CLOCKS, NO_CLUSTER, IS_CLUSTER, IS_SENTINEL, UNKNOWN),
    *sentinel.PROBLEMS,
)

_SENTINEL_REMEDY: Final = (
    "correct the name of the service, or start its primary: `SENTINEL MASTERS` lists them; for a "
    "server without Sentinels write redis://"
)

#: The part of maxmemory that may be in use.
_MAX_MEMORY_USE: Final = 0.9

_SLOTS: Final = 16_384

#: Milliseconds.
_MAX_CLOCK_DIFFERENCE: Final = 5_000


def reach(context: CheckContext) -> Iterator[Finding]:
    """Connect to the server."""
    store = cast("RedisStore", context.store)
    try:
        inspector = Inspector(store, context.timeout)
        context.inspector = inspector
        fields = context.run(inspector.connect())
    except (ConnectionLost, ServerError) as failure:
        yield _connect_finding(context, failure)
        if context.inspector is not None:
            yield from check_sentinels(context)
        context.block("the server was not reached")
        return
    except ConfigurationError as failure:
        yield UNUSABLE.finding(str(failure))
        context.block("the store cannot be used here")
        return
    context.is_reached = True
    context.server = server_version(fields)
    if fields.get("redis_mode") == "sentinel" or fields.get("server_mode") == "sentinel":
        yield IS_SENTINEL.finding(f"{store!r} is a Sentinel")
        context.block("a Sentinel has no data")
        return
    if fields.get("cluster_enabled") == "1" and not inspector.is_cluster:
        yield IS_CLUSTER.finding(f"{store!r} is a node of a cluster")
        context.block("the URL is not that of a cluster")


def _connect_finding(context: CheckContext, failure: Exception) -> Finding:
    text = f"{context.store!r}: {failure}"
    causes = list(_causes(failure))
    kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    everything = " ".join(map(str, causes))
    if has_code(failure, "WRONGPASS", "NOAUTH") or "AuthenticationError" in kinds:
        return LOGIN.finding(text)
    if has_code(failure, "NOPERM") or "NoPermissionError" in kinds:
        return COMMANDS.finding(text)
    if "DB index" in everything:
        return DATABASE.finding(text)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return CERTIFICATE.finding(text)
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return TLS.finding(text)
    if "not covered" in everything:
        return SLOTS.finding(text)
    if "luster mode is not enabled" in everything or "cluster support disabled" in everything:
        return NO_CLUSTER.finding(text)
    if "No master found" in everything or "unknown command 'SENTINEL'" in everything:
        return UNREACHABLE.finding(text, remedy=_SENTINEL_REMEDY)
    if isinstance(failure, ServerError):
        return FAILING.finding(text)
    return (_tls_mismatch(context) or UNREACHABLE).finding(text)


def _tls_mismatch(context: CheckContext) -> Problem | None:
    """Return whether the first server of the URL answers only with the opposite use of TLS."""
    parts = urlsplit(without_password(context.url or ""))
    if not parts.netloc:  # the store of an application, or a Unix socket
        return None
    first = parts.netloc.rpartition("@")[2].partition(",")[0]
    try:
        address = urlsplit(f"//{first}")
        host, port = address.hostname or "localhost", address.port or DEFAULT_PORT
        with socket.create_connection((host, port), context.timeout) as plain:
            if parts.scheme.startswith("rediss"):
                plain.sendall(b"PING\r\n")
                return TLS if plain.recv(1) in (b"+", b"-") else None
            tls = ssl.create_default_context()
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE  # nothing is sent
            with tls.wrap_socket(plain):
                return TLS_EXPECTED
    except (OSError, ValueError):
        return None


def _causes(failure: BaseException | None) -> Iterator[BaseException]:
    while failure is not None:
        yield failure
        failure = failure.__cause__ or failure.__context__


def check_cluster(context: CheckContext) -> Iterator[Finding]:
    """Examine whether a cluster serves all slots."""
    inspector = cast("Inspector", context.inspector)
    if not inspector.is_cluster:
        return
    try:
        ranges = context.run(inspector.slot_ranges())
    except ServerError as failure:
        yield COMMANDS.finding(f"CLUSTER SLOTS: {failure}")
        return
    covered = sum(each.end - each.start + 1 for each in ranges)
    if covered < _SLOTS:
        yield SLOTS.finding(f"{_SLOTS - covered} of {_SLOTS} slots have no primary")
        context.block("slots of the cluster are not served")


def check_sentinels(context: CheckContext) -> Iterator[Finding]:
    """Query each Sentinel for the service."""
    inspector = cast("Inspector", context.inspector)
    if inspector.has_sentinels:
        yield from sentinel.check_answers(inspector.sentinels)


def check_servers(context: CheckContext) -> Iterator[Finding]:
    """Examine INFO of each primary: version, role, memory, eviction, persistence."""
    inspector = cast("Inspector", context.inspector)
    primaries = _primaries(context)
    if not primaries:
        yield UNKNOWN.finding("the user may not call INFO")
    for primary in primaries:
        where = f"{primary.address}: " if primary.address else ""
        yield from _check_info(primary.info, where)
        if primary.info.get("role") == "slave":
            context.block("the server is a read-only replica")
        if primary.info.get("aof_enabled") == "0":
            yield from _check_save(context, inspector, primary, where)


def _primaries(context: CheckContext) -> list[Primary]:
    """Return the primaries whose INFO the user may read."""
    inspector = cast("Inspector", context.inspector)
    ranges = context.run(inspector.slot_ranges()) if inspector.is_cluster else ()
    return context.run(inspector.primaries(ranges))


def check_replicas(context: CheckContext) -> Iterator[Finding]:
    """Look for a connected replica of each primary, and for nodes that have failed."""
    inspector = cast("Inspector", context.inspector)
    if not (inspector.is_cluster or inspector.has_sentinels):
        return  # the operator's choice
    found = []
    for primary in _primaries(context):
        if not (connected := _connected_replicas(primary.info)):
            found.append(f"{primary.address or 'the primary'} has no connected replica")
        elif inspector.has_sentinels:
            known = max(answer.replicas for answer in inspector.sentinels)
            if known > connected:
                found.append(f"the Sentinels list {known} replicas, {connected} of them connected")
    if inspector.is_cluster and (failed := context.run(inspector.failed_nodes())):
        found.append(f"failed nodes: {', '.join(failed)}")
    if found:
        yield REPLICAS.finding("; ".join(found))


def _connected_replicas(info: dict[str, str]) -> int:
    """Return the number of replicas that have the data of a primary, by its INFO."""
    replicas = [
        value
        for name, value in info.items()
        if name.startswith("slave") and name.removeprefix("slave").isdecimal()
    ]
    return sum("state=online" in value for value in replicas)


def check_clocks(context: CheckContext) -> Iterator[Finding]:
    """Compare the clocks of the primaries of a cluster with each other."""
    inspector = cast("Inspector", context.inspector)
    if not inspector.is_cluster:
        return
    times = context.run(inspector.times(_primaries(context)))
    if not times:
        return
    (slowest, late), (fastest, early) = min(times), max(times)
    if fastest - slowest >= _MAX_CLOCK_DIFFERENCE:
        yield CLOCKS.finding(
            f"the clock of {early} is {(fastest - slowest) / 1000:.1f} s ahead of that of {late}"
        )


def _check_info(fields: dict[str, str], where: str) -> Iterator[Finding]:
    if unsupported_version(fields) is not None:
        yield VERSION.finding(f"{where}{server_version(fields)}")
    policy, limit = fields.get("maxmemory_policy", ""), _number(fields, "maxmemory")
    if policy not in ("", "noeviction"):
        problem = EVICTION if limit else LATENT_EVICTION
        yield problem.finding(f"{where}maxmemory-policy {policy}, maxmemory {limit}")
    used = _number(fields, "used_memory")
    if limit and used > _MAX_MEMORY_USE * limit:
        yield MEMORY.finding(f"{where}{used:,} of {limit:,} bytes are in use")
    if fields.get("role") == "slave":
        yield REPLICA.finding(
            f"{where}a replica of {fields.get('master_host')}:{fields.get('master_port')}"
        )
    for name in ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status"):
        if fields.get(name, "ok") != "ok":
            yield DISK.finding(f"{where}{name} is {fields[name]!r}")


def _number(fields: dict[str, str], name: str) -> int:
    """Return a field of INFO; 0 if a provider leaves it out or replaces it."""
    text = fields.get(name, "")
    return int(text) if text.isdecimal() else 0


def _check_save(
    context: CheckContext, inspector: Inspector, primary: Primary, where: str
) -> Iterator[Finding]:
    """Examine whether a server without an append-only file saves snapshots."""
    (reply,) = context.run(inspector.call(("CONFIG", "GET", "save"), keys=[primary.key]))
    if isinstance(reply, ConnectionLost):
        raise reply
    if isinstance(reply, Exception):
        yield UNKNOWN.finding(
            f"{where}appendonly is off, and CONFIG GET save is not permitted: {reply}"
        )
    elif isinstance(reply, list) and reply[1:] == [b""]:
        yield PERSISTENCE.finding(f"{where}appendonly no, and no save: all data is in memory only")


def check_user(context: CheckContext) -> Iterator[Finding]:
    """Call each command that sessions need on keys and channels that do not exist."""
    inspector = cast("Inspector", context.inspector)
    names, lines, keys = zip(*_commands_without_effect(inspector.keys), strict=True)
    replies = context.run(inspector.call(*lines, keys=keys))
    refused = [
        (name, str(reply))
        for name, reply in zip(names, replies, strict=True)
        if has_code(reply, "NOPERM") or "NOPERM" in str(reply)
    ]
    publishing = {"publish", "spublish"}
    for name, reply in refused:
        if name in publishing:
            yield PUBSUB.finding(f"{name.upper()}: {reply}")
    denied = {name: reply for name, reply in refused if name not in publishing}
    if denied:
        reply = next(iter(denied.values()))
        text = f"refused: {', '.join(denied)}; {reply}"
        has_history = context.config is not None and context.config.history is not None
        if has_history or not denied.keys() <= _ON_STREAMS.keys():
            yield COMMANDS.finding(text)
            context.block("the user lacks commands or keys")
        elif context.config is None:
            yield HISTORY.finding(text)
    try:
        refusal = inspector.subscribe(inspector.keys.events)
    except ConfigurationError:  # an asyncio client, which cannot subscribe
        return
    if refusal is not None:
        yield PUBSUB.finding(f"SUBSCRIBE: {refusal}")
    if inspector.is_cluster:
        # A permitted command is redirected, if the slot is that of another node.
        channel = inspector.keys.channel(secrets.token_bytes(ID_BYTES))
        refusal = inspector.subscribe(channel, "SSUBSCRIBE")
        if has_code(refusal, "NOPERM"):
            yield PUBSUB.finding(f"SSUBSCRIBE: {refusal}")


def _commands_without_effect(keys: Keys) -> Iterator[tuple[str, Line, str]]:
    """Yield names, commands without effect, and the key of each."""
    session_id = secrets.token_bytes(ID_BYTES)
    record, channel = keys.record(session_id), keys.channel(session_id)
    index = keys.index(secrets.token_bytes(ID_BYTES)).entries
    for name, arguments in _ON_RECORDS.items():
        yield name, (name.upper(), record, *arguments), record
    for name, arguments in _ON_INDEXES.items():
        yield name, (name.upper(), index, *arguments), index
    for name, arguments in _ON_STREAMS.items():
        yield name, (name.upper(), index, *arguments), index
    yield "set", ("SET", record, "", "XX"), record  # changes an existing key only
    yield "zadd", ("ZADD", index, "XX", 0, "-"), index
    yield "eval", ("EVAL", "return 0", 1, record), record
    yield "evalsha", ("EVALSHA", "0" * 40, 1, record), record
    yield "time", ("TIME",), keys.events
    # Messages that no process can decode and no session waits for.
    yield "publish", ("PUBLISH", keys.events, ""), record
    if keys.is_cluster:
        yield "spublish", ("SPUBLISH", channel, ""), channel


_ON_RECORDS: Final[dict[str, tuple[Any, ...]]] = {
    "get": (),
    "mget": (),
    "del": (),
    "exists": (),
    "pttl": (),
    "pexpire": (1000,),
    "getrange": (0, 1),
    "setrange": (0, ""),
}

_ON_INDEXES: Final[dict[str, tuple[Any, ...]]] = {
    "zcard": (),
    "zrandmember": (),
    "zscore": ("-",),
    "zrange": (0, 0),
    "zrem": ("-",),
}

_ON_STREAMS: Final[dict[str, tuple[Any, ...]]] = {
    "xadd": ("NOMKSTREAM", "*", "e", ""),  # adds to an existing stream only
    "xrange": ("-", "+", "COUNT", 1),
    "xrevrange": ("+", "-", "COUNT", 1),
    "xdel": ("0-1",),
}


def check_keys(context: CheckContext) -> Iterator[Finding]:
    """Read the key fingerprints of the realm."""
    inspector = cast("Inspector", context.inspector)
    key = inspector.keys.fingerprints
    (stored,) = context.run(inspector.call(("GET", key), keys=[key]))
    if stored is None:
        context.fingerprints = frozenset()
    elif isinstance(stored, bytes) and stored[:1] == bytes([FINGERPRINTS_FORMAT]):
        context.fingerprints = frozenset(
            stored[at : at + FINGERPRINT_BYTES] for at in range(1, len(stored), FINGERPRINT_BYTES)
        )
    yield from ()


CHECKS: Final = (
    ("cluster", check_cluster),
    ("Sentinels", check_sentinels),
    ("server settings", check_servers),
    ("replicas", check_replicas),
    ("clocks of the cluster", check_clocks),
    ("user", check_user),
    ("key fingerprints", check_keys),
)
