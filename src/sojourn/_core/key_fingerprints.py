"""KeyFingerprintCheck: refuses a realm that an application with other secrets uses."""

from __future__ import annotations

from collections.abc import Sequence

from sojourn._core.concurrency import Deadline
from sojourn.errors import ConfigurationError, StoreError
from sojourn.store import SupportsKeyFingerprints


class KeyFingerprintCheck:
    """Registers the fingerprints of an installation's keys in its store, at the first contact.

    An application whose secrets are replaced one after the other always has a known one, also while
    some of its processes have the new list and some the previous one.

    Args:
        store: holds the set of fingerprints of each realm.
        fingerprints: of the secrets.
        realm: the installation's namespace, for the message.
        secret_file: where a generated secret is stored, for the message; None if there is none.

    Attributes:
        passed: the keys are registered.
    """

    __slots__ = ("_fingerprints", "_realm", "_secret_file", "_store", "passed")

    def __init__(
        self,
        store: SupportsKeyFingerprints,
        fingerprints: Sequence[bytes],
        *,
        realm: str,
        secret_file: str | None = None,
    ) -> None:
        self._store = store
        self._fingerprints = tuple(fingerprints)
        self._realm = realm
        self._secret_file = secret_file
        self.passed: bool = False

    async def run(self, deadline: Deadline | None = None) -> None:
        """Register the keys unless they are registered.

        If the store fails, the next contact tries again: a full store, which cannot add a key,
        still loads and revokes.

        Args:
            deadline: of the verb that makes the contact; None if no call of the verb follows.

        Raises:
            ConfigurationError: the realm belongs to an application with other secrets.
            StoreError: the store did not answer before the deadline.
        """
        if self.passed:
            return
        try:
            is_known = await self._store.register_keys(self._fingerprints)
        except StoreError:
            # Otherwise the next call of the verb would wait as long.
            if deadline is not None and not deadline.remaining():
                raise
            return
        if not is_known:
            place = (
                ""
                if self._secret_file is None
                else f"; the generated one is in {self._secret_file}"
            )
            raise ConfigurationError(
                f"realm {self._realm!r} of {self._store!r} is used with other secrets: expected "
                "one of them in secret=, found none. Two applications would share their users, and "
                "revoke_all would end the sessions of both. Give each application a realm of its "
                "own: realm='shop' (and the same to the store, if you construct it). If the secret "
                f"of this application was replaced, add the former one: secret=[new, former]{place}"
            )
        self.passed = True
