"""Write the initial corpus: valid input of each kind.

    python -m tests.fuzz.seeds

A file is named after the hash of its content, as libFuzzer does.
"""

import hashlib
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import msgspec

from sojourn._core.codec import encode
from sojourn.record import pack_body
from sojourn.stores import broadcast_messages
from sojourn.stores.redis import encoding as redis_encoding
from tests.fuzz.targets import EMPTY, HEADERS, SEALED, SEALED_BEFORE

CORPUS = Path(__file__).parent / "corpus"

DEEP = b"\x91" * 3_000 + b"\xc0"
"""Lists nested deeper than the recursion limit of Python."""

VALUES = [
    None,
    [True, -1, 2**63, 2**70, 1.5, "text", b"bytes"],
    {"cart": {"apple": 2}, "log": [[], {}]},
    {1, "a", (2, 3)},
    frozenset({b"x"}),
    datetime(2030, 1, 2, 3, 4, 5, 6, UTC),
    [date(2030, 1, 2), time(3, 4, 5, 6), timedelta(-1, 2, 3)],
    [UUID(int=7), Decimal("-1.50")],
]
BODIES = [
    EMPTY.body,
    pack_body("ada", {"browser": "Firefox", "idp_sid": "s1"}, {"n": encode("n", 1)}),
    pack_body(None, {}, {"cart": encode("cart", {"apple": 2}), "\0flashes": encode("f", {})}),
]
ROTATED = msgspec.structs.replace(EMPTY, previous_verifier=bytes(range(32)), previous_valid_until=9)
SEEDS = {
    "cookie_header": [
        b"sid=" + SEALED.encode(),
        b'a=b; __Host-sid=x;\tsid = y; sid=" z "; =sid=1',
        b"; ;;sid=1; sid=2; bad[=2; a.b=3; a-b=4; %73id=5",
    ],
    "cookie_written": [SEALED.encode(), b"__Secure-x|/shop|example.com", b"sid|/|", b"a\r\nb|/;|."],
    "ticket": [SEALED.encode(), SEALED_BEFORE.encode(), b"A" * 66],
    "altered_ticket": [b"", b"\0" * 48 + b"\x01", b"\x05AB", b"\x41" + SEALED.encode()],
    "record": [EMPTY.to_bytes()[: HEADERS[2]] + body for body in BODIES],
    "body": [*BODIES, b"\x94\xc0\x80\x80" + DEEP, b"\x93\xa1a\x80" + DEEP],
    "value": [*(encode("key", value) for value in VALUES), DEEP],
    "sealed": [
        b"",
        b"\0" * 75 + b"\x04\0\x01",
        b"\0",
        b"\0" * 30 + b"\x01",
        EMPTY.body,
        b"\x93\xa3ada\x80\xc6\0\0\0\x04\x01abc",
    ],
    "csrf_token": [b"", b"\0A", b"\x20-_-_", b"UP&+", b"A" * 86, b"+/" * 43],
    "stored": [
        redis_encoding.encode_value(EMPTY),
        redis_encoding.encode_value(EMPTY, [bytes(16)]),
        redis_encoding.encode_value(ROTATED, [bytes(16)] * 2),
    ],
    "broadcast_message": [
        broadcast_messages.encode_message(kind, EMPTY.id, version=7, reason="logout")
        for kind in ("revoked", "rotated", "changed")
    ],
}


def main() -> None:
    """Write each seed to its file."""
    for target, seeds in SEEDS.items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            name = hashlib.sha1(seed, usedforsecurity=False).hexdigest()
            (folder / f"{name}.bin").write_bytes(seed)


if __name__ == "__main__":
    main()
