"""Statements: the SQL of one realm's tables."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from sojourn.record import AUTHENTICATED_AT, CREATED_AT, TRANSIT_VERSION
from sojourn.store import LimitPolicy
from sojourn.stores.postgresql.encoding import (
    BIGINT,
    BIGINT_ARRAY,
    BYTEA,
    BYTEA_ARRAY,
    REAL,
    TEXT,
    TEXT_ARRAY,
)
from sojourn.stores.postgresql.schema import Schema

#: Byte ranges of two fields in an encoded record, which follow those of the instants.
_ABSOLUTE_AT: Final = slice(34, 42)
_IDLE_TIMEOUT: Final = slice(42, 50)

#: The expected version of a touch.
ANY_VERSION: Final = -1


class Statement:
    """A statement.

    Args:
        text, types: as below.
        formats: as below; None if all are binary.
        is_repeated: the text is constant, so that it can be prepared.

    Attributes:
        text: with parameters ``$1``, ``$2``.
        types: of the parameters, as object identifiers; 0 to derive one from the text.
        formats: of the parameters: 1 for binary, 0 for text.
        name: identifies the text among those of all releases; None if it is not prepared.
    """

    __slots__ = ("formats", "name", "text", "types")

    def __init__(
        self,
        text: str,
        types: Sequence[int],
        formats: Sequence[int] | None = None,
        *,
        is_repeated: bool = True,
    ) -> None:
        self.text: Final = text.encode()
        self.types: Final = tuple(types)
        self.formats: Final = (1,) * len(types) if formats is None else tuple(formats)
        self.name: Final = hashlib.sha256(self.text).hexdigest()[:12] if is_repeated else None


def _field(field: slice) -> str:
    return f"substring(session.record FROM {field.start + 1} FOR {field.stop - field.start})"


def _number(field: slice) -> str:
    return f"('x' || encode({_field(field)}, 'hex'))::bit(64)::bigint"


#: Usually there is no cutoff for all sessions; then the record is not examined.
_FRAGMENTS: Final = {
    "@valid": f"(@all_before IS NULL OR {_field(CREATED_AT)} >= @all_before)",
    "@all_before": (
        "(SELECT int8send(instant) FROM @cutoffs WHERE realm = $1 AND name = ''::bytea)"
    ),
    "@is_session": f"version > 0 AND version < {TRANSIT_VERSION}",
    "@authenticated_at": _field(AUTHENTICATED_AT),
    "@absolute_at": _number(_ABSOLUTE_AT),
    "@idle_timeout": _number(_IDLE_TIMEOUT),
}

_LOAD: Final = (
    "SELECT id, seen_at, record FROM @sessions AS session "
    "WHERE realm = $1 AND id = ANY($2) AND @valid"
)

_INSERT: Final = """
INSERT INTO @sessions (realm, id, version, seen_at, expires_at, user_key, idp_key, record)
SELECT $1, * FROM unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[],
                         $6::bytea[], $7::bytea[], $8::bytea[])
ON CONFLICT DO NOTHING
RETURNING id
"""

# The larger seen_at counts, and the expiry follows from it (law S6).
_SAVE: Final = """
UPDATE @sessions AS session
SET version = $8, seen_at = greatest(session.seen_at, $4),
    expires_at = least(greatest(session.seen_at, $4) + $5, $6), record = $7@settings
WHERE realm = $1 AND id = $2 AND version = $3 AND @valid
"""

# A touch takes the limits from the row.
_TOUCH: Final = """
UPDATE @sessions AS session
SET seen_at = greatest(session.seen_at, $3),
    expires_at = least(greatest(session.seen_at, $3) + @idle_timeout, @absolute_at)@settings
WHERE realm = $1 AND id = $2 AND @valid
"""

# Several saves are one transaction of as many statements. Measured for batches of 2, 8, 16 and 48:
# 29, 14, 11 and 9 us of the server for each save. One statement for all must lock the rows in an
# order first, and then find them a second time: 41, 17, 12 and 9 us. The cutoff of all sessions is
# read once, before the first one, instead of in each.
_PREPARE_UPDATES: Final = """
SELECT set_config('sojourn.all_before', coalesce(encode(@all_before, 'hex'), ''), true)@relax
"""
_VALID_IN_BATCH: Final = (
    "(current_setting('sojourn.all_before') = '' "
    f"OR {_field(CREATED_AT)} >= decode(current_setting('sojourn.all_before'), 'hex'))"
)

_DELETE: Final = """
WITH locked AS MATERIALIZED (
    SELECT id FROM @sessions AS session
    WHERE realm = $1 AND id = ANY($2) AND @valid
    ORDER BY id FOR UPDATE
)
DELETE FROM @sessions AS session USING locked
WHERE session.realm = $1 AND session.id = locked.id
RETURNING session.id
"""

# Outcomes: 's' saved, 'r' revoked, 'c' conflict, 'g' gone, 'l' limit reached. A session that all
# logins together exceed is one of `excess`; the statement before this one holds the locks of the
# names, so that no other login of them is in progress and this snapshot contains all of them.
_LOGIN: Final = """
WITH excess AS MATERIALIZED (
    SELECT id FROM @sessions AS session
    WHERE realm = $1 AND user_key = $8 AND id <> $2 AND expires_at > $13 AND $12 > 0 AND @valid
    ORDER BY @order DESC, id DESC OFFSET greatest($12 - 1, 0)
), locked AS MATERIALIZED (
    SELECT id, version, seen_at, record, @valid AS valid FROM @sessions AS session
    WHERE realm = $1 AND id = ANY(ARRAY(SELECT id FROM excess) || $2)
        AND (id = $2 OR user_key = $8)  -- unless another user has logged in to it meanwhile
    ORDER BY id FOR UPDATE
), own AS MATERIALIZED (
    SELECT * FROM locked WHERE id = $2
), outcome AS MATERIALIZED (
    SELECT CASE
        WHEN EXISTS (SELECT FROM @cutoffs
                     WHERE realm = $1 AND name = ANY(ARRAY[$8, $9]) AND instant > $11) THEN 'r'
        WHEN $3 > 0 AND NOT EXISTS (SELECT FROM own WHERE valid) THEN 'g'
        WHEN EXISTS (SELECT FROM own WHERE NOT valid) THEN 'g'
        WHEN EXISTS (SELECT FROM own WHERE $3 = 0 OR version <> $3) THEN 'c'
        WHEN @refuse AND EXISTS (SELECT FROM excess) THEN 'l'
        ELSE 's'
    END AS code
), inserted AS (
    INSERT INTO @sessions (realm, id, version, seen_at, expires_at, user_key, idp_key, record)
    SELECT $1, $2, $4, $5, least($5 + $6, $7), $8, $9, $10 FROM outcome
    WHERE code = 's' AND $3 = 0
    ON CONFLICT DO NOTHING RETURNING id
), updated AS (
    UPDATE @sessions AS session
    SET version = $4, seen_at = greatest(session.seen_at, $5),
        expires_at = least(greatest(session.seen_at, $5) + $6, $7),
        user_key = $8, idp_key = $9, record = $10
    FROM outcome
    WHERE code = 's' AND $3 > 0 AND session.realm = $1 AND session.id = $2
    RETURNING session.id
), written AS MATERIALIZED (
    SELECT id FROM inserted UNION ALL SELECT id FROM updated
), evicted AS (
    DELETE FROM @sessions AS session USING locked
    WHERE session.realm = $1 AND session.id = locked.id AND session.id <> $2
        AND EXISTS (SELECT FROM written)
    RETURNING session.id
)
SELECT code, EXISTS (SELECT FROM written), own.seen_at, CASE WHEN code = 'c' THEN own.record END,
    ARRAY(SELECT id FROM evicted)
FROM outcome LEFT JOIN own ON true
"""

_LOGIN_TYPES: Final = (
    *(TEXT, BYTEA, BIGINT, BIGINT, BIGINT, BIGINT, BIGINT),
    *(BYTEA, BYTEA, BYTEA, BIGINT, BIGINT, BIGINT),
)

#: The order in which the sessions of a user stay; the others are evicted.
_ORDERS: Final = {
    LimitPolicy.EVICT_OLDEST: "@authenticated_at",
    LimitPolicy.EVICT_IDLEST: "seen_at",
    LimitPolicy.REFUSE: "seen_at",
}

_LIST: Final = (
    "SELECT id, seen_at, record FROM @sessions AS session WHERE realm = $1 AND @column = $2 "
    "AND @valid ORDER BY @authenticated_at DESC, id DESC"
)

_LIST_PAGE: Final = (
    "SELECT id, seen_at, record FROM @sessions AS session WHERE realm = $1 AND id > $2 AND @valid "
    "ORDER BY id LIMIT $3"
)

_LIST_CUTOFFS: Final = (
    "SELECT name, instant FROM @cutoffs WHERE realm = $1 AND name > $2 ORDER BY name LIMIT $3"
)

_LOAD_ALL_CUTOFF: Final = "SELECT instant FROM @cutoffs WHERE realm = $1 AND name = ''::bytea"

_COUNT: Final = (
    "SELECT count(*) FROM @sessions AS session@sample "
    "WHERE realm = $1 AND @is_session AND expires_at > $2 AND @valid"
)

# The actual size: that in pg_class is of the last vacuum.
_TABLE_PAGES: Final = (
    "SELECT pg_relation_size('@quoted'::regclass) / current_setting('block_size')::bigint"
)

_SET_CUTOFF: Final = (
    "INSERT INTO @cutoffs AS stored (realm, name, instant) VALUES ($1, $2, $3) "
    "ON CONFLICT (realm, name) DO UPDATE "
    "SET instant = excluded.instant WHERE stored.instant < excluded.instant"
)

# Cutoffs of a name only; that of all sessions stays. Two purges do not wait for each other.
_DELETE_CUTOFFS: Final = (
    "DELETE FROM @cutoffs WHERE realm = $1 AND name = ANY(ARRAY("
    "SELECT name FROM @cutoffs WHERE realm = $1 AND name <> ''::bytea AND instant <= $2 "
    "LIMIT $3 FOR UPDATE SKIP LOCKED)) AND instant <= $2 RETURNING 1"
)

_REGISTER_KEYS: Final = """
WITH accepted AS MATERIALIZED (
    SELECT NOT EXISTS (SELECT FROM @keys WHERE realm = $1) OR EXISTS (
        SELECT FROM @keys WHERE realm = $1 AND fingerprint = ANY($2)) AS yes
), added AS (
    INSERT INTO @keys (realm, fingerprint)
    SELECT $1, fingerprint FROM pg_catalog.unnest($2) AS fingerprint, accepted WHERE yes
    ON CONFLICT DO NOTHING
)
SELECT yes FROM accepted
"""

# The IDs grow in the order of the entries.
_ADD_HISTORY: Final = """
INSERT INTO @history (realm, ended_at, expires_at, entry)
SELECT $1, ended_at, ended_at + $4, entry
FROM unnest($2::bigint[], $3::bytea[]) WITH ORDINALITY AS added (ended_at, entry, number)
ORDER BY number
"""

_LIST_HISTORY: Final = (
    "SELECT ended_at, id, entry FROM @history WHERE realm = $1 AND (ended_at, id) < ($2, $3) "
    "ORDER BY ended_at DESC, id DESC LIMIT $4"
)

# Two purges do not wait for each other. The order makes the server use the index on expires_at. If
# most entries have expired, it would otherwise read the table, deleted rows included: measured with
# 300,000 entries, up to 190 ms for each call instead of 11 ms.
_DELETE_HISTORY: Final = (
    "DELETE FROM @history WHERE ctid = ANY(ARRAY("
    "SELECT ctid FROM @history WHERE realm = $1 AND expires_at <= $2 "
    "ORDER BY expires_at LIMIT $3 FOR UPDATE SKIP LOCKED)) RETURNING 1"
)

#: Applies to the transaction of the statement only, as SET LOCAL does.
_RELAXED: Final = "set_config('synchronous_commit', 'off', true)"


def _expand(template: str) -> str:
    for fragment, meaning in _FRAGMENTS.items():
        template = template.replace(fragment, meaning)
    return template


class Statements:
    """The statements over one schema.

    Statements that lock several rows lock them in the order of their IDs, so that two batches do
    not deadlock. A login or deletion therefore first selects its rows ``FOR UPDATE``; this also
    returns the latest version of a row that was changed after the statement began, which its
    snapshot does not contain. Each save and touch is a statement of its own; those of a batch are
    sorted.

    The columns ``seen_at`` and ``version`` are authoritative, the copies in the record may be
    older. A few instants are read from the record, at their fixed offsets.

    ``unnest`` of one array is polymorphic: without its schema, a function of another user in
    ``search_path`` would be called instead (CVE-2018-1058). The other functions have exactly the
    types of their arguments, and ``unnest`` of several arrays is syntax.

    Args:
        schema: the tables.
        is_relaxed: a commit does not wait for the disk.
    """

    def __init__(self, schema: Schema, *, is_relaxed: bool) -> None:
        def sql(template: str) -> str:
            return schema.sql(_expand(template))

        #: Makes the commit of its transaction not wait for the disk.
        self.relax: Final = Statement(f"SELECT {_RELAXED}", ())
        #: Precedes a write in its transaction; empty for durable commits.
        self.settings: Final = (self.relax,) if is_relaxed else ()
        settings = f" FROM (SELECT {_RELAXED}) AS settings (value)" if is_relaxed else ""
        self.load: Final = Statement(sql(_LOAD), (TEXT, BYTEA_ARRAY))
        self.insert: Final = Statement(
            sql(_INSERT),
            (
                *(TEXT, BYTEA_ARRAY, BIGINT_ARRAY, BIGINT_ARRAY, BIGINT_ARRAY),
                *(BYTEA_ARRAY, BYTEA_ARRAY, BYTEA_ARRAY),
            ),
        )

        def alone(template: str, *types: int) -> Statement:
            return Statement(sql(template.replace("@settings", settings)), types)

        def in_batch(template: str, *types: int) -> Statement:
            template = template.replace("@settings", "").replace("@valid", _VALID_IN_BATCH)
            return Statement(sql(template), types)

        save_types = (TEXT, BYTEA, BIGINT, BIGINT, BIGINT, BIGINT, BYTEA, BIGINT)
        touch_types = (TEXT, BYTEA, BIGINT)
        #: A transaction of its own.
        self.save: Final = alone(_SAVE, *save_types)
        self.touch: Final = alone(_TOUCH, *touch_types)
        #: Precedes the statements of a batch in their transaction.
        relax = f", {_RELAXED}" if is_relaxed else ""
        self.prepare_updates: Final = Statement(
            sql(_PREPARE_UPDATES.replace("@relax", relax)), (TEXT,)
        )
        self.save_in_batch: Final = in_batch(_SAVE, *save_types)
        self.touch_in_batch: Final = in_batch(_TOUCH, *touch_types)
        self.delete: Final = Statement(sql(_DELETE), (TEXT, BYTEA_ARRAY))
        self.lock_names: Final = Statement(
            "SELECT pg_advisory_xact_lock(key) FROM pg_catalog.unnest($1) AS key", (BIGINT_ARRAY,)
        )
        #: By the policy of the limit.
        self.login: Final = {
            policy: Statement(
                sql(
                    _LOGIN.replace("@order", order).replace(
                        "@refuse", "true" if policy is LimitPolicy.REFUSE else "false"
                    )
                ),
                _LOGIN_TYPES,
            )
            for policy, order in _ORDERS.items()
        }
        #: By the prefix of a name.
        self.list_by_index: Final = {
            label: Statement(sql(_LIST.replace("@column", column)), (TEXT, BYTEA))
            for label, column in (("user", "user_key"), ("idp_sid", "idp_key"))
        }
        self.list_page: Final = Statement(sql(_LIST_PAGE), (TEXT, BYTEA, BIGINT))
        self.list_cutoffs: Final = Statement(sql(_LIST_CUTOFFS), (TEXT, BYTEA, BIGINT))
        self.load_all_cutoff: Final = Statement(sql(_LOAD_ALL_CUTOFF), (TEXT,))
        self.count: Final = Statement(sql(_COUNT.replace("@sample", "")), (TEXT, BIGINT))
        self.count_sample: Final = Statement(
            sql(_COUNT.replace("@sample", " TABLESAMPLE SYSTEM ($3)")), (TEXT, BIGINT, REAL)
        )
        self.table_pages: Final = Statement(
            _TABLE_PAGES.replace("@quoted", schema.sessions.replace("'", "''")), ()
        )
        self.set_cutoff: Final = Statement(sql(_SET_CUTOFF), (TEXT, BYTEA, BIGINT))
        self.delete_cutoffs: Final = Statement(sql(_DELETE_CUTOFFS), (TEXT, BIGINT, BIGINT))
        self.register_keys: Final = Statement(sql(_REGISTER_KEYS), (TEXT, BYTEA_ARRAY))
        self.add_history: Final = Statement(
            sql(_ADD_HISTORY), (TEXT, BIGINT_ARRAY, BYTEA_ARRAY, BIGINT)
        )
        self.list_history: Final = Statement(sql(_LIST_HISTORY), (TEXT, BIGINT, BIGINT, BIGINT))
        self.delete_history: Final = Statement(sql(_DELETE_HISTORY), (TEXT, BIGINT, BIGINT))
        self.server_time: Final = Statement(
            "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint", ()
        )
        self.notify: Final = Statement(
            "SELECT pg_notify($1, payload) FROM pg_catalog.unnest($2) AS payload",
            (TEXT, TEXT_ARRAY),
        )
        #: Precedes all other statements of its transaction and applies to that only. BEGIN would
        #: have to be rolled back after an error before the next transaction of the pipeline. Not
        #: prepared, because DEALLOCATE would precede it then.
        self.read_committed: Final = Statement(
            "SET transaction_isolation = 'read committed'", (), is_repeated=False
        )

        #: For ``TablePurger``: a row that a cutoff of all sessions ended before it expired.
        #: Its parameters are named, so a percent sign is written twice.
        escaped = Schema(schema.name and schema.name.replace("%", "%%"))
        self.invalid: Final = escaped.sql(_expand("NOT @valid").replace("$1", "%(realm)s"))
