"""Warnings about a server's version and settings, from its INFO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: The oldest supported versions: Redis 6.2 has ZRANDMEMBER and everything else the scripts use.
_OLDEST: Final = {"valkey": (7, 2), "redis": (6, 2)}


def parse_info(text: str) -> dict[str, str]:
    """Return the fields of an INFO reply."""
    lines = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name: value.strip() for name, value in lines}


def check_server(info: Mapping[str, str]) -> list[str]:
    """Return warnings about a server.

    Args:
        info: the fields of INFO; missing ones (an ACL may deny INFO) are not checked.
    """
    warnings = []
    oldest = unsupported_version(info)
    if oldest is not None:
        warnings.append(
            f"this is {server_version(info)}; sessions need {oldest} or newer: upgrade the server"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and info.get("maxmemory", "0") != "0":
        warnings.append(
            f"maxmemory-policy is {policy}: when memory is full, the server drops sessions, so "
            "visitors are logged out, and the cutoffs of revoke_all and revoke_user may be lost; "
            "set 'maxmemory-policy noeviction' and monitor the memory (docs/valkey.md)"
        )
    elif policy != "noeviction":
        warnings.append(
            f"maxmemory-policy is {policy} without a maxmemory: should a limit be set later, "
            "sessions will be dropped; set 'maxmemory-policy noeviction'"
        )
    if info.get("role") == "slave":
        warnings.append(
            "this is a read-only replica: every write will fail; give the address of the primary, "
            "or use redis+sentinel:// or redis+cluster://"
        )
    return warnings


def server_version(info: Mapping[str, str]) -> str:
    """Return name and version, such as ``Valkey 9.0.1``; empty if the version is missing."""
    kind = _kind(info)
    version = info.get(f"{kind}_version", "")
    return f"{kind.capitalize()} {version}" if version else ""


def unsupported_version(info: Mapping[str, str]) -> str | None:
    """Return the oldest supported version if the server is older; otherwise None."""
    kind = _kind(info)
    version = info.get(f"{kind}_version", "")
    parsed = _parse_version(version)
    if not parsed or parsed >= _OLDEST[kind]:
        return None
    return f"{kind.capitalize()} {'.'.join(map(str, _OLDEST[kind]))}"


def _kind(info: Mapping[str, str]) -> str:
    return "valkey" if "valkey_version" in info else "redis"


def has_sharded_channels(info: Mapping[str, str]) -> bool:
    """Return whether a cluster's server supports sharded pub/sub (Redis 7.0, every Valkey).

    Args:
        info: the fields of INFO; if the version is missing, it counts as a current one.
    """
    version = info.get("redis_version", "")
    return "valkey_version" in info or not version or _parse_version(version) >= (7, 0)


def _parse_version(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
