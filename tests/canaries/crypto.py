"""Canaries of tickets, rotation, encryption, CSRF tokens and the secret key."""

import logging
import pickle
import secrets

from sojourn._crypto.tickets import Ticket
from tests.canaries.registry import canary

TICKETS = "sojourn._crypto.tickets"
ENCRYPTION = "sojourn._crypto.encryption"


def forged(text):
    """Return a ticket whose ID and verifier are the characters of a text."""
    data = text.encode().ljust(32, b"0")
    return Ticket(data[:16], data[16:32])


@canary("A8, B-13, B-15", f"{TICKETS}:KeyRing._decrypt", tests="crypto/test_tickets")
def a_ticket_that_cannot_be_unsealed_is_decoded(decrypt):
    def faulty(self, text, name):
        return decrypt(self, text, name) or forged(text)

    return faulty


@canary(
    "A8, B-22, B-23, B-24, B-30, B-31",
    f"{TICKETS}:KeyRing.unseal",
    tests="security/test_tickets TestBareASGI",
)
def any_text_is_accepted_as_a_session_id(unseal):
    def faulty(self, text, name):
        return unseal(self, text, name) or forged(text)

    return faulty


@canary("B-42, B-46, B-47", f"{TICKETS}:KeyRing.unseal", tests="security/test_tickets")
def a_session_id_is_accepted_as_a_ticket(unseal):
    def faulty(self, text, name):
        if len(text) == 32:
            return Ticket(bytes.fromhex(text), bytes(16))
        return unseal(self, text, name)

    return faulty


@canary("B-14", f"{TICKETS}:KeyRing.seal", f"{TICKETS}:KeyRing.unseal", tests="crypto/test_tickets")
def tickets_are_valid_for_every_cookie(method):
    def seal(self, ticket, *, name):
        return method(self, ticket, name=b"any")

    def unseal(self, text, name):
        return method(self, text, b"any")

    return seal if method.__name__ == "seal" else unseal


@canary("B-29", f"{TICKETS}:KeyRing.__init__", tests="crypto/test_tickets")
def realms_share_their_keys(init):
    def faulty(self, secrets, *, realm):
        init(self, secrets, realm="any")

    return faulty


@canary("B-48, B-18", f"{TICKETS}:hash_verifier", tests="crypto/test_tickets test_promises")
def records_hold_the_verifier(hash_verifier):
    def faulty(verifier):
        return verifier * 2

    return faulty


@canary("B-19", "sojourn._crypto.secret_key:read_or_create_secrets", tests="test_sessions")
def each_worker_generates_a_secret(read_or_create_secrets):
    def faulty(path):
        return (secrets.token_bytes(32),)

    return faulty


@canary("A18", f"{TICKETS}:Ticket.__repr__", tests="crypto/test_tickets")
def the_repr_of_a_ticket_contains_its_verifier(show):
    def faulty(self):
        return f"Ticket({self.session_id.hex()}, {self.verifier.hex()}, {self.verifier!r})"

    return faulty


@canary("A18, B-49", f"{TICKETS}:KeyRing.seal", tests="TestBareASGI")
def tickets_are_logged(seal):
    def faulty(self, ticket, *, name):
        sealed = seal(self, ticket, name=name)
        logging.getLogger("sojourn").info("sealed %s", sealed)
        return sealed

    return faulty


@canary("B-40", "sojourn._crypto.rotation:MAX_DESCENDANTS", tests="test_identity")
def only_the_last_rotation_is_recognised(limit):
    return 1


@canary("B-16", "sojourn._crypto.secret_key:_PLACEHOLDERS", tests="test_secret_key")
def placeholder_secrets_are_accepted(placeholders):
    return ()


@canary("B-17", "sojourn._crypto.csrf:CsrfTokens.check", tests="test_csrf")
def csrf_tokens_are_compared_byte_by_byte(check):
    def faulty(self, value, verifier_hashes):
        return any(value == self.make(known) for known in verifier_hashes)

    return faulty


@canary("B-15", f"{ENCRYPTION}:_associated_data", tests="test_encryption")
def user_and_labels_are_not_authenticated(associated_data):
    def faulty(session_id, nonce, mode, head):
        return associated_data(session_id, nonce, mode, b"")

    return faulty


@canary("B-48", f"{ENCRYPTION}:_encrypt", tests="test_encryption")
def sealed_bodies_contain_plaintext_data(encrypt):
    def faulty(cipher, session_id, contents, *, front):
        return encrypt(cipher, session_id, contents, front=front) + repr(contents.data).encode()

    return faulty


@canary("B-25", "sojourn._crypto.tickets:mint_verifier", tests="TestBareASGI test_identity")
def every_verifier_is_the_same(mint_verifier):
    def faulty():
        return bytes(16)

    return faulty


@canary("B-10, B-11", "sojourn._core.codec:decode", tests="test_promises test_codec")
def pickled_values_are_loaded(decode):
    def faulty(data):
        if data[:1] == b"\x80":
            pickle.loads(data)  # noqa: S301 - the fault
        return decode(data)

    return faulty


@canary("B-21", "sojourn._core.codec:decode", tests="test_codec", raises="RecursionError")
def deeply_nested_values_exhaust_the_stack(decode):
    def faulty(data):
        if len(data) > 10_000 and data[:1] == data[1:2]:
            raise RecursionError
        return decode(data)

    return faulty
