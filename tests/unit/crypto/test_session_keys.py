"""Session keys of ``_crypto/session_keys.py``."""

import pytest

from sojourn._crypto.session_keys import KEY_CHARACTERS, SessionKeys

SECRETS = (b"a secret of sixteen bytes or more", b"a former secret, as long as that")
ID = bytes(range(16))


def keys(*secrets, realm="default"):
    return SessionKeys(secrets or SECRETS, realm=realm)


def test_a_key_names_its_session():
    key = keys().make(ID)
    assert len(key) == KEY_CHARACTERS
    assert keys().read(key) == ID


def test_the_keys_of_a_secret_stay_the_same():
    """Other applications have stored them."""
    assert keys().make(ID) == "AAECAwQFBgcICQoLDA0OD9Cfsmtokdfr1jr0xbpb"


def test_a_former_secret_still_reads():
    assert keys().read(keys(SECRETS[1]).make(ID)) == ID


@pytest.mark.parametrize("other", [keys(b"another secret, as long as these"), keys(realm="shop")])
def test_a_key_of_another_secret_or_realm_names_nothing(other):
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
def test_another_text_names_nothing(text):
    """A public ID is no key."""
    assert keys().read(text) is None


@pytest.mark.parametrize("place", range(KEY_CHARACTERS))
def test_a_changed_key_names_nothing(place):
    key = keys().make(ID)
    changed = key[:place] + ("A" if key[place] != "A" else "B") + key[place + 1 :]
    assert keys().read(changed) is None
