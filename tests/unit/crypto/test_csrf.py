"""CSRF tokens: the token of a session is accepted, every other text is refused."""

import base64
import inspect
from hmac import digest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn._crypto import csrf
from sojourn._crypto.csrf import TOKEN_CHARACTERS, CsrfTokens
from sojourn._crypto.tickets import derive, hash_verifier
from sojourn.record import NO_VERIFIER

OLD, NEW = b"an older secret of the ring, 32 B", b"the newest secret of this ring 32"
CURRENT, FORMER, FOREIGN = (hash_verifier(each * 16) for each in (b"c", b"f", b"x"))
TOKENS = CsrfTokens([NEW, OLD], realm="default")
TOKEN = TOKENS.make(CURRENT)


@given(st.binary(min_size=16, max_size=16))
def test_a_session_accepts_its_own_token(verifier):
    """ASVS 3.5.1, NIST SESS-19, SESS-20."""
    token = TOKENS.make(hash_verifier(verifier))
    assert len(token) == TOKEN_CHARACTERS
    assert TOKENS.check(token, [hash_verifier(verifier)])


def test_the_token_of_another_session_is_refused():
    """NIST SESS-20: an attacker has valid tokens of the attacker's own session."""
    assert not TOKENS.check(TOKENS.make(FOREIGN), [CURRENT, FORMER])
    assert not TOKENS.check(TOKEN, [FOREIGN])
    assert not TOKENS.check(TOKEN, [])


def test_a_token_is_valid_as_long_as_its_verifier():
    """NIST SESS-20: until the grace period of a rotation ends, so that open forms still work."""
    earlier = TOKENS.make(FORMER)
    assert TOKENS.check(earlier, [CURRENT, FORMER])
    assert not TOKENS.check(earlier, [CURRENT, NO_VERIFIER])
    assert not TOKENS.check(earlier, [CURRENT])


def test_two_tokens_of_one_session_have_no_common_part():
    """BREACH: pages that are loaded repeatedly never repeat the secret part."""
    made = [TOKENS.make(CURRENT) for _ in range(200)]
    for at in range(TOKEN_CHARACTERS - 1):
        assert len({token[at] for token in made}) > 20
    assert all(TOKENS.check(token, [CURRENT]) for token in made)


def test_a_session_without_a_verifier_has_no_token():
    """NIST SESS-20: a token shared by all visitors would be known to the attacker."""
    with pytest.raises(ValueError, match="verifier"):
        TOKENS.make(NO_VERIFIER)


def test_no_token_is_accepted_for_an_absent_verifier():
    """NIST SESS-20: 32 zero bytes in a record mean that there is no previous verifier."""
    mac = digest(derive(NEW, b"csrf", "default", 32), NO_VERIFIER, "sha256")
    token = base64.urlsafe_b64encode(bytes(32) + mac)[:TOKEN_CHARACTERS].decode()
    assert not TOKENS.check(token, [NO_VERIFIER])
    assert not TOKENS.check(token, [CURRENT, NO_VERIFIER])


def test_a_token_is_the_documented_hmac():
    """Computed independently, so that no release invalidates the tokens of open pages."""
    mac = digest(derive(NEW, b"csrf", "default", 32), CURRENT, "sha256")
    raw = base64.urlsafe_b64decode(TOKEN + "==")
    assert bytes(a ^ b for a, b in zip(raw[:32], raw[32:], strict=True)) == mac


def test_tokens_are_made_with_the_newest_secret_and_accepted_with_every_secret():
    """ASVS 11.2.2: open pages stay valid when a secret is replaced."""
    old, new = CsrfTokens([OLD], realm="default"), CsrfTokens([NEW], realm="default")
    assert TOKENS.check(old.make(CURRENT), [CURRENT])
    assert new.check(TOKEN, [CURRENT])
    assert not old.check(TOKEN, [CURRENT])


def test_a_token_of_another_realm_is_refused():
    """B-29, S14."""
    assert not CsrfTokens([NEW, OLD], realm="other").check(TOKEN, [CURRENT])


def test_a_token_with_a_flipped_bit_is_refused():
    raw = base64.urlsafe_b64decode(TOKEN + "==")
    for bit in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        text = base64.urlsafe_b64encode(flipped)[:TOKEN_CHARACTERS].decode()
        assert not TOKENS.check(text, [CURRENT])


@pytest.mark.parametrize(
    "value",
    [
        None, "", 0, True, [], {}, object(), TOKEN.encode(), [TOKEN], TOKEN[:-1], TOKEN + "A",
        TOKEN + "==", " " + TOKEN[1:], TOKEN[:-1] + "\n", "é" * 86, "A" * 86, "=" * 86,
        "+" + TOKEN[1:], "\0" * 86,
    ],
    ids=lambda value: type(value).__name__,  # not the value: TOKEN is random
)  # fmt: skip
def test_a_value_that_is_not_a_token_is_refused_without_an_error(value):
    assert TOKENS.check(value, [CURRENT]) is False


@given(st.text(max_size=100))
def test_no_forgery_is_accepted(text):
    assert text == TOKEN or not TOKENS.check(text, [CURRENT])


def test_tokens_are_compared_in_constant_time():
    """B-17."""
    source = inspect.getsource(csrf.CsrfTokens.check)
    assert "compare_digest(mac" in source


def test_no_representation_shows_a_key():
    """A18."""
    assert NEW.decode() not in repr(TOKENS)
    assert repr(derive(NEW, b"csrf", "default", 32)) not in repr(TOKENS)
