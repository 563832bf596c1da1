"""Session keys: texts that name a session to server code, which other applications may store.

A key is ``base64url(session ID[16] || HMAC-SHA256(key, session ID)[:14])``, 40 characters: the
length of a session key in Django's tables. It is no ticket: no cookie with it is accepted.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BinasciiError
from collections.abc import Sequence
from hmac import compare_digest, digest
from typing import Final

from sojourn._crypto.tickets import derive

_ID_BYTES: Final = 16
_MAC_BYTES: Final = 14

#: 30 bytes in base64url.
KEY_CHARACTERS: Final = 40


class SessionKeys:
    """Makes and checks session keys.

    Args:
        secrets: newest first; the first one makes keys.
        realm: of the installation.
    """

    __slots__ = ("_keys",)

    def __init__(self, secrets: Sequence[bytes], *, realm: str) -> None:
        self._keys = tuple(derive(secret, b"session key", realm, 32) for secret in secrets)

    def make(self, session_id: bytes) -> str:
        """Return the key of a session.

        Args:
            session_id: 16 bytes.
        """
        mac = digest(self._keys[0], session_id, "sha256")[:_MAC_BYTES]
        return urlsafe_b64encode(session_id + mac).decode()

    def read(self, text: str) -> bytes | None:
        """Return the session ID, 16 bytes, that a key names; None if it is no key."""
        if len(text) != KEY_CHARACTERS or not text.isascii():
            return None
        try:
            raw = urlsafe_b64decode(text)
        except BinasciiError:
            return None
        session_id, mac = raw[:_ID_BYTES], raw[_ID_BYTES:]
        for key in self._keys:
            if compare_digest(digest(key, session_id, "sha256")[:_MAC_BYTES], mac):
                return session_id
        return None
