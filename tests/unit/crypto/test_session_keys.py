"""Session keys of ``_crypto/session_keys.py``."""

import pytest

from sojourn._crypto.session_keys import KEY_CHARACTERS, SessionKeys

SECRETS = (b"a secret of sixteen bytes or more", b"a former secret, as long as that")
ID = bytes(range(16))


def keys(*secrets, realm="default"):
    return SessionKeys(secrets or SECRETS, realm=realm)


def test_a_key_identifies_its_session():
    key = keys().make(ID)
    assert len(key) == KEY_CHARACTERS
    assert keys().read(key) == ID


def test_the_derivation_of_keys_never_changes():
    """Applications store keys."""
    assert keys().make(ID) == "AAECAwQFBgcICQoLDA0OD9Cfsmtokdfr1jr0xbpb"


def test_a_key_of_a_former_secret_is_accepted():
    assert keys().read(keys(SECRETS[1]).make(ID)) == ID


@pytest.mark.parametrize("other", [keys(b"another secret, as long as these"), keys(realm="shop")])
def test_a_key_of_another_secret_or_realm_is_refused(other):
    """S14."""
    assert other.read(keys().make(ID)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        ID.hex(),
        "A" * KEY_CHARACTERS,
        "é" * KEY_CHARACTERS,
        "!" * KEY_CHARACTERS,
        "!" + "a" * 39,
    ],
)
def test_a_text_that_is_not_a_key_is_refused(text):
    """Such as a public session ID."""
    assert keys().read(text) is None


@pytest.mark.parametrize("place", range(KEY_CHARACTERS))
def test_a_changed_key_is_refused(place):
    key = keys().make(ID)
    changed = key[:place] + ("A" if key[place] != "A" else "B") + key[place + 1 :]
    assert keys().read(changed) is None
