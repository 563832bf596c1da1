"""Label values with bounds: texts of applications never become labels."""

from __future__ import annotations

from typing import Final

OTHER: Final = "other"

#: Why tickets are rejected.
REJECTIONS: Final = frozenset(
    {
        "converted before",
        "duplicate",
        "ended",
        "expired",
        "forged",
        "labels",
        "malformed",
        "refused",
        "replaced",
        "revoked",
        "unknown",
        "unreadable",
    }
)

#: Why sessions are revoked, except for the reasons that applications give.
REVOCATIONS: Final = frozenset(
    {
        "credentials changed",
        "deleted",
        "destroyed",
        "disabled",
        "limit",
        "logout",
        "reused",
        "revoked",
    }
)

#: The limits that a session can pass.
LIMITS: Final = frozenset({"absolute", "idle", "unconfirmed"})

#: The operations that a failure of the store names.
FAILED_OPERATIONS: Final = frozenset(
    {
        "add_history",
        "add_tombstone",
        "create",
        "delete",
        "load",
        "ping",
        "publish",
        "release_lease",
        "revoke",
        "save",
        "server_time",
        "touch",
    }
)

#: How a store call ends.
RESULTS: Final = frozenset(
    {
        "absent",
        "cancelled",
        "conflict",
        "error",
        "limit_reached",
        "ok",
        "revoked",
        "taken",
        "unreadable",
    }
)


def rejection(reason: str) -> str:
    """Return the label for ``Rejected.reason``."""
    for text in ("unreadable", "expired"):
        if reason.startswith((f"{text}:", f"{text} (")):
            return text
    return reason if reason in REJECTIONS else OTHER


def revocation(reason: str) -> str:
    """Return the label for ``Revoked.reason``."""
    return reason if reason in REVOCATIONS else OTHER


def limit(name: str) -> str:
    """Return the label for ``Expired.limit``."""
    return name if name in LIMITS else OTHER


def failed_operation(name: str) -> str:
    """Return the label for ``StoreFailed.operation``."""
    return name if name in FAILED_OPERATIONS else OTHER
