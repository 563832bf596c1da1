"""Inspection: what is dangerous about a server, with the remedy, from its own words.

What lives here: reading INFO, and the rules. What must not: asking for it (``courier.py`` does, at
the first connection of a process, and logs what is found).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: The oldest that everything here works with: GETDEL's generation, ZRANDMEMBER, ACL by key.
_OLDEST: Final = {"valkey": (7, 2), "redis": (6, 2)}


def parse_info(text: str) -> dict[str, str]:
    """Return the fields of INFO's answer."""
    lines = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name: value.strip() for name, value in lines}


def inspect(facts: Mapping[str, str]) -> list[str]:
    """Return warnings about a server.

    Args:
        facts: the fields of INFO; what is missing (an ACL may hide it) is not judged.
    """
    warnings = []
    kind = "valkey" if "valkey_version" in facts else "redis"
    version = facts.get(f"{kind}_version", "")
    if version and _numbers(version) < _OLDEST[kind]:
        oldest = ".".join(map(str, _OLDEST[kind]))
        warnings.append(
            f"this is {kind.capitalize()} {version}; sessions need {kind.capitalize()} {oldest} or "
            "newer: upgrade the server"
        )
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and facts.get("maxmemory", "0") != "0":
        warnings.append(
            f"maxmemory-policy is {policy}: when memory is full, the server drops sessions, so "
            "visitors are logged out, and what invalidate_all or revoke_user noted may be lost; set "
            "'maxmemory-policy noeviction' and watch the memory (docs/valkey.md)"
        )
    elif policy != "noeviction":
        warnings.append(
            f"maxmemory-policy is {policy} without a maxmemory: should a limit be set later, "
            "sessions will be dropped; set 'maxmemory-policy noeviction'"
        )
    if facts.get("role") == "slave":
        warnings.append(
            "this is a read-only replica: every write will fail; give the address of the primary, "
            "or use redis+sentinel:// or redis+cluster://"
        )
    return warnings


def has_sharded_channels(facts: Mapping[str, str]) -> bool:
    """Tell whether a server of a cluster has channels that only the nodes of a slot pass on.

    Args:
        facts: the fields of INFO; one that hides them is taken for one of today's.
    """
    version = facts.get("redis_version", "")
    return "valkey_version" in facts or not version or _numbers(version) >= (7, 0)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
