"""Faults of ends: logout, revocation of one session, of a user's and of everybody's.

What lives here: who ends a session, what is left of it, and who is told. What must not: limits of
time (``limits.py``) and what is open (``sockets.py``).
"""

from tools.mutations.places import (
    ENDER,
    ENGINE,
    HISTORIES,
    IN_IDENTITY,
    LISTS,
    ON_ASGI,
    ORDERS,
    RENEWALS,
    VISIT,
    WRITER,
)
from tools.mutations.row import Mutation

FAULTS = [
    Mutation(
        "S16",
        ENDER,
        "            await store.void(name, before)\n",
        "",
        f"{ON_ASGI} -k committing",
    ),
    Mutation(
        "S16",
        ENDER,
        "            await store.void(name, before)\n",
        "",
        f"{ORDERS} -k 'began_before'",
    ),
    Mutation(
        "S16",
        ENDER,
        "            await store.void(name, before)\n",
        "",
        HISTORIES,
    ),
    Mutation(
        "S16",
        ENDER,
        "before = self.floor = self.now() + 1\n            await store.void(name,",
        "before = self.floor = self.now()\n            await store.void(name,",
        f"{ON_ASGI} -k committing",
    ),
    Mutation(
        "S16",
        ENDER,
        "return max(self._clock(), self.floor)",
        "return self._clock()",
        f"{ON_ASGI} -k committing",
    ),
    Mutation(
        "S16, A7",
        ENDER,
        "                ended += await self.end(record.id, reason, actor=actor)\n",
        "                ended += 1\n",
        f"{ORDERS} -k leave_nothing",
    ),
    Mutation(
        "S16",
        WRITER,
        "        return GONE if result is VOID else result\n",
        "        return SAVED if result is VOID else result\n",
        f"{ON_ASGI} -k committing",
    ),
    Mutation(
        "S16",
        ENGINE,
        "                    if answer is GONE:\n                        return None\n",
        "                    if answer is GONE:\n                        return record\n",
        f"{ON_ASGI} {ORDERS} -k 'committing or new_visitors'",
    ),
    Mutation(
        "S15",
        WRITER,
        "                    result = await self.bind(record, base.version, now)\n",
        "                    result = await self._store.save(record, base.version)\n",
        HISTORIES,
    ),
    Mutation(
        "A7",
        VISIT,
        "            self._cookie = CookieChange.NONE  # its ticket",
        "            pass  # its ticket",
        f"{RENEWALS} -k is_not_sent",
    ),
    Mutation(
        "B-41, ASVS 7.4.3",
        ENDER,
        "            await self._store.create(mark)\n",
        "            pass\n",
        f"{ON_ASGI} -k learns_why",
    ),
    Mutation(
        "B-39, ASVS 7.4.3",
        ENDER,
        "            if record.id != keep:\n",
        "            if keep is None:\n",
        "tests/test_sessions.py -k credentials",
    ),
    Mutation(
        "A7, B-35, ASVS 7.4.1, SESS-12",
        ENDER,
        "            existed = await self._store.delete(session_id)\n",
        "            existed = await self._store.load(session_id) is not None\n",
        f"{IN_IDENTITY} tests/core/test_engine.py -k removes_the_record",
    ),
    Mutation(
        "A7, B-35, B-36",
        ENDER,
        "            existed = await self._store.delete(session_id)\n",
        "            existed = await self._store.load(session_id) is not None\n",
        f"{ON_ASGI} -k destroying_clears",
    ),
    Mutation(
        "S16, ASVS 7.4.2, ASVS 7.4.3",
        ENDER,
        "                ended += await self.end(record.id, reason, actor=actor)\n",
        "                ended += 1\n",
        "tests/test_sessions.py -k keeps_one",
    ),
    Mutation(
        "ASVS 7.4.5",
        ENDER,
        "            await store.void_all(before)\n",
        "            pass\n",
        f"{IN_IDENTITY} -k everybody",
    ),
    Mutation(
        "ASVS 7.4.5",
        ENDER,
        "            await store.void_all(before)\n",
        "            pass\n",
        "tests/test_sessions.py -k everybody",
    ),
    Mutation(
        "ASVS 7.1.3, ASVS 7.6.1",
        LISTS,
        'end_named(f"{name}:{value}", reason',
        "end_named(user_name(value), reason",
        "tests/test_sessions.py -k back_channel",
    ),
    Mutation(
        "S15, ASVS 7.5.2",
        LISTS,
        "        if expired(record, self.engine.clock()):\n            return None\n",
        "",
        "tests/test_sessions.py -k newest_first",
    ),
    Mutation(
        "B-46, ASVS 7.5.2",
        LISTS,
        "            record.session_id,\n            owner.user,\n",
        "            record.verifier.hex(),\n            owner.user,\n",
        "tests/test_sessions.py -k is_described",
    ),
]
