"""Checks of a PostgreSQL server and of a pooler: version, role, durability, tables, connections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

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
from sojourn.cli.doctor_checks.findings import Finding, error, info, warning
from sojourn.errors import StoreError, StoreUnavailable
from sojourn.stores.postgresql.errors import ServerError
from sojourn.stores.postgresql.inspection import ConnectFailed, Inspector
from sojourn.stores.postgresql.store import PostgresStore

VERSION: Final = error(
    "postgresql-version",
    "PostgreSQL 14 or newer",
    "upgrade the server",
)
REPLICA: Final = error(
    "postgresql-replica",
    "a primary, because a replica is read-only",
    "give the address of the primary, or all hosts with ?target_session_attrs=read-write",
)
READ_ONLY: Final = error(
    "postgresql-read-only",
    "transactions that may write",
    "ALTER ROLE … RESET default_transaction_read_only, or the same for the database; a provider "
    "sets it when the disk is full",
)
NOT_DURABLE: Final = error(
    "postgresql-fsync",
    "fsync and full_page_writes on: without them a crash of the machine can damage all tables",
    "set both to on in postgresql.conf and reload; for less waiting use ?durability=relaxed",
)
ASYNCHRONOUS: Final = error(
    "postgresql-synchronous-commit",
    "synchronous_commit on with durability='durable': otherwise a crash of the server loses "
    "commits that were acknowledged, revocations too",
    "ALTER ROLE … SET synchronous_commit = on; or ?durability=relaxed, which waits for "
    "revocations and logins only",
)
STATEMENT_TIMEOUT: Final = warning(
    "postgresql-statement-timeout",
    "statement_timeout 0, or longer than store_timeout: the server cancels a purge, a list or a "
    "login otherwise",
    "ALTER ROLE … SET statement_timeout = '10s' for the user of the sessions",
)
CONNECTIONS: Final = error(
    "postgresql-connections",
    "at least 6 free connections: a process uses up to 5, and an administrator needs 1",
    "raise max_connections or the limit of the role or database, or put PgBouncer in front",
)
ABSENT: Final = error(
    "postgresql-schema-missing",
    "the tables of sojourn",
    "correct ?schema= in the URL; or start the application once, if its user may create tables; "
    "otherwise execute the output of `sojourn schema postgresql` as a user who may",
)
OLDER: Final = error(
    "postgresql-schema-older",
    "tables of the version of this release",
    "restart all processes with this release: the first one migrates the tables, if its user may; "
    "otherwise execute the migration as their owner",
)
NEWER: Final = error(
    "postgresql-schema-newer",
    "tables of the version of this release",
    "upgrade sojourn here, too: a newer release has migrated the tables",
)
PRIVILEGES: Final = error(
    "postgresql-privileges",
    "a user with SELECT, INSERT, UPDATE and DELETE on the tables, and USAGE on their schema",
    "GRANT USAGE ON SCHEMA … TO …; GRANT SELECT, INSERT, UPDATE, DELETE ON sojourn_sessions, "
    "sojourn_cutoffs, sojourn_keys, sojourn_history TO …; GRANT SELECT ON sojourn_schema TO …",
)
STATEMENT_MODE: Final = error(
    "pooler-statement-mode",
    "a pooler in session or transaction mode: a login is a transaction of several statements",
    "set pool_mode = transaction in pgbouncer.ini, at least for this database or user",
)
PREPARED: Final = error(
    "pooler-prepared-statements",
    "a pooler that supports prepared statements, or a store that does not use them",
    "add ?prepare_threshold=none to the URL; or PgBouncer 1.21 and max_prepared_statements = 200",
)
LISTEN: Final = error(
    "pooler-listen",
    "a direct connection to the server for broadcasts: a pooler does not deliver notifications",
    "add ?listen_url=postgresql://… with the address of the server itself (percent-encoded)",
)
POOLED: Final = info(
    "pooler-found",
    "settings of the pooler that fit; docs/postgresql.md lists them",
    "nothing, if no other finding names the pooler",
)

PROBLEMS: Final = (
    *(VERSION, REPLICA, READ_ONLY, NOT_DURABLE, ASYNCHRONOUS, STATEMENT_TIMEOUT, CONNECTIONS),
    *(ABSENT, OLDER, NEWER, PRIVILEGES, STATEMENT_MODE, PREPARED, LISTEN, POOLED),
)

#: The oldest supported ``server_version_num``.
_OLDEST: Final = 140_000

#: Connections that a process with open WebSockets uses (docs/postgresql.md), and one more.
_MIN_CONNECTIONS: Final = 6

_FREE_CONNECTIONS: Final = """
SELECT least(
    current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    (SELECT CASE WHEN datconnlimit < 0 THEN 2147483647 ELSE datconnlimit - (
        SELECT count(*) FROM pg_stat_activity AS activity
        WHERE activity.datname = current_database()) END
     FROM pg_database WHERE datname = current_database()),
    (SELECT CASE WHEN rolconnlimit < 0 THEN 2147483647 ELSE rolconnlimit - (
        SELECT count(*) FROM pg_stat_activity AS activity
        WHERE activity.usename = current_user) END
     FROM pg_roles WHERE rolname = current_user)
)
"""

#: Milliseconds; empty if it is off.
_STATEMENT_TIMEOUT: Final = (
    "SELECT setting::bigint FROM pg_settings WHERE name = 'statement_timeout'"
)


def reach(context: CheckContext) -> Iterator[Finding]:
    """Connect to the server, without the store, which would create its tables."""
    inspector = _open_inspector(context)
    try:
        inspector.connect()
        [(version, number)] = inspector.query(
            "SELECT current_setting('server_version'), current_setting('server_version_num')::int"
        )
    except ConnectFailed as failure:
        yield _connect_finding(context, failure)
        context.block("the server was not reached")
        return
    except StoreUnavailable as failure:
        yield UNREACHABLE.finding(f"{context.store!r}: {failure}")
        context.block("the server was not reached")
        return
    except StoreError as failure:
        yield UNUSABLE.finding(str(failure))
        context.block("the address of the server is unknown")
        return
    except ServerError as failure:
        yield FAILING.finding(f"{context.store!r}: {failure}")
        context.block("the server executes no query")
        return
    context.is_reached = True
    context.server = f"PostgreSQL {version.partition(' ')[0]}"
    if number < _OLDEST:
        yield VERSION.finding(context.server)


def _open_inspector(context: CheckContext) -> Inspector:
    inspector = Inspector(cast("PostgresStore", context.store), context.timeout)
    context.inspector = inspector
    return inspector


def _connect_finding(context: CheckContext, failure: ConnectFailed) -> Finding:
    # The messages of libpq and of a server in English; those of another language are not
    # distinguished. Messages of libpq itself come first.
    reason = str(failure).lower()
    text = f"{context.store!r}: {failure}"
    if "expected authentication request" in reason:
        return UNREACHABLE.finding(text, remedy="correct the port: it is that of another program")
    if "no encryption" in reason and "sslmode=disable" in (context.url or ""):
        return TLS_EXPECTED.finding(text)
    if "certificate" in reason and "hba" not in reason:
        return CERTIFICATE.finding(text)
    if "ssl" in reason and ("not support" in reason or "required" in reason):
        return TLS.finding(text)
    if "database" in reason and "does not exist" in reason:
        return DATABASE.finding(text)
    if "too many" in reason or "remaining connection slots" in reason:
        return CONNECTIONS.finding(text)
    if failure.needs_password or failure.used_password or "authentication" in reason:
        return LOGIN.finding(text)
    if "pg_hba.conf" in reason or ("role" in reason and "does not exist" in reason):
        return LOGIN.finding(text)
    return (FAILING if "fatal:" in reason else UNREACHABLE).finding(text)


def _inspector(context: CheckContext) -> Inspector:
    return cast("Inspector", context.inspector)


def check_role(context: CheckContext) -> Iterator[Finding]:
    """Examine whether the server and the user may write."""
    inspector = _inspector(context)
    if inspector.query("SELECT pg_is_in_recovery()") == [(True,)]:
        yield REPLICA.finding(f"{context.store!r} is in recovery, as a replica is")
        context.block("the server is a read-only replica")
    elif inspector.setting("transaction_read_only") == "on":
        yield READ_ONLY.finding("transactions are read-only")
        context.block("transactions are read-only")


def check_durability(context: CheckContext) -> Iterator[Finding]:
    """Examine what an acknowledged commit survives."""
    inspector = _inspector(context)
    off = [name for name in ("fsync", "full_page_writes") if inspector.setting(name) == "off"]
    if off:
        yield NOT_DURABLE.finding(f"off: {', '.join(off)}")
    commit = inspector.setting("synchronous_commit")
    if commit == "off" and not cast("PostgresStore", context.store).is_relaxed:
        yield ASYNCHRONOUS.finding("synchronous_commit off, and the store expects durable commits")


def check_limits(context: CheckContext) -> Iterator[Finding]:
    """Examine the limits of statements and connections."""
    inspector = _inspector(context)
    [(milliseconds,)] = inspector.query(_STATEMENT_TIMEOUT)
    if 0 < milliseconds < context.timeout * 1000:
        yield STATEMENT_TIMEOUT.finding(
            f"statement_timeout {milliseconds} ms, store_timeout {context.timeout:g} s"
        )
    [(free,)] = inspector.query(_FREE_CONNECTIONS)
    if free < _MIN_CONNECTIONS:
        yield CONNECTIONS.finding(f"{max(free, 0)} connections are free")


def check_tables(context: CheckContext) -> Iterator[Finding]:
    """Examine the tables; nothing is created or migrated."""
    tables = _inspector(context).tables()
    where = f"schema {tables.schema!r}" if tables.schema else "a schema that does not exist"
    if tables.missing:
        yield PRIVILEGES.finding(f"missing: {', '.join(tables.missing)}")
        context.block("the user lacks privileges")
    if tables.version is None:
        may = "may" if tables.may_create else "may not"
        yield ABSENT.finding(
            f"no tables, or no version of them, in {where}; the user {may} create them"
        )
        context.block("the tables do not exist")
    elif tables.version != tables.expected:
        problem = OLDER if tables.version < tables.expected else NEWER
        yield problem.finding(f"version {tables.version}, this release has {tables.expected}")
        context.block("the tables have another version")
    elif not tables.missing:
        context.fingerprints = _inspector(context).fingerprints(context.realm)


def check_pooler(context: CheckContext) -> Iterator[Finding]:
    """Examine a pooler between the store and the server."""
    inspector, store = _inspector(context), cast("PostgresStore", context.store)
    try:
        if inspector.listener_is_pooled():
            yield LISTEN.finding("a pooler answers on the connection that listens")
        if not inspector.is_pooled():
            return
        if not inspector.allows_transactions():
            yield STATEMENT_MODE.finding("the pooler rejects BEGIN")
            context.block("the pooler is in statement mode")
            return
        is_shared = inspector.shares_connections()
        mode = "transaction" if is_shared else "session"
        yield POOLED.finding(f"a pooler in {mode} mode answers instead of the server")
        if is_shared and store.prepares_statements and not inspector.keeps_prepared_statements():
            yield PREPARED.finding(
                "a statement that was prepared is unknown in a later transaction"
            )
    except ConnectFailed as failure:
        yield _connect_finding(context, failure)


CHECKS: Final = (
    ("role", check_role),
    ("durability", check_durability),
    ("limits", check_limits),
    ("tables", check_tables),
    ("pooler", check_pooler),
)
