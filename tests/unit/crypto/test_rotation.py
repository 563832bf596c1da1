"""VerifierChain: the next verifier of a session, and its recognition."""

from hmac import digest

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sojourn._crypto.rotation import MAX_DESCENDANTS, VerifierChain
from sojourn._crypto.tickets import hash_verifier

OLD, NEW = b"an older secret of the ring, 32 B", b"the newest secret of this ring 32"
ID, VERIFIER = b"i" * 16, b"v" * 16


def following(chain, number, verifier=VERIFIER):
    for _ in range(number):
        verifier = chain.next_verifier(ID, verifier)
    return verifier


def test_the_derivation_never_changes():
    """B-40: processes of different releases must recognise each other's verifiers."""
    info = b"sojourn/v1/rotation/shop"
    key = HKDF(algorithm=SHA256(), length=32, salt=b"sojourn", info=info).derive(NEW)
    chain = VerifierChain([NEW, OLD], realm="shop")
    assert chain.next_verifier(ID, VERIFIER) == digest(key, ID + VERIFIER, "sha256")[:16]


@pytest.mark.parametrize("secrets", [[NEW], [NEW, OLD], [OLD, NEW]])
def test_a_replaced_verifier_is_recognised_as_a_predecessor(secrets):
    """A9, B-40: for a limited number of rotations, also with an older secret."""
    current = following(VerifierChain([NEW], realm="shop"), MAX_DESCENDANTS)
    chain = VerifierChain(secrets, realm="shop")
    assert chain.descendant(ID, VERIFIER, hashed=hash_verifier(current)) == current
    later = following(VerifierChain([NEW], realm="shop"), 1, current)
    assert chain.descendant(ID, VERIFIER, hashed=hash_verifier(later)) is None


def test_no_verifier_of_another_session_realm_or_secret_is_recognised():
    """A9, B-29."""
    chain = VerifierChain([NEW], realm="shop")
    hashed = hash_verifier(following(chain, 1))
    assert chain.descendant(bytes(16), VERIFIER, hashed=hashed) is None
    assert chain.descendant(ID, bytes(16), hashed=hashed) is None
    assert VerifierChain([NEW], realm="other").descendant(ID, VERIFIER, hashed=hashed) is None
    assert VerifierChain([OLD], realm="shop").descendant(ID, VERIFIER, hashed=hashed) is None
