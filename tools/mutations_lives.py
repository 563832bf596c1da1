"""The faults of logins, rotations and ends that tests must notice, as a table for ``mutate.py``.

What lives here: a row for each protection in ``identity.py``, ``loader.py``, ``renewal.py``,
``chain.py``, ``ender.py``, and what the writer, the engine and sockets do for them. What must not:
stores' own promises about lists and marks (``mutations.py``). A row is as there.
"""

from tools.mutations import (
    ASGI,
    ENGINE,
    LOADER,
    ON_ASGI,
    ON_WSGI,
    SOCKET,
    VISIT,
    WRITER,
    WSGI,
    Mutation,
)

CHAIN = "src/sojourn/core/chain.py"
ENDER = "src/sojourn/core/ender.py"
IDENTITY = "src/sojourn/core/identity.py"
REGISTRY = "src/sojourn/live/registry.py"
RENEWAL = "src/sojourn/core/renewal.py"

IN_IDENTITY = "tests/core/test_identity.py"
ORDERS = "tests/laws/test_lives_interleaved.py"
HISTORIES = "tests/laws/test_histories.py -k 'breaks_a_law and not thousands'"
RENEWALS = "tests/laws/test_renewals.py"
OF_USERS = "tests/live/test_users.py"

LOGIN = [
    Mutation(
        "A9",
        IDENTITY,
        "            mint_verifier(),\n        )\n",
        "            self._verifier or mint_verifier(),\n        )\n",
        f"{ON_ASGI} -k replaces_the_ticket",
    ),
    Mutation(
        "A9",
        IDENTITY,
        "            mint_verifier(),\n        )\n",
        "            self._verifier or mint_verifier(),\n        )\n",
        HISTORIES,
    ),
    Mutation(
        "A9",
        RENEWAL,
        "        former=NO_VERIFIER,\n        former_until=0,\n",
        "        former=record.verifier,\n        former_until=login.at + GRACE,\n",
        f"{ON_WSGI} -k replaces_the_ticket",
    ),
    Mutation(
        "A9",
        RENEWAL,
        "        former=NO_VERIFIER,\n        former_until=0,\n",
        "",
        HISTORIES,
    ),
    Mutation(
        "A9 A7",
        WRITER,
        "                if base.authenticated_at != began.authenticated_at:\n"
        "                    return False\n",
        "",
        f"{ON_ASGI} -k 'passes_the_end and write'",
    ),
    Mutation(
        "A9 A7",
        WRITER,
        "                if base.authenticated_at != began.authenticated_at:\n"
        "                    return False\n",
        "",
        f"{ORDERS} -k login_and",
    ),
    Mutation(
        "A9 A7",
        WRITER,
        "                if base.authenticated_at != began.authenticated_at:\n"
        "                    return False\n",
        "",
        HISTORIES,
    ),
    Mutation(
        "A9 A7",
        ENGINE,
        "            or newer.authenticated_at != base.authenticated_at  # our ticket died at that "
        "login\n",
        "",
        f"{ON_ASGI} -k 'passes_the_end and refresh'",
    ),
    Mutation(
        "A9 W3",
        ENGINE,
        "            or newer.authenticated_at != base.authenticated_at  # our ticket died at that "
        "login\n",
        "",
        f"{OF_USERS} -k nobody_told",
    ),
    Mutation(
        "A9",
        IDENTITY,
        "max(self._engine.ender.now(), earlier + 1)",
        "self._engine.ender.now()",
        f"{ORDERS} {IN_IDENTITY} -k 'login_and or same_moment'",
    ),
    Mutation(
        "A9",
        IDENTITY,
        "        if self._gone:\n            raise SessionGone(self._raw_id().hex())\n",
        "",
        f"{IN_IDENTITY} -k writes_nothing_more",
    ),
    Mutation(
        "A10",
        ENGINE,
        "    return isinstance(renewal, Rotation) and not renewal.automatic\n",
        "    return isinstance(renewal, Login) or not renewal.automatic\n",
        f"{ON_ASGI} -k logs_nobody_in",
    ),
    Mutation(
        "A11",
        IDENTITY,
        "        if self._started:\n            raise ResponseStarted\n",
        "",
        f"{ON_ASGI} -k no_ticket_is_replaced",
    ),
    Mutation(
        "A13",
        ASGI,
        "private=session._user is not None",
        "private=False",
        f"{ON_ASGI} -k page_of_a_user",
    ),
    Mutation(
        "A13",
        WSGI,
        "private=session._user is not None",
        "private=False",
        f"{ON_WSGI} -k page_of_a_user",
    ),
    Mutation(
        "A17",
        RENEWAL,
        "        absolute_at=limits.absolute_at(login.at),\n",
        "",
        f"{ON_ASGI} -k 'longest_life'",
    ),
    Mutation(
        "A17",
        RENEWAL,
        "        former=record.verifier,\n        former_until=now + GRACE,\n",
        "        former=record.verifier,\n        former_until=now + GRACE,\n"
        "        absolute_at=record.absolute_at + 60_000,\n",
        f"{ON_ASGI} -k 'longest_life'",
    ),
    Mutation(
        "ASVS 7.5.3",
        RENEWAL,
        " if not key.startswith(GRANT)}",
        "}",
        f"{IN_IDENTITY} -k takes_grants_away",
    ),
    Mutation(
        "ASVS 7.5.1",
        IDENTITY,
        "if age > limit or missing:",
        "if missing:",
        f"{IN_IDENTITY} -k age_and_methods",
    ),
    Mutation(
        "ASVS 7.5.3",
        IDENTITY,
        "if age > limit or missing:",
        "if age > limit:",
        f"{IN_IDENTITY} -k age_and_methods",
    ),
    Mutation(
        "SESS-05",
        IDENTITY,
        "if self._user is None or not at or self.remembered:",
        "if self._user is None or not at:",
        f"{IN_IDENTITY} -k less_recently",
    ),
    Mutation(
        "SESS-05",
        WRITER,
        "            base = msgspec.structs.replace(base, lapsed=True)\n",
        "            pass\n",
        f"{RENEWALS} -k silence",
    ),
    Mutation(
        "SESS-05",
        ENGINE,
        "            upkeep = upkeep or policy.lapses(record, now)\n",
        "            pass\n",
        f"{RENEWALS} -k silence",
    ),
]

ROTATION = [
    Mutation(
        "A9",
        LOADER,
        "        if former and now < record.former_until:\n",
        "        if former:\n",
        f"{ON_ASGI} -k sign_of_theft",
    ),
    Mutation(
        "A9",
        LOADER,
        "        if former and now < record.former_until:\n",
        "        if former:\n",
        HISTORIES,
    ),
    Mutation(
        "A9",
        LOADER,
        "        if former and now < record.former_until:\n",
        "        if former and now < 0:\n",
        f"{ON_ASGI} {ORDERS} -k 'keeps_the_former or many_requests or rotate_and'",
    ),
    Mutation(
        "A9",
        LOADER,
        "                session._cookie = CookieChange.SEND\n",
        "                pass\n",
        f"{ON_WSGI} -k keeps_the_former",
    ),
    Mutation(
        "A9 B-40",
        LOADER,
        "        if heir is None and not former:\n",
        "        if heir is None or former or heir:\n",
        f"{ON_ASGI} -k sign_of_theft",
    ),
    Mutation(
        "A9 B-40",
        LOADER,
        "        if heir is None and not former:\n",
        "        if not former:\n",
        f"{IN_IDENTITY} -k many_rotations_ago",
    ),
    Mutation(
        "A9 B-40",
        LOADER,
        "        self._journal.reused(record.id)\n",
        "",
        f"{ON_ASGI} -k sign_of_theft",
    ),
    Mutation(
        "A9",
        LOADER,
        "session._upkeep = record.former_until > now + STRAGGLERS",
        "session._upkeep = False",
        f"{ON_ASGI} -k sign_of_theft",
    ),
    Mutation(
        "A9",
        WRITER,
        "            until = min(base.former_until, now + STRAGGLERS)\n",
        "            until = base.former_until\n",
        HISTORIES,
    ),
    Mutation(
        "A9",
        VISIT,
        "        self._upkeep = False  # what was seen of this",
        "        # what was seen of this",
        f"{RENEWALS} -k late_sight",
    ),
    Mutation(
        "A9",
        VISIT,
        "            self._renewal = None  # somebody was faster\n",
        "            pass\n",
        f"{ON_ASGI} {ORDERS} -k 'many_requests or rotate_and_rotate'",
    ),
    Mutation(
        "A9 A6",
        VISIT,
        "            self._verifier = heir\n            self._send()\n",
        "            self._verifier = heir\n",
        f"{ON_ASGI} {ORDERS} -k 'many_requests or rotate_and_rotate'",
    ),
    Mutation(
        "A9",
        RENEWAL,
        "        former_until=now + GRACE,\n",
        "        former_until=now + 10 * GRACE,\n",
        f"{ON_ASGI} -k sign_of_theft",
    ),
    Mutation(
        "A9",
        CHAIN,
        "    return digest(key, session_id + verifier,",
        "    verifier += __import__('secrets').token_bytes(16)\n"
        "    return digest(key, session_id + verifier,",
        f"{ON_ASGI} {ORDERS} -k 'keeps_the_former or many_requests or rotate_and'",
    ),
    Mutation(
        "A9 B-40 W5",
        CHAIN,
        "MEMORY: Final = 256",
        "MEMORY: Final = 1",
        f"{IN_IDENTITY} -k many_rotations_ago",
    ),
    Mutation(
        "A10",
        ENGINE,
        "    return isinstance(renewal, Rotation) and not renewal.automatic\n",
        "    return False\n",
        f"{ON_ASGI} -k logs_nobody_in",
    ),
    Mutation(
        "A12",
        ENGINE,
        "    return isinstance(renewal, Rotation) and not renewal.automatic\n",
        "    return isinstance(renewal, Rotation)\n",
        f"{IN_IDENTITY} -k 'AutomaticRotation and failing'",
    ),
    Mutation(
        "A11 W5",
        VISIT,
        "        self._renewal = None  # a rotation that nobody would hear of\n",
        "",
        f"{OF_USERS} -k asks_late",
    ),
]

ENDS = [
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
        "S16 A7",
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
        "A7 B-41",
        ENDER,
        "            await self._store.create(mark)\n",
        "            pass\n",
        f"{ON_ASGI} -k learns_why",
    ),
]

SOCKETS_OF_USERS = [
    Mutation(
        "W4",
        REGISTRY,
        "        dispatcher.on(Revoked, self._on_revoked)\n",
        "",
        OF_USERS,
    ),
    Mutation(
        "W4 A9",
        REGISTRY,
        "        dispatcher.on(Authenticated, self._on_authenticated)\n",
        "",
        f"{OF_USERS} -k a_login_closes",
    ),
    Mutation(
        "W4",
        REGISTRY,
        "else list(self._connections)",
        "else []",
        f"{OF_USERS} -k revoking_all",
    ),
    Mutation(
        "W4 S16",
        ENDER,
        "        if existed:\n            await self.note(session_id, reason, actor=actor)\n",
        "",
        f"{OF_USERS} -k revoking_a_user",
    ),
    Mutation(
        "W4",
        WRITER,
        '                await self._ender.note(session_id, "limit")\n',
        "                pass\n",
        f"{OF_USERS} -k too_many",
    ),
    Mutation(
        "W7 A9",
        SOCKET,
        "        if stored and not session._gone:\n",
        "        if not stored and session._gone:\n",
        f"{OF_USERS} -k during_the_handshake",
    ),
    Mutation(
        "W5",
        REGISTRY,
        "        dispatcher.on(Authenticated, self._on_authenticated)\n",
        "        dispatcher.on(__import__('sojourn').Rotated, self._on_authenticated)\n",
        f"{OF_USERS} -k outlives",
    ),
    Mutation(
        "W5",
        ENGINE,
        "                    session._follow(newer)\n",
        "",
        f"{OF_USERS} -k outlives",
    ),
    Mutation(
        "W5",
        CHAIN,
        "            for _ in range(MEMORY):\n",
        "            for _ in range(1):\n",
        f"{OF_USERS} -k outlives",
    ),
]

LIVES = [*LOGIN, *ROTATION, *ENDS, *SOCKETS_OF_USERS]
