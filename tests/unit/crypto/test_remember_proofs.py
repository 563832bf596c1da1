"""Proofs in "remember me" cookies, of ``_crypto/remember_proofs.py``."""

import pytest

from sojourn._crypto.remember_proofs import PROOF_CHARACTERS, RememberProof, RememberProofs

SECRETS = [b"one secret of these tests 1", b"an older secret of these 2"]
PROOF = RememberProof(1_764_000_000_000, bytes(range(16)))


def proofs(*secrets, realm="default"):
    return RememberProofs(secrets or SECRETS, realm=realm)


def test_a_proof_is_a_string_of_fixed_length():
    text = proofs().seal(PROOF, "ada", name="sid-remember")
    assert len(text) == PROOF_CHARACTERS
    assert proofs().unseal(text, "ada", name="sid-remember") == PROOF


def test_proofs_of_older_secrets_are_valid():
    text = proofs(SECRETS[1]).seal(PROOF, "ada", name="sid-remember")
    assert proofs().unseal(text, "ada", name="sid-remember") == PROOF
    assert proofs(SECRETS[0]).unseal(text, "ada", name="sid-remember") is None


@pytest.mark.parametrize(
    ("user", "name", "realm"),
    [("eve", "c", "default"), ("ada", "d", "default"), ("ada", "c", "other")],
)
def test_a_proof_is_for_one_user_cookie_and_realm(user, name, realm):
    """B-14, B-29."""
    text = proofs().seal(PROOF, "ada", name="c")
    assert proofs(realm=realm).unseal(text, user, name=name) is None


def test_a_changed_proof_is_invalid():
    """B-14: including the unused bits of the last character."""
    text = proofs().seal(PROOF, "ada", name="c")
    for position in range(PROOF_CHARACTERS):
        for character in "AQgw_-0z":
            changed = text[:position] + character + text[position + 1 :]
            assert changed == text or proofs().unseal(changed, "ada", name="c") is None
    for other in ("", text[:-1], text + "A", "=" * PROOF_CHARACTERS, "\xe9" * PROOF_CHARACTERS):
        assert proofs().unseal(other, "ada", name="c") is None


def test_a_proof_of_another_version_is_invalid(monkeypatch):
    monkeypatch.setattr("sojourn._crypto.remember_proofs._VERSION", b"\x02")
    text = proofs().seal(PROOF, "ada", name="c")
    monkeypatch.undo()
    assert proofs().unseal(text, "ada", name="c") is None
