"""Properties of every parser of untrusted bytes, one function for each parser.

A function returns for accepted and for rejected input, and raises if the parser is wrong.
``test_fuzz.py`` calls them with the corpus and with hypothesis, ``harness.py`` with a fuzzer.
"""

import base64
import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from sojourn._core import codec
from sojourn._crypto.csrf import CsrfTokens
from sojourn._crypto.encryption import SecretCipher, TicketCipher
from sojourn._crypto.tickets import KeyRing, Ticket, derive, hash_verifier
from sojourn.errors import ConfigurationError, NotSerializable
from sojourn.record import Contents, Record, UnreadableRecord, pack_body
from sojourn.stores import broadcast_messages
from sojourn.stores.redis import encoding as redis_encoding
from sojourn.web.cookies import Cookie, CookieReader, CookieSettings

NAMES = ("sid", "__Host-sid", "a.b")
READERS = tuple(CookieReader(name) for name in NAMES)
COOKIE = Cookie("sid", secure=True, tail=b"; Path=/; Secure; HttpOnly; SameSite=Lax")
COOKIE_AGE = b"; Max-Age=60; Expires=Thu, 01 Jan 1970 00:01:00 GMT"

SECRETS = (b"newest secret of the fuzzer 4Kq8", b"an older secret of the fuzzer 9Zt")
#: Documented size of a record's header in bytes, by format; format 1 has no commit IDs.
HEADERS = {1: 122, 2: 138}

COOKIE_NAME = b"__Host-sid"
RING = KeyRing(SECRETS, realm="fuzz")
ISSUED = Ticket(bytes(range(16)), bytes(range(16, 32)))
SEALED = RING.seal(ISSUED, name=COOKIE_NAME)
SEALED_BEFORE = KeyRing(SECRETS[1:], realm="fuzz").seal(ISSUED, name=COOKIE_NAME)
CIPHERS = tuple(AESSIV(derive(secret, b"ticket", "fuzz", 64)) for secret in SECRETS)

SCALARS = (type(None), bool, int, float, str, bytes, datetime, date, time, timedelta, UUID, Decimal)


def cookie_header(data: bytes) -> None:
    """Parse a Cookie header: the result equals that of a simple reference parser."""
    for name, reader in zip(NAMES, READERS, strict=True):
        assert reader.find(data) == reference_find(name.encode(), data), name


def reference_find(name: bytes, header: bytes) -> tuple[str, ...]:
    """Return the values of a cookie; splits the header without a regular expression."""
    values = []
    for part in header.split(b";"):
        before, equals, value = part.lstrip(b" \t").partition(b"=")
        if equals and before == name:
            values.append(value.strip(b" \t").decode("latin-1"))
    return tuple(dict.fromkeys(values))


def cookie_written(data: bytes) -> None:
    """Build a cookie of any value, name, path and domain: refused, or one valid header line."""
    text = data.decode("latin-1")
    try:
        header = COOKIE.set(text, 60, now=0)
    except ValueError:
        pass
    else:
        assert header == b"sid=%b%b%b" % (data, COOKIE_AGE, COOKIE.tail)
        pair = header.removesuffix(COOKIE_AGE + COOKIE.tail)
        assert not re.search(rb"[\x00-\x1f\x7f-\xff,\"\\]", pair)
        assert READERS[0].find(b"sid=" + data) == (text,)
    name, _, place = text.partition("|")
    path, _, domain = place.partition("|")
    try:
        settings = CookieSettings(name=name, path=path, domain=domain or None)
    except ConfigurationError:
        return
    for cookie in (settings.over_https(), settings.over_http()):
        for line in (cookie.set("x", None), cookie.delete()):
            assert not re.search(rb"[\x00-\x1f\x7f-\xff]", line)
            assert line.count(b";") == line.count(b"; ")
            assert line.count(b"Path=") >= 1
            assert b"HttpOnly" in line


def ticket(data: bytes) -> None:
    """Unseal any text: only issued tickets are accepted, byte for byte."""
    text = data.decode("latin-1")
    opened = RING.unseal(text, name=COOKIE_NAME)
    assert opened == reference_unseal(text)
    assert opened is None or (opened == ISSUED and text in (SEALED, SEALED_BEFORE))


def altered_ticket(data: bytes) -> None:
    """Unseal altered tickets, text and sealed bytes: only unchanged ones are accepted."""
    for good in (SEALED, SEALED_BEFORE):
        sealed = base64.urlsafe_b64decode(good + "==")
        mask = data[: len(sealed)].ljust(len(sealed), b"\0")
        changed = bytes(a ^ b for a, b in zip(sealed, mask, strict=True))
        text = base64.urlsafe_b64encode(changed).decode().rstrip("=")
        opened = RING.unseal(text, name=COOKIE_NAME)
        assert opened == (ISSUED if changed == sealed else None)
        start = data[0] % len(good) if data else 0
        spliced = good[:start] + data[1:].decode("latin-1") + good[start:]
        ticket(spliced[: len(good)].encode("latin-1"))
        ticket(spliced.encode("latin-1"))


def reference_unseal(text: str) -> Ticket | None:
    """Unseal a ticket step by step, as the format is documented."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{65}[AQgw]", text):
        return None
    sealed = base64.urlsafe_b64decode(text + "==")
    for cipher in CIPHERS:
        try:
            plain = cipher.decrypt(sealed, [b"sojourn\0fuzz\0" + COOKIE_NAME])
        except InvalidTag:
            continue
        return Ticket(plain[1:17], plain[17:33]) if plain[0] == 1 else None
    return None


def record(data: bytes) -> None:
    """Decode any bytes as a record: unreadable, or every field has its documented position."""
    try:
        found = Record.from_bytes(bytes(16), data)
    except UnreadableRecord:
        assert len(data) <= HEADERS.get(data[0] if data else 0, len(data))
        return
    header = HEADERS[data[0]]
    assert len(data) > header
    assert found.version == int.from_bytes(data[2:10], "big")
    assert found.seen_at == int.from_bytes(data[10:18], "big")
    assert found.verifier == data[50:82]
    commit_ids = data[122:header] or bytes(16)
    expected = bytes([2, data[1] & 7]) + data[2:122] + commit_ids + data[header:]
    assert found.to_bytes() == expected
    body(found.body)


def body(data: bytes) -> None:
    """Decode any bytes as the body of a record: unreadable, or encoded and decoded again."""
    found = msgspec.structs.replace(EMPTY, body=data)
    try:
        listed = found.index_names()
    except UnreadableRecord:
        listed = None
    try:
        contents = found.contents()
    except UnreadableRecord:
        return
    assert listed is not None, "a readable body has readable index names"
    again = pack_body(contents.user, contents.labels, contents.data)
    assert msgspec.structs.replace(found, body=again).contents() == contents
    assert all(type(value) is bytes for value in contents.data.values())


EMPTY = Record(
    id=bytes(16),
    version=1,
    seen_at=1,
    created_at=1,
    absolute_at=2,
    idle_timeout=1,
    verifier=bytes(32),
    body=pack_body(None, {}, {}),
)
assert EMPTY.contents() == Contents(None, {}, {})


def value(data: bytes) -> None:
    """Decode any bytes as a value: refused, or a value of an accepted type."""
    try:
        found = codec.decode(data)
    except ValueError:  # msgspec.DecodeError is one
        return
    assert_known_types(found)
    try:
        again = codec.encode("key", found)
    except NotSerializable:
        return  # keys such as tuples can be decoded, but not encoded
    assert codec.encode("key", codec.decode(again)) == again


def assert_known_types(found: object) -> None:
    """Assert that a decoded value contains only types that a session may hold."""
    left = [found]  # no recursion: in Python 3.13, C code may nest deeper than Python code
    while left:
        match left.pop():
            case dict() as items:
                left += [*items.keys(), *items.values()]
            case list() | tuple() | set() | frozenset() as items:
                left += items
            case item:
                assert type(item) in SCALARS, type(item)


def sealed(data: bytes) -> None:
    """Decrypt altered bodies and other bytes: only unchanged bodies are accepted."""
    for sealer, good in SEALED_BODIES:
        mask = data[: len(good)].ljust(len(good), b"\0")
        changed = bytes(a ^ b for a, b in zip(good, mask, strict=True))
        at = data[0] % len(good) if data else 0
        for found in (data, changed, good[:at] + data[1:] + good[at:], good[:at], good + data):
            assert_unchanged_if_accepted(sealer, found, good)


def assert_unchanged_if_accepted(
    sealer: SecretCipher | TicketCipher, found: bytes, good: bytes
) -> None:
    """Decrypt a body: refused, or equal to the valid one except for the unused verifier slot."""
    try:
        contents = sealer.decrypt(msgspec.structs.replace(EMPTY, body=found), ISSUED.verifier)
    except UnreadableRecord:
        assert found != good
    else:
        assert contents == HELD
        if isinstance(sealer, TicketCipher):
            found, good = found[:FORMER_SLOT] + found[REST:], good[:FORMER_SLOT] + good[REST:]
        assert found == good


#: Offset of the data key for the previous verifier in a body that is encrypted by ticket.
FORMER_SLOT = len(pack_body("ada", {"browser": "Firefox"}, {})) - 1 + 5 + 1 + 48
REST = FORMER_SLOT + 48


HELD = Contents("ada", {"browser": "Firefox"}, {"n": codec.encode("n", 1)})
SEALED_BODIES = tuple(
    (sealer, sealer.encrypt(EMPTY.id, HELD, verifier=ISSUED.verifier))
    for sealer in (SecretCipher(SECRETS, realm="fuzz"), TicketCipher(SECRETS, realm="fuzz"))
)


def csrf_token(data: bytes) -> None:
    """Check altered tokens and other text: only unmodified tokens are accepted."""
    hashes = [hash_verifier(ISSUED.verifier)]
    for text in (data.decode("latin-1"), data.decode("utf-8", "surrogateescape")):
        assert not CSRF.check(text, hashes) or text == CSRF_TOKEN
    start = data[0] % len(CSRF_TOKEN) if data else 0
    piece = data[1:].decode("latin-1")
    changed = (CSRF_TOKEN[:start] + piece + CSRF_TOKEN[start + len(piece) :])[: len(CSRF_TOKEN)]
    assert CSRF.check(changed, hashes) == (changed == CSRF_TOKEN)


CSRF = CsrfTokens(SECRETS, realm="fuzz")
CSRF_TOKEN = CSRF.make(hash_verifier(ISSUED.verifier))


def stored(data: bytes) -> None:
    """Decode any bytes as the value of a Redis key: unreadable, or encoded and decoded again."""
    lists = redis_encoding.digests_of(data)
    redis_encoding.created_at(data)
    try:
        found = redis_encoding.decode_value(EMPTY.id, data)
    except UnreadableRecord:
        return
    again = redis_encoding.decode_value(EMPTY.id, redis_encoding.encode_value(found, lists))
    assert again == found
    assert redis_encoding.digests_of(redis_encoding.encode_value(found, lists)) == lists


def broadcast_message(data: bytes) -> None:
    """Decode any bytes as a broadcast message: ignored, or encoded and decoded again."""
    found = broadcast_messages.decode_message(data)
    if found is not None:
        again = broadcast_messages.encode_message(
            found.kind, found.session_id, version=found.version, reason=found.reason
        )
        assert broadcast_messages.decode_message(again) == found


TARGETS = {
    "cookie_header": cookie_header,
    "cookie_written": cookie_written,
    "ticket": ticket,
    "altered_ticket": altered_ticket,
    "record": record,
    "body": body,
    "value": value,
    "sealed": sealed,
    "csrf_token": csrf_token,
    "stored": stored,
    "broadcast_message": broadcast_message,
}
