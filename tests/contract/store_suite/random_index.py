"""The user index after random changes of sessions: law S15."""

import random
from typing import Any

import pytest

from sojourn.record import Record
from sojourn.store import SAVED, LoginSaved, NeedsPurge
from sojourn.testing.records import (
    HOUR,
    login,
    make_record,
    next_version,
    now,
    purge_all,
    save_login,
)
from sojourn.testing.store_suite.base import IndexedStore, StoreTests, index_test


class RandomIndexTests(StoreTests):
    """Tests of the user index against a model."""

    @pytest.mark.parametrize("sessions", [400, pytest.param(10_000, marks=pytest.mark.slow)])
    @index_test
    async def test_random_changes_keep_the_index_exact(
        self, store: IndexedStore, sessions: int
    ) -> None:
        """S15: after each step the index lists the live sessions; at the end it is empty."""
        model = _IndexModel(store, random.Random(sessions))
        for number in range(sessions):
            await model.create_session()
            for _ in range(model.random.randrange(6)):
                await model.change_session()
            if number % max(sessions // 100, 1) == 0:
                await model.check()
        await model.check()
        if not isinstance(store, NeedsPurge):
            await model.delete_all()
        await purge_all(store, now() + 48 * HOUR)
        assert await self.index_size(store) == 0


class _IndexModel:
    """Changes sessions at random and computes the expected index."""

    def __init__(self, store: IndexedStore, generator: random.Random) -> None:
        self.store, self.random = store, generator
        self.live: dict[bytes, Record] = {}
        self.names: dict[bytes, tuple[str, ...]] = {}

    async def create_session(self) -> None:
        """Create a session, with or without a login; some expire soon."""
        changes: dict[str, Any] = {}
        if isinstance(self.store, NeedsPurge) and self.random.random() < 0.2:
            changes = {"created_at": now() - HOUR, "seen_at": now() - HOUR}
        if self.random.random() < 0.5:
            record = make_record(**changes)
            await self.store.create(record)
            self._keep(record)
        else:
            record = self._login(None, **changes)
            assert isinstance(await save_login(self.store, record, 0), LoginSaved)
            self._keep(record, record.index_names())

    async def change_session(self) -> None:
        """Log in, save, touch or delete a random session, or purge expired ones."""
        if not self.live:
            return
        record = self.live[self.random.choice(list(self.live)[-50:])]
        match self.random.choice(["login", "login", "save", "touch", "delete", "delete", "purge"]):
            case "login":
                logged_in = self._login(record)
                result = await save_login(self.store, logged_in, record.version)
                assert isinstance(result, LoginSaved)
                self._keep(logged_in, logged_in.index_names())
            case "save":
                saved = next_version(record)
                assert await self.store.save(saved, record.version) is SAVED
                self._keep(saved)
            case "touch":
                touched = record.with_seen_at(record.seen_at + 1)
                assert await self.store.touch(touched) is True
                self._keep(touched)
            case "delete":
                assert await self.store.delete(record.id) is True
                self._forget(record)
            case _ if self.random.random() < 0.1 and isinstance(self.store, NeedsPurge):
                await purge_all(self.store, now())
                for expired in [r for r in self.live.values() if r.expires_at <= now()]:
                    self._forget(expired)

    async def check(self) -> None:
        """Compare the index under every name with the model."""
        for name in {*(name for names in self.names.values() for name in names), "user:none"}:
            expected = {i: self.live[i] for i, names in self.names.items() if name in names}
            found = await self.store.list_by_index(name)
            assert {record.id: record for record in found} == expected
            assert len(found) == len(expected)

    async def delete_all(self) -> None:
        """Delete all live sessions."""
        for record in list(self.live.values()):
            await self.store.delete(record.id)
            self._forget(record)

    def _login(self, record: Record | None, **changes: Any) -> Record:
        idp_sid = self.random.choice([None, f"s-{self.random.randrange(30)}"])
        return login(record, f"user-{self.random.randrange(20)}", idp_sid=idp_sid, **changes)

    def _keep(self, record: Record, names: tuple[str, ...] | None = None) -> None:
        self.live[record.id] = record
        if names is not None:
            self.names[record.id] = names

    def _forget(self, record: Record) -> None:
        del self.live[record.id]
        self.names.pop(record.id, None)
