"""Encryption at rest, against attackers who can read or write the database or know the secret."""

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
VERIFIER, NEXT, STRANGER = b"v" * 16, b"n" * 16, b"s" * 16
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
SEALING = [BY_SECRET, BY_TICKET]
ALL = [CLEAR, *SEALING]

each_sealing = pytest.mark.parametrize("way", SEALING, ids=lambda way: type(way).__name__)
each_way = pytest.mark.parametrize("way", ALL, ids=lambda way: type(way).__name__)
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


def stored(way, contents=CONTENTS, *, verifier=VERIFIER):
    return record(way.encrypt(ID, contents, verifier=verifier))


def refused(way, body, *, verifier=VERIFIER, session_id=ID, match=None):
    with pytest.raises(UnreadableRecord, match=match) as caught:
        way.decrypt(record(body, session_id=session_id), verifier)
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


# What opens


@pytest.mark.parametrize(
    ("way", "body"), [(BY_SECRET, PINNED_BY_SECRET), (BY_TICKET, PINNED_BY_TICKET)]
)
def test_a_body_of_an_earlier_version_of_this_library_opens(way, body):
    """S9: the keys are derived as before."""
    assert way.decrypt(record(bytes.fromhex(body)), VERIFIER) == CONTENTS


@pytest.mark.parametrize(
    ("way", "other", "text"),
    [
        (BY_SECRET, SecretCipher([OLD], realm="default"), "encrypted with a secret that is not"),
        (BY_TICKET, TicketCipher([OLD], realm="default"), "encrypted for another ticket or secret"),
    ],
)
def test_the_error_names_possible_causes(way, other, text):
    assert refused(other, stored(way).body, match=f"was changed, or {text}")
    changed = bytearray(stored(BY_TICKET).body)
    changed[-1] ^= 1
    assert refused(BY_TICKET, bytes(changed), match="was changed$")


@each_way
@given(contents=ANY_CONTENTS)
def test_what_was_sealed_opens(way, contents):
    assert way.decrypt(stored(way, contents), VERIFIER) == contents


@each_way
@pytest.mark.parametrize("size", [0, 200, 300, 65_000, 70_000])
def test_data_of_every_size_opens(way, size):
    """The length of the sealed part is spelled in one way, however long it is."""
    contents = Contents("ada", {}, {"k": bytes(size)})
    assert way.decrypt(stored(way, contents), VERIFIER) == contents


@each_way
@given(contents=ANY_CONTENTS, later=ANY_CONTENTS)
def test_a_save_over_an_earlier_body_opens(way, contents, later):
    """A session changes user, labels and data during its life; the ticket stays."""
    first = way.encrypt(ID, contents, verifier=VERIFIER)
    second = way.encrypt(ID, later, verifier=VERIFIER, base=first)
    assert way.decrypt(record(second), VERIFIER) == later


def test_clear_bodies_are_those_of_a_record():
    """Without encryption, the format is that of a record."""
    body = CLEAR.encrypt(ID, CONTENTS, verifier=VERIFIER)
    assert body == pack_body("ada", {"browser": "Firefox"}, CONTENTS.data)
    assert CLEAR.decrypt(record(body), VERIFIER) == record(body).contents()


@each_sealing
@pytest.mark.parametrize("user", [None, "ada"])
def test_lists_read_user_and_labels_without_a_key(way, user):
    """ASVS 7.5.2: who is listed where needs neither ticket nor secret."""
    found = stored(way, Contents(user, {"idp_sid": "s-1"}, {"a": b"\x01"}))
    assert found.index_names() == (() if user is None else ("user:ada", "idp_sid:s-1"))


# What the database shows


@each_sealing
@given(value=st.text("abcdefghij", min_size=8, max_size=40))
def test_the_database_shows_nothing_of_the_data(way, value):
    """B-48, ASVS 14.2: neither values nor keys are in what is stored."""
    body = stored(way, Contents("ada", {}, {"a key of the handler": value.encode()})).body
    assert value.encode() not in body
    assert b"a key of the handler" not in body


@each_sealing
def test_the_same_data_is_sealed_differently_each_time(way):
    """B-15: a reader of the database does not even see that a value came back."""
    bodies = {sealed_part(way.encrypt(ID, CONTENTS, verifier=VERIFIER))[-40:] for _ in range(100)}
    assert len(bodies) == 100
    base = way.encrypt(ID, CONTENTS, verifier=VERIFIER)
    again = {way.encrypt(ID, CONTENTS, verifier=VERIFIER, base=base)[-40:] for _ in range(100)}
    assert len(again) == 100


@pytest.mark.parametrize("way", ALL, ids=lambda way: type(way).__name__)
def test_no_representation_shows_a_key(way):
    """A18."""
    assert NEW.decode() not in repr(way)
    assert VERIFIER.decode() not in repr(way)


# An attacker with write access to the database


@each_sealing
def test_every_flipped_bit_is_refused(way):
    """B-15: in user, labels, length, mark, slot, nonce, tag and data alike."""
    body = stored(way).body
    free = range(0)
    if way is BY_TICKET:  # the second slot is empty and free to hold anything: it opens nothing
        start = body.index(sealed_part(body)) + 1 + 48
        free = range(start, start + 48)
    for bit in range(8 * len(body)):
        flipped = bytearray(body)
        flipped[bit // 8] ^= 1 << bit % 8
        if bit // 8 in free:
            assert way.decrypt(record(bytes(flipped)), VERIFIER) == CONTENTS
        else:
            assert refused(way, bytes(flipped))


@each_sealing
def test_bodies_cut_or_lengthened_are_refused(way):
    """B-21: at every byte, and cuts inside the sealed part whose length was mended too."""
    body = stored(way).body
    sealed = sealed_part(body)
    head = body[: -len(sealed) - 4]
    for end in range(len(body)):
        assert refused(way, body[:end])
    for end in range(len(sealed)):
        assert refused(way, head + end.to_bytes(4) + sealed[:end])
        assert refused(way, head + (len(sealed) - end - 1).to_bytes(4) + sealed[end + 1 :])
    for tail in (b"\0", b"\xc0", bytes(16)):
        assert refused(way, body + tail)
        assert refused(way, head + (len(sealed) + len(tail)).to_bytes(4) + sealed + tail)
        assert refused(way, b"\x94" + body[1:] + tail)


@each_sealing
@given(junk=st.binary(max_size=300))
def test_no_bytes_of_others_open(way, junk):
    """S9, B-13: whatever it is, the answer is UnreadableRecord and nothing else."""
    assert refused(way, junk)
    head = stored(way).body[: -len(sealed_part(stored(way).body)) - 4]
    for mark in (b"", b"\x01", b"\x02"):
        assert refused(way, head + len(mark + junk).to_bytes(4) + mark + junk)


@each_sealing
def test_a_body_does_not_open_in_another_session(way):
    """Who may write to the database cannot swap records, with one ticket or with two."""
    body = stored(way).body
    assert refused(way, body, session_id=OTHER_ID)
    other = way.encrypt(OTHER_ID, CONTENTS, verifier=STRANGER)
    for verifier in (VERIFIER, STRANGER):
        assert refused(way, body, session_id=OTHER_ID, verifier=verifier)
        assert refused(way, other, verifier=verifier)


@each_sealing
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
def test_user_and_labels_cannot_be_changed_beside_the_data(way, contents):
    """A session must not become another user's by an UPDATE."""
    mine, theirs = stored(way).body, stored(way, contents).body
    cut = len(theirs) - len(sealed_part(theirs))
    assert refused(way, theirs[:cut] + sealed_part(mine))


@each_sealing
def test_a_body_spelled_otherwise_is_refused(way):
    """What is bound are the bytes, so msgpack's other spellings of the same change nothing."""
    body = stored(way).body
    sealed = sealed_part(body)
    short = msgspec.msgpack.encode(["ada", {"browser": "Firefox"}, sealed])
    assert short != body
    assert refused(way, short)
    assert refused(way, b"\xdc\x00\x03" + body[1:])
    assert refused(way, body.replace(b"\xa3ada", b"\xd9\x03ada", 1))


@each_sealing
def test_a_body_in_clear_is_refused_while_encryption_is_on(way):
    """Otherwise an attacker with write access to the database could plant a body."""
    assert refused(
        way, stored(CLEAR).body, match="is plaintext, and encrypt is on: it may be forged$"
    )
    with pytest.raises(UnreadableRecord, match="is plaintext"):
        way.decrypt(record(pack_body("root", {}, {})), VERIFIER)


@pytest.mark.parametrize(
    "use",
    [
        lambda body: BY_TICKET.encrypt(ID, CONTENTS, verifier=VERIFIER, base=body),
        lambda body: BY_TICKET.rewrap(record(body), VERIFIER, new=NEXT),
        lambda body: BY_TICKET.drop_previous(record(body)),
    ],
    ids=["encrypt", "rewrap", "drop_previous"],
)
def test_no_planted_body_is_built_upon(use):
    """Neither one in clear, nor one by secret, nor junk lends anything to the next body."""
    for body in (stored(CLEAR).body, stored(BY_SECRET).body, b"junk"):
        with pytest.raises(UnreadableRecord):
            use(body)


@each_sealing
def test_a_sealed_body_is_refused_while_encryption_is_off(way):
    assert refused(CLEAR, stored(way).body, match=" is encrypted, and encrypt is off$")


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x93\xc0\x80", pickle.dumps({"user": "root"})])
def test_damaged_bodies_are_refused_in_every_mode(body):
    """S9, B-10."""
    for way in ALL:
        assert refused(way, body, match="damaged")


def test_text_that_is_no_text_is_refused_in_every_mode():
    for way in ALL:
        assert refused(way, stored(way).body.replace(b"Firefox", b"\xff\xff\xff\xff\xff\xff\xff"))


def test_a_body_of_one_mode_does_not_open_in_the_other():
    """Encryption by ticket never falls back to encryption by secret."""
    assert refused(BY_TICKET, stored(BY_SECRET).body, match="another mode")
    assert refused(
        BY_SECRET, stored(BY_TICKET).body, match=" was encrypted in another mode of encrypt$"
    )
    for way, mark in ((BY_TICKET, b"\x02"), (BY_SECRET, b"\x01")):
        other = stored(BY_SECRET if way is BY_TICKET else BY_TICKET).body
        at = other.index(sealed_part(other))
        assert refused(way, other[:at] + mark + other[at + 1 :])


def test_an_attacker_with_the_key_still_runs_no_code():
    """B-11: with the secret leaked, a crafted body is unreadable and not more."""
    plain = pickle.dumps({"user": "root"})
    head = b"\x93\xc0\x80\xc6" + (1 + 16 + 16 + len(plain)).to_bytes(4)
    cipher = AESSIV(derive(NEW, b"data", "default", 64))
    body = head + b"\x01" + bytes(16) + cipher.encrypt(plain, [ID + bytes(16) + b"\x01" + head])
    assert refused(BY_SECRET, body, match="damaged")


# Keys


@each_class
def test_newest_secret_seals_and_every_secret_opens(kind):
    """ASVS 11.2.2: records from before a secret was replaced keep working."""
    old, ring, new = (kind(each, realm="default") for each in ([OLD], [NEW, OLD], [NEW]))
    before = stored(old)
    assert ring.decrypt(before, VERIFIER) == CONTENTS
    assert refused(new, before.body)
    after = stored(ring)
    assert new.decrypt(after, VERIFIER) == CONTENTS
    assert refused(old, after.body)


@each_class
def test_a_save_moves_a_record_to_the_newest_secret(kind):
    """ASVS 11.2.2: an old secret can be taken out once the records have been written again."""
    old, ring, new = (kind(each, realm="default") for each in ([OLD], [NEW, OLD], [NEW]))
    body = old.encrypt(ID, CONTENTS, verifier=VERIFIER)
    saved = ring.encrypt(ID, CONTENTS, verifier=VERIFIER, base=body)
    assert new.decrypt(record(saved), VERIFIER) == CONTENTS
    assert refused(old, saved)


def test_during_a_rotation_each_ticket_moves_its_own_half():
    """ASVS 11.2.2: a save by the former ticket leaves the wrapping of the current one alone."""
    old, ring, new = (TicketCipher(each, realm="default") for each in ([OLD], [NEW, OLD], [NEW]))
    body = old.rewrap(stored(old), VERIFIER, new=NEXT)
    saved = ring.encrypt(ID, CONTENTS, verifier=VERIFIER, base=body)
    assert new.decrypt(record(saved), VERIFIER) == CONTENTS
    assert refused(new, saved, verifier=NEXT)
    assert ring.decrypt(record(saved), NEXT) == CONTENTS


@each_class
def test_another_realm_reads_nothing(kind):
    """S14, B-29."""
    assert refused(kind([NEW], realm="other"), stored(kind([NEW], realm="default")).body)


# By ticket


@given(verifier=st.binary(min_size=16, max_size=16))
def test_database_and_secret_together_read_nothing(verifier):
    """B-48: of the verifier, which has a part in the key, the database has only a hash."""
    body = stored(BY_TICKET).body
    assert verifier == VERIFIER or refused(BY_TICKET, body, verifier=verifier)


def test_the_secret_has_a_part_in_the_key_of_a_ticket():
    """A stolen ticket without the secret opens nothing either."""
    assert refused(TicketCipher([OLD], realm="default"), stored(BY_TICKET).body)


def test_the_wrapping_key_is_one_block_of_hkdf_expand():
    """RFC 5869 2.3: T(1) = HMAC(PRK, info | 0x01), written out, so that no release changes it."""
    body = stored(BY_TICKET).body
    root = derive(NEW, b"data by ticket", "default", 32)
    wrapper = AESSIV(digest(root, VERIFIER + b"\x01", "sha256"))
    assert len(wrapper.decrypt(sealed_part(body)[1:49], [b"\x02" + ID])) == 32


def test_a_rotation_wraps_the_key_again_and_keeps_the_data():
    """Both tickets open the body until the new one was seen; a stranger's never does."""
    before = stored(BY_TICKET)
    after = record(BY_TICKET.rewrap(before, VERIFIER, new=NEXT))
    assert after.body[-50:] == before.body[-50:]  # nonce, tag and 18 bytes of data
    assert len(after.body) == len(before.body)
    for verifier in (VERIFIER, NEXT):
        assert BY_TICKET.decrypt(after, verifier) == CONTENTS
    assert refused(BY_TICKET, after.body, verifier=STRANGER)
    assert refused(BY_TICKET, after.body, verifier=bytes(16))


@pytest.mark.parametrize("writer", [VERIFIER, NEXT])
def test_a_save_by_either_ticket_of_a_rotation_opens_for_both(writer):
    """Parallel requests of a rotating session lose nothing."""
    body = BY_TICKET.rewrap(stored(BY_TICKET), VERIFIER, new=NEXT)
    later = Contents("ada", {}, {"n": b"\x02"})
    saved = BY_TICKET.encrypt(ID, later, verifier=writer, base=body)
    for reader in (VERIFIER, NEXT):
        assert BY_TICKET.decrypt(record(saved), reader) == later


def test_a_second_rotation_shuts_the_first_ticket_out():
    once = record(BY_TICKET.rewrap(stored(BY_TICKET), VERIFIER, new=NEXT))
    twice = BY_TICKET.rewrap(once, NEXT, new=STRANGER)
    assert BY_TICKET.decrypt(record(twice), STRANGER) == CONTENTS
    assert BY_TICKET.decrypt(record(twice), NEXT) == CONTENTS
    assert refused(BY_TICKET, twice, verifier=VERIFIER)


def test_a_former_ticket_is_forgotten_when_the_new_one_was_seen():
    rotated = record(BY_TICKET.rewrap(stored(BY_TICKET), VERIFIER, new=NEXT))
    body = BY_TICKET.drop_previous(rotated)
    assert BY_TICKET.decrypt(record(body), NEXT) == CONTENTS
    assert refused(BY_TICKET, body, verifier=VERIFIER)


def test_a_login_takes_a_new_key_that_no_earlier_ticket_opens():
    """ASVS 7.2.4, B-25: also with the secret and the record as it was before the login."""
    anonymous = stored(BY_TICKET)
    login = BY_TICKET.encrypt(ID, CONTENTS, verifier=NEXT)
    assert refused(BY_TICKET, login, verifier=VERIFIER)
    before, after = sealed_part(anonymous.body), sealed_part(login)
    head = login[: -len(after)]
    assert refused(BY_TICKET, head + before[:97] + after[97:])


def test_a_stranger_can_neither_save_over_a_body_nor_rotate_it():
    found = stored(BY_TICKET)
    with pytest.raises(UnreadableRecord):
        BY_TICKET.encrypt(ID, CONTENTS, verifier=STRANGER, base=found.body)
    with pytest.raises(UnreadableRecord):
        BY_TICKET.rewrap(found, STRANGER, new=NEXT)


@pytest.mark.parametrize("way", [CLEAR, BY_SECRET], ids=lambda way: type(way).__name__)
def test_without_the_ticket_in_the_key_a_rotation_changes_no_body(way):
    found = stored(way)
    assert way.rewrap(found, VERIFIER, new=NEXT) is found.body
    assert way.drop_previous(found) is found.body


# The option


@pytest.mark.parametrize(
    ("encrypt", "kind"), [(False, Plaintext), (True, SecretCipher), ("ticket", TicketCipher)]
)
def test_the_option_chooses_the_cipher(encrypt, kind):
    assert type(body_cipher(encrypt, [NEW], realm="default")) is kind


@pytest.mark.parametrize("encrypt", [None, 0, 1, "", "secret", "Ticket", b"ticket"])
def test_any_other_value_is_a_configuration_error(encrypt):
    """B-60: data must not be believed to be encrypted when it is not."""
    with pytest.raises(ConfigurationError, match=r"encrypt expects False, True or 'ticket'"):
        body_cipher(encrypt, [NEW], realm="default")


@pytest.mark.parametrize("encrypt", [False, True, "ticket"])
def test_a_valid_option_is_returned(encrypt):
    assert check_encrypt(encrypt) == encrypt
