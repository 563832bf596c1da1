"""Queries with named parameters and plain rows, for statements that are executed rarely."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from psycopg import pq
from psycopg.adapt import Transformer

from sojourn.stores.postgresql.encoding import BIGINT, pack_bigint
from sojourn.stores.postgresql.pipeline import Query
from sojourn.stores.postgresql.statements import Statement

#: A parameter such as ``%(name)s``, or an escaped percent sign.
_PLACEHOLDER: Final = re.compile(r"%\((\w+)\)s|%%")

#: The server derives the type of a parameter from the statement.
_UNKNOWN: Final = 0


def named_query(sql: str, parameters: Mapping[str, int | str]) -> Query:
    """Return the query of a statement with parameters such as ``%(name)s``.

    Args:
        sql: written as for a cursor of psycopg.
        parameters: integers become ``bigint``, strings what the statement expects.
    """
    names: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return f"${names.setdefault(match[1], len(names) + 1)}" if match[1] else "%"

    text = _PLACEHOLDER.sub(number, sql)
    types, formats, values = [], [], []
    for name in names:
        value = parameters[name]
        is_number = isinstance(value, int)
        types.append(BIGINT if is_number else _UNKNOWN)
        formats.append(pq.Format.BINARY if is_number else pq.Format.TEXT)
        values.append(pack_bigint(value) if isinstance(value, int) else value.encode())
    return Query(Statement(text, types, formats, is_repeated=False), values)


def rows_of(result: pq.abc.PGresult) -> list[tuple[Any, ...]]:
    """Return the rows as Python values."""
    transformer = Transformer()
    transformer.set_pgresult(result)
    return transformer.load_rows(0, result.ntuples, tuple)
