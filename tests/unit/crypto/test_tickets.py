"""Tickets: sealed by one key ring, unsealed only by the same, and every forgery is refused."""

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn._crypto.tickets import (
    MAX_CACHED_TICKETS,
    KeyRing,
    Ticket,
    derive,
    hash_verifier,
    is_well_formed,
    mint_id,
    mint_verifier,
)

OLD, NEW = b"an older secret of the ring, 32 B", b"the newest secret of this ring 32"
NAME = b"__Host-sid"
ALPHABET = string.ascii_letters + string.digits + "-_"
TICKET = Ticket(bytes(range(16)), bytes(range(16, 32)))
RING = KeyRing([NEW, OLD], realm="default")
SEALED = RING.seal(TICKET, name=NAME)


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_a_sealed_ticket_is_unsealed(session_id, verifier):
    ticket = Ticket(session_id, verifier)
    text = RING.seal(ticket, name=NAME)
    assert len(text) == 66
    assert set(text) <= set(ALPHABET)
    assert RING.unseal(text, name=NAME) == ticket


def test_equal_tickets_have_equal_seals_and_different_ones_share_no_part():
    """RFC 5297: deterministic encryption; B-15: no part of the plaintext is visible."""
    assert RING.seal(TICKET, name=NAME) == SEALED
    other = RING.seal(Ticket(TICKET.session_id, bytes(16)), name=NAME)
    assert other[:22] != SEALED[:22]


def test_tickets_are_sealed_with_the_newest_secret_and_unsealed_with_every_secret():
    """ASVS 11.2.2: a secret can be replaced without ending sessions."""
    old, new = KeyRing([OLD], realm="default"), KeyRing([NEW], realm="default")
    assert RING.unseal(old.seal(TICKET, name=NAME), name=NAME) == TICKET
    assert new.unseal(SEALED, name=NAME) == TICKET
    assert old.unseal(SEALED, name=NAME) is None


def test_two_processes_with_one_secret_unseal_each_others_tickets():
    """B-19."""
    assert KeyRing([NEW], realm="default").unseal(SEALED, name=NAME) == TICKET


@pytest.mark.parametrize("realm", ["Default", "other", "default2", ""])
def test_a_ticket_of_another_realm_is_refused(realm):
    """A8, B-29, S14."""
    assert KeyRing([NEW, OLD], realm=realm).unseal(SEALED, name=NAME) is None


@pytest.mark.parametrize("name", [b"sid", b"__host-sid", b"__Host-sid2", b""])
def test_a_ticket_of_another_cookie_is_refused(name):
    """B-14."""
    assert RING.unseal(SEALED, name=name) is None


def test_a_ticket_with_a_flipped_bit_is_refused():
    """B-15, B-13."""
    raw = base64.urlsafe_b64decode(SEALED + "==")
    for bit in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        text = base64.urlsafe_b64encode(flipped)[:66].decode()
        assert RING.unseal(text, name=NAME) is None


def test_truncated_and_extended_tickets_are_refused():
    for length in range(66):
        assert RING.unseal(SEALED[:length], name=NAME) is None
    for tail in ("A", "=", "==", "\n", " ", "\0"):
        assert RING.unseal(SEALED + tail, name=NAME) is None
        assert RING.unseal(tail + SEALED, name=NAME) is None


def test_a_ticket_has_one_encoding():
    """The four unused bits of the last character must be zero; else 16 texts would be valid."""
    opened = [last for last in ALPHABET if RING.unseal(SEALED[:65] + last, name=NAME)]
    assert opened == [SEALED[65]]
    for text in (SEALED.replace("-", "+").replace("_", "/"), SEALED + "==", SEALED.upper()):
        assert text == SEALED or RING.unseal(text, name=NAME) is None


@given(st.text(max_size=80) | st.text(ALPHABET, min_size=66, max_size=66))
def test_arbitrary_text_is_refused(text):
    """A8, B-13: the result is None, never an exception."""
    assert text == SEALED or RING.unseal(text, name=NAME) is None


def test_a_ticket_of_another_version_is_refused():
    cipher = RING._ciphers[0]
    for version, opened in (
        (b"\0", None),
        (b"\x01", Ticket(bytes(16), bytes(16))),
        (b"\x02", None),
    ):
        sealed = cipher.encrypt(version + bytes(32), [RING._context + NAME])
        text = base64.urlsafe_b64encode(sealed)[:66].decode()
        assert RING.unseal(text, name=NAME) == opened


def test_ids_and_verifiers_are_128_random_bits():
    """ASVS 7.2.3, 11.5.1."""
    for mint in (mint_id, mint_verifier):
        minted = {mint() for _ in range(1_000)}
        assert len(minted) == 1_000
        assert {len(one) for one in minted} == {16}
        assert all(len({one[n] for one in minted}) > 200 for n in range(16))


def test_keys_differ_by_purpose_realm_and_secret():
    keys = {
        derive(secret, purpose, realm, 32)
        for secret in (OLD, NEW)
        for purpose in (b"ticket", b"csrf")
        for realm in ("a", "b")
    }
    assert len(keys) == 8


def test_the_digest_of_a_verifier_is_its_sha256():
    """B-48."""
    assert len(hash_verifier(TICKET.verifier)) == 32
    assert TICKET.verifier not in hash_verifier(TICKET.verifier)


def test_reprs_contain_no_secret():
    """A18."""
    assert repr(TICKET) == f"Ticket({TICKET.session_id.hex()})"
    assert str(TICKET) == repr(TICKET)
    assert repr(RING) == "KeyRing(2 keys)"


def test_a_cached_ticket_is_accepted_for_its_own_cookie_only():
    """B-14: the cache of unsealed tickets is not shared between cookies."""
    ring = KeyRing([NEW], realm="default")
    text = ring.seal(TICKET, name=NAME)
    first = ring.unseal(text, name=NAME)
    assert ring.unseal(text, name=NAME) is first
    assert ring.unseal(text, name=b"other") is None
    assert ring.unseal(text, name=NAME) == TICKET


def test_a_ticket_in_the_older_cache_generation_is_accepted_for_its_own_cookie_only():
    """B-14."""
    ring = KeyRing([NEW], realm="default")
    text = ring.seal(TICKET, name=NAME)
    assert ring.unseal(text, name=NAME) == TICKET
    for number in range(MAX_CACHED_TICKETS):
        other = ring.seal(Ticket(number.to_bytes(16), bytes(16)), name=NAME)
        ring.unseal(other, name=NAME)
    assert ring.cached_tickets() == MAX_CACHED_TICKETS + 1
    assert ring.unseal(text, name=b"sid") is None
    assert ring.unseal(text, name=NAME) == TICKET


def test_a_ticket_of_an_older_secret_is_unsealed():
    """A secret is replaced without a logout; the order of secrets does not matter."""
    text = KeyRing([OLD], realm="default").seal(TICKET, name=NAME)
    for secrets in ([NEW, OLD], [OLD, NEW], [NEW, NEW, OLD]):
        assert KeyRing(secrets, realm="default").unseal(text, name=NAME) == TICKET
    assert KeyRing([NEW], realm="default").unseal(text, name=NAME) is None


def test_the_ticket_cache_is_bounded_and_keeps_no_invalid_text():
    """B-54: text from clients never fills the memory."""
    ring = KeyRing([NEW], realm="default")
    first = ring.seal(TICKET, name=NAME)
    opened = ring.unseal(first, name=NAME)
    for number in range(3 * MAX_CACHED_TICKETS):
        ring.unseal(f"{number:065d}A", name=NAME)
    assert ring.unseal(first, name=NAME) is opened, "invalid text evicts no ticket"
    for number in range(2 * MAX_CACHED_TICKETS):
        ring.unseal(ring.seal(Ticket(number.to_bytes(16), bytes(16)), name=NAME), name=NAME)
    assert ring.cached_tickets() <= 2 * MAX_CACHED_TICKETS
    again = ring.unseal(first, name=NAME)
    assert again == opened
    assert again is not opened


def test_the_form_of_a_ticket_does_not_depend_on_its_secret():
    """A8: a ticket of another secret is distinguished from malformed text."""
    other = KeyRing([b"another secret of 32 random byte"], realm="other")
    for text in (SEALED, other.seal(TICKET, name=NAME), "A" * 66):
        assert is_well_formed(text)
    for text in ("", SEALED[:-1], SEALED + "A", "A" * 65 + "B", "+" + SEALED[1:], SEALED + "\n"):
        assert not is_well_formed(text)
