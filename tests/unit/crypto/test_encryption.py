"""Encryption at rest, against attackers who read or write the database or know the secret."""

import pickle
from hmac import digest

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from hypothesis import given
from hypothesis import strategies as st

from sojourn._crypto.encryption import (
    Plaintext,
    SecretCipher,
    TicketCipher,
    body_cipher,
    check_encrypt,
)
from sojourn._crypto.tickets import derive
from sojourn.errors import ConfigurationError
from sojourn.record import Contents, Record, UnreadableRecord, pack_body

OLD, NEW = b"an older secret of the ring, 32 B", b"the newest secret of this ring 32"
ID, OTHER_ID = bytes(range(16)), bytes(range(16, 32))
VERIFIER, NEXT, UNRELATED = b"v" * 16, b"n" * 16, b"s" * 16
CONTENTS = Contents("ada", {"browser": "Firefox"}, {"cart": b"\xa6apples", "n": b"\x01"})
ANY_CONTENTS = st.builds(
    Contents,
    st.none() | st.text(max_size=20),
    st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
    st.dictionaries(st.text(max_size=8), st.binary(max_size=80), max_size=5),
)

CLEAR = Plaintext()
BY_SECRET = SecretCipher([NEW], realm="default")
BY_TICKET = TicketCipher([NEW], realm="default")
ENCRYPTING = [BY_SECRET, BY_TICKET]
ALL = [CLEAR, *ENCRYPTING]

each_encryption = pytest.mark.parametrize(
    "cipher", ENCRYPTING, ids=lambda cipher: type(cipher).__name__
)
each_cipher = pytest.mark.parametrize("cipher", ALL, ids=lambda cipher: type(cipher).__name__)
each_class = pytest.mark.parametrize("kind", [SecretCipher, TicketCipher])


def record(body, *, session_id=ID):
    return Record(
        id=session_id,
        version=1,
        seen_at=0,
        created_at=0,
        absolute_at=1,
        idle_timeout=1,
        verifier=bytes(32),
        body=body,
    )


def stored(cipher, contents=CONTENTS, *, verifier=VERIFIER):
    return record(cipher.encrypt(ID, contents, verifier=verifier))


def refused(cipher, body, *, verifier=VERIFIER, session_id=ID, match=None):
    with pytest.raises(UnreadableRecord, match=match) as caught:
        cipher.decrypt(record(body, session_id=session_id), verifier)
    assert session_id.hex() in str(caught.value)
    return True


def sealed_part(body):
    return msgspec.msgpack.decode(body)[2]


#: Bodies that an installation with the secret NEW has stored for CONTENTS.
PINNED_BY_SECRET = (
    "93a361646181a762726f77736572a746697265666f78c60000003501231fe9c3365b32a269e43dd91fa83eb4"
    "b4ecb63c7f955a2b7f03e7f6f88fb721328bb813b14af3cf5a9c5b8e3367353543108dfc"
)
PINNED_BY_TICKET = (
    "93a361646181a762726f77736572a746697265666f78c60000009502637ea84753540ff309c2438091d5fc45"
    "bd354b572c7b3c0dbc16a43208f4689cc052013e56afe56f4dadd7051bc86eb9000000000000000000000000"
    "00000000000000000000000000000000000000000000000000000000000000000000000067a7551c657570a9"
    "a29c9658662564b9340063b84e11a198b3c6f02d97386220f5871659a0c093672edf19a71dc8e64ffb74c64c"
)


# Decryption


@pytest.mark.parametrize(
    ("cipher", "body"), [(BY_SECRET, PINNED_BY_SECRET), (BY_TICKET, PINNED_BY_TICKET)]
)
def test_a_body_of_an_earlier_release_is_decrypted(cipher, body):
    """S9: the derivation of the keys has not changed."""
    assert cipher.decrypt(record(bytes.fromhex(body)), VERIFIER) == CONTENTS


@pytest.mark.parametrize(
    ("cipher", "other", "text"),
    [
        (BY_SECRET, SecretCipher([OLD], realm="default"), "encrypted with a secret that is not"),
        (BY_TICKET, TicketCipher([OLD], realm="default"), "encrypted for another ticket or secret"),
    ],
)
def test_the_error_names_possible_causes(cipher, other, text):
    assert refused(other, stored(cipher).body, match=f"was changed, or {text}")
    changed = bytearray(stored(BY_TICKET).body)
    changed[-1] ^= 1
    assert refused(BY_TICKET, bytes(changed), match="was changed$")


@each_cipher
@given(contents=ANY_CONTENTS)
def test_an_encrypted_body_is_decrypted(cipher, contents):
    assert cipher.decrypt(stored(cipher, contents), VERIFIER) == contents


@each_cipher
@pytest.mark.parametrize("size", [0, 200, 300, 65_000, 70_000])
def test_data_of_every_size_is_decrypted(cipher, size):
    """The length of the sealed part has one encoding for every size."""
    contents = Contents("ada", {}, {"k": bytes(size)})
    assert cipher.decrypt(stored(cipher, contents), VERIFIER) == contents


@each_cipher
@given(contents=ANY_CONTENTS, later=ANY_CONTENTS)
def test_a_body_saved_over_an_earlier_one_is_decrypted(cipher, contents, later):
    """User, labels and data change during a session; the ticket does not."""
    first = cipher.encrypt(ID, contents, verifier=VERIFIER)
    second = cipher.encrypt(ID, later, verifier=VERIFIER, base=first)
    assert cipher.decrypt(record(second), VERIFIER) == later


def test_without_encryption_a_body_has_the_format_of_a_record():
    body = CLEAR.encrypt(ID, CONTENTS, verifier=VERIFIER)
    assert body == pack_body("ada", {"browser": "Firefox"}, CONTENTS.data)
    assert CLEAR.decrypt(record(body), VERIFIER) == record(body).contents()


@each_encryption
@pytest.mark.parametrize("user", [None, "ada"])
def test_user_and_labels_are_readable_without_a_key(cipher, user):
    """ASVS 7.5.2: lists need neither ticket nor secret."""
    found = stored(cipher, Contents(user, {"idp_sid": "s-1"}, {"a": b"\x01"}))
    assert found.index_names() == (() if user is None else ("user:ada", "idp_sid:s-1"))


# Contents of the database


@each_encryption
@given(value=st.text("abcdefghij", min_size=8, max_size=40))
def test_the_database_contains_no_plaintext_data(cipher, value):
    """B-48, ASVS 14.2: neither values nor keys are stored in clear."""
    body = stored(cipher, Contents("ada", {}, {"a key of the handler": value.encode()})).body
    assert value.encode() not in body
    assert b"a key of the handler" not in body


@each_encryption
def test_the_same_data_is_encrypted_differently_each_time(cipher):
    """B-15: a reader of the database cannot detect a repeated value."""
    bodies = {
        sealed_part(cipher.encrypt(ID, CONTENTS, verifier=VERIFIER))[-40:] for _ in range(100)
    }
    assert len(bodies) == 100
    base = cipher.encrypt(ID, CONTENTS, verifier=VERIFIER)
    again = {cipher.encrypt(ID, CONTENTS, verifier=VERIFIER, base=base)[-40:] for _ in range(100)}
    assert len(again) == 100


@pytest.mark.parametrize("cipher", ALL, ids=lambda cipher: type(cipher).__name__)
def test_no_representation_shows_a_key(cipher):
    """A18."""
    assert NEW.decode() not in repr(cipher)
    assert VERIFIER.decode() not in repr(cipher)


# An attacker with write access to the database


@each_encryption
def test_a_body_with_a_flipped_bit_is_refused(cipher):
    """B-15: in user, labels, length, marker, slot, nonce, tag and data."""
    body = stored(cipher).body
    free = range(0)
    if cipher is BY_TICKET:  # the second slot is not used, so its content is not authenticated
        start = body.index(sealed_part(body)) + 1 + 48
        free = range(start, start + 48)
    for bit in range(8 * len(body)):
        flipped = bytearray(body)
        flipped[bit // 8] ^= 1 << bit % 8
        if bit // 8 in free:
            assert cipher.decrypt(record(bytes(flipped)), VERIFIER) == CONTENTS
        else:
            assert refused(cipher, bytes(flipped))


@each_encryption
def test_truncated_and_extended_bodies_are_refused(cipher):
    """B-21: at every byte, and inside the sealed part with a corrected length."""
    body = stored(cipher).body
    sealed = sealed_part(body)
    head = body[: -len(sealed) - 4]
    for end in range(len(body)):
        assert refused(cipher, body[:end])
    for end in range(len(sealed)):
        assert refused(cipher, head + end.to_bytes(4) + sealed[:end])
        assert refused(cipher, head + (len(sealed) - end - 1).to_bytes(4) + sealed[end + 1 :])
    for tail in (b"\0", b"\xc0", bytes(16)):
        assert refused(cipher, body + tail)
        assert refused(cipher, head + (len(sealed) + len(tail)).to_bytes(4) + sealed + tail)
        assert refused(cipher, b"\x94" + body[1:] + tail)


@each_encryption
@given(junk=st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(cipher, junk):
    """S9, B-13: every other exception than UnreadableRecord would be a fault."""
    assert refused(cipher, junk)
    head = stored(cipher).body[: -len(sealed_part(stored(cipher).body)) - 4]
    for marker in (b"", b"\x01", b"\x02"):
        assert refused(cipher, head + len(marker + junk).to_bytes(4) + marker + junk)


@each_encryption
def test_a_body_of_another_session_is_refused(cipher):
    """An attacker who writes to the database cannot swap records, with one ticket or two."""
    body = stored(cipher).body
    assert refused(cipher, body, session_id=OTHER_ID)
    other = cipher.encrypt(OTHER_ID, CONTENTS, verifier=UNRELATED)
    for verifier in (VERIFIER, UNRELATED):
        assert refused(cipher, body, session_id=OTHER_ID, verifier=verifier)
        assert refused(cipher, other, verifier=verifier)


@each_encryption
@pytest.mark.parametrize(
    "contents",
    [
        Contents("bob", CONTENTS.labels, CONTENTS.data),
        Contents(None, CONTENTS.labels, CONTENTS.data),
        Contents("ada", {"browser": "Chrome"}, CONTENTS.data),
        Contents("ada", {}, CONTENTS.data),
        Contents("ad", {"browser": "Firefox", "x": "y"}, CONTENTS.data),
    ],
    ids=lambda contents: f"{contents.user} {contents.labels}",
)
def test_changed_user_and_labels_are_refused(cipher, contents):
    """A session must not become that of another user by an UPDATE."""
    mine, theirs = stored(cipher).body, stored(cipher, contents).body
    cut = len(theirs) - len(sealed_part(theirs))
    assert refused(cipher, theirs[:cut] + sealed_part(mine))


@each_encryption
def test_another_encoding_of_the_same_body_is_refused(cipher):
    """The bytes are authenticated, so other msgpack encodings are refused."""
    body = stored(cipher).body
    sealed = sealed_part(body)
    short = msgspec.msgpack.encode(["ada", {"browser": "Firefox"}, sealed])
    assert short != body
    assert refused(cipher, short)
    assert refused(cipher, b"\xdc\x00\x03" + body[1:])
    assert refused(cipher, body.replace(b"\xa3ada", b"\xd9\x03ada", 1))


@each_encryption
def test_a_plaintext_body_is_refused_with_encryption(cipher):
    """An attacker who writes to the database could otherwise plant a body."""
    assert refused(
        cipher, stored(CLEAR).body, match="is plaintext, and encrypt is on: it may be forged$"
    )
    with pytest.raises(UnreadableRecord, match="is plaintext"):
        cipher.decrypt(record(pack_body("root", {}, {})), VERIFIER)


@pytest.mark.parametrize(
    "use",
    [
        lambda body: BY_TICKET.encrypt(ID, CONTENTS, verifier=VERIFIER, base=body),
        lambda body: BY_TICKET.rewrap(record(body), VERIFIER, new=NEXT),
        lambda body: BY_TICKET.drop_previous(record(body)),
    ],
    ids=["encrypt", "rewrap", "drop_previous"],
)
def test_a_planted_body_is_not_used_for_the_next_one(use):
    """Neither a plaintext body, nor one sealed by secret, nor arbitrary bytes."""
    for body in (stored(CLEAR).body, stored(BY_SECRET).body, b"junk"):
        with pytest.raises(UnreadableRecord):
            use(body)


@each_encryption
def test_an_encrypted_body_is_refused_without_encryption(cipher):
    assert refused(CLEAR, stored(cipher).body, match=" is encrypted, and encrypt is off$")


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x93\xc0\x80", pickle.dumps({"user": "root"})])
def test_damaged_bodies_are_refused_in_every_mode(body):
    """S9, B-10."""
    for cipher in ALL:
        assert refused(cipher, body, match="damaged")


def test_text_that_is_not_utf8_is_refused_in_every_mode():
    for cipher in ALL:
        assert refused(
            cipher, stored(cipher).body.replace(b"Firefox", b"\xff\xff\xff\xff\xff\xff\xff")
        )


def test_a_body_of_one_mode_is_refused_in_the_other():
    """Encryption by ticket never falls back to encryption by secret."""
    assert refused(BY_TICKET, stored(BY_SECRET).body, match="another mode")
    assert refused(
        BY_SECRET, stored(BY_TICKET).body, match=" was encrypted in another mode of encrypt$"
    )
    for cipher, mark in ((BY_TICKET, b"\x02"), (BY_SECRET, b"\x01")):
        other = stored(BY_SECRET if cipher is BY_TICKET else BY_TICKET).body
        at = other.index(sealed_part(other))
        assert refused(cipher, other[:at] + mark + other[at + 1 :])


def test_an_attacker_with_the_key_cannot_run_code():
    """B-11: with a leaked secret, a crafted body is unreadable."""
    plain = pickle.dumps({"user": "root"})
    head = b"\x93\xc0\x80\xc6" + (1 + 16 + 16 + len(plain)).to_bytes(4)
    cipher = AESSIV(derive(NEW, b"data", "default", 64))
    body = head + b"\x01" + bytes(16) + cipher.encrypt(plain, [ID + bytes(16) + b"\x01" + head])
    assert refused(BY_SECRET, body, match="damaged")


# Keys


@each_class
def test_bodies_are_sealed_with_the_newest_secret_and_opened_with_every_secret(kind):
    """ASVS 11.2.2: records from before a secret was replaced stay readable."""
    old, ring, new = (kind(each, realm="default") for each in ([OLD], [NEW, OLD], [NEW]))
    before = stored(old)
    assert ring.decrypt(before, VERIFIER) == CONTENTS
    assert refused(new, before.body)
    after = stored(ring)
    assert new.decrypt(after, VERIFIER) == CONTENTS
    assert refused(old, after.body)


@each_class
def test_a_save_encrypts_a_record_with_the_newest_secret(kind):
    """ASVS 11.2.2: an old secret can be removed once the records were written again."""
    old, ring, new = (kind(each, realm="default") for each in ([OLD], [NEW, OLD], [NEW]))
    body = old.encrypt(ID, CONTENTS, verifier=VERIFIER)
    saved = ring.encrypt(ID, CONTENTS, verifier=VERIFIER, base=body)
    assert new.decrypt(record(saved), VERIFIER) == CONTENTS
    assert refused(old, saved)


def test_a_save_during_a_rotation_wraps_the_key_of_its_own_ticket_only():
    """ASVS 11.2.2: a save with the previous ticket keeps the wrapping of the current one."""
    old, ring, new = (TicketCipher(each, realm="default") for each in ([OLD], [NEW, OLD], [NEW]))
    body = old.rewrap(stored(old), VERIFIER, new=NEXT)
    saved = ring.encrypt(ID, CONTENTS, verifier=VERIFIER, base=body)
    assert new.decrypt(record(saved), VERIFIER) == CONTENTS
    assert refused(new, saved, verifier=NEXT)
    assert ring.decrypt(record(saved), NEXT) == CONTENTS


@each_class
def test_a_body_of_another_realm_is_refused(kind):
    """S14, B-29."""
    assert refused(kind([NEW], realm="other"), stored(kind([NEW], realm="default")).body)


# Encryption by ticket


@given(verifier=st.binary(min_size=16, max_size=16))
def test_the_database_and_the_secret_together_cannot_decrypt(verifier):
    """B-48: the key depends on the verifier, of which the database has only a hash."""
    body = stored(BY_TICKET).body
    assert verifier == VERIFIER or refused(BY_TICKET, body, verifier=verifier)


def test_a_ticket_without_the_secret_cannot_decrypt():
    """A stolen ticket is not sufficient."""
    assert refused(TicketCipher([OLD], realm="default"), stored(BY_TICKET).body)


def test_the_wrapping_key_is_one_block_of_hkdf_expand():
    """RFC 5869 2.3: T(1) = HMAC(PRK, info | 0x01), computed independently."""
    body = stored(BY_TICKET).body
    root = derive(NEW, b"data by ticket", "default", 32)
    wrapper = AESSIV(digest(root, VERIFIER + b"\x01", "sha256"))
    assert len(wrapper.decrypt(sealed_part(body)[1:49], [b"\x02" + ID])) == 32


def test_a_rotation_wraps_the_key_again_and_keeps_the_data():
    """Both tickets decrypt until the new one was used; a ticket of another session never does."""
    before = stored(BY_TICKET)
    after = record(BY_TICKET.rewrap(before, VERIFIER, new=NEXT))
    assert after.body[-50:] == before.body[-50:]  # nonce, tag and 18 bytes of data
    assert len(after.body) == len(before.body)
    for verifier in (VERIFIER, NEXT):
        assert BY_TICKET.decrypt(after, verifier) == CONTENTS
    assert refused(BY_TICKET, after.body, verifier=UNRELATED)
    assert refused(BY_TICKET, after.body, verifier=bytes(16))


@pytest.mark.parametrize("writer", [VERIFIER, NEXT])
def test_a_save_by_either_ticket_of_a_rotation_is_decrypted_by_both(writer):
    """Parallel requests of a session that rotates lose no data."""
    body = BY_TICKET.rewrap(stored(BY_TICKET), VERIFIER, new=NEXT)
    later = Contents("ada", {}, {"n": b"\x02"})
    saved = BY_TICKET.encrypt(ID, later, verifier=writer, base=body)
    for reader in (VERIFIER, NEXT):
        assert BY_TICKET.decrypt(record(saved), reader) == later


def test_after_a_second_rotation_the_first_ticket_cannot_decrypt():
    once = record(BY_TICKET.rewrap(stored(BY_TICKET), VERIFIER, new=NEXT))
    twice = BY_TICKET.rewrap(once, NEXT, new=UNRELATED)
    assert BY_TICKET.decrypt(record(twice), UNRELATED) == CONTENTS
    assert BY_TICKET.decrypt(record(twice), NEXT) == CONTENTS
    assert refused(BY_TICKET, twice, verifier=VERIFIER)


def test_after_the_new_ticket_was_used_the_previous_one_cannot_decrypt():
    rotated = record(BY_TICKET.rewrap(stored(BY_TICKET), VERIFIER, new=NEXT))
    body = BY_TICKET.drop_previous(rotated)
    assert BY_TICKET.decrypt(record(body), NEXT) == CONTENTS
    assert refused(BY_TICKET, body, verifier=VERIFIER)


def test_a_login_creates_a_key_that_no_earlier_ticket_decrypts():
    """ASVS 7.2.4, B-25: even with the secret and the record from before the login."""
    anonymous = stored(BY_TICKET)
    login = BY_TICKET.encrypt(ID, CONTENTS, verifier=NEXT)
    assert refused(BY_TICKET, login, verifier=VERIFIER)
    before, after = sealed_part(anonymous.body), sealed_part(login)
    head = login[: -len(after)]
    assert refused(BY_TICKET, head + before[:97] + after[97:])


def test_without_a_valid_ticket_a_body_can_neither_be_saved_nor_rotated():
    found = stored(BY_TICKET)
    with pytest.raises(UnreadableRecord):
        BY_TICKET.encrypt(ID, CONTENTS, verifier=UNRELATED, base=found.body)
    with pytest.raises(UnreadableRecord):
        BY_TICKET.rewrap(found, UNRELATED, new=NEXT)


@pytest.mark.parametrize("cipher", [CLEAR, BY_SECRET], ids=lambda cipher: type(cipher).__name__)
def test_with_encryption_by_secret_a_rotation_changes_no_body(cipher):
    found = stored(cipher)
    assert cipher.rewrap(found, VERIFIER, new=NEXT) is found.body
    assert cipher.drop_previous(found) is found.body


# The option


@pytest.mark.parametrize(
    ("encrypt", "kind"), [(False, Plaintext), (True, SecretCipher), ("ticket", TicketCipher)]
)
def test_the_option_chooses_the_cipher(encrypt, kind):
    assert type(body_cipher(encrypt, [NEW], realm="default")) is kind


@pytest.mark.parametrize("encrypt", [None, 0, 1, "", "secret", "Ticket", b"ticket"])
def test_an_invalid_option_is_a_configuration_error(encrypt):
    """B-60: data must not be stored in clear by mistake."""
    with pytest.raises(ConfigurationError, match=r"encrypt expects False, True or 'ticket'"):
        body_cipher(encrypt, [NEW], realm="default")


@pytest.mark.parametrize("encrypt", [False, True, "ticket"])
def test_a_valid_option_is_returned(encrypt):
    assert check_encrypt(encrypt) == encrypt
