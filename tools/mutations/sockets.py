"""Faults of WebSockets in one process: laws W1 to W8.

What lives here: who may open one, what it sees, and when it is closed. What must not: what crosses
processes (``across.py``).
"""

from tools.mutations.places import (
    CHAIN,
    ENDER,
    ENDING,
    ENGINE,
    OF_USERS,
    OPEN_SOCKETS,
    REGISTRY,
    SOCKET,
    SOCKET_RULES,
    WRITER,
)
from tools.mutations.row import Mutation

FAULTS = [
    Mutation(
        "W1",
        SOCKET,
        "                raise _ForeignOrigin\n",
        "                pass\n",
        OPEN_SOCKETS,
    ),
    Mutation(
        "W2",
        SOCKET,
        "            return await self._receive()\n        await self._commit(session)\n",
        "            return await self._receive()\n",
        OPEN_SOCKETS,
    ),
    Mutation(
        "W3",
        SOCKET,
        "                await self._take_in(session)\n",
        "                pass\n",
        OPEN_SOCKETS,
    ),
    Mutation(
        "W6",
        ENDING,
        "self._ring_in(max(0.0, min(seconds,",
        "self._ring_in(max(60.0, min(seconds,",
        OPEN_SOCKETS,
    ),
    Mutation(
        "W7",
        SOCKET,
        "        if stored and not session._gone:\n",
        "        if not stored and session._gone:\n",
        OPEN_SOCKETS,
    ),
    Mutation(
        "W8",
        SOCKET,
        "        session._started = True\n        self._ending.watch(session)\n",
        "        self._ending.watch(session)\n",
        OPEN_SOCKETS,
    ),
    Mutation(
        "W4",
        REGISTRY,
        "        dispatcher.on(Revoked, self._on_revoked)\n",
        "",
        OF_USERS,
    ),
    Mutation(
        "W4, A9",
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
        "W4, ASVS 7.4.2",
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
        "W7, A9",
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
    Mutation(
        "B-41, OWASP-8, ASVS 7.4.1, REAUTH-08",
        REGISTRY,
        "        dispatcher.on(Revoked, self._on_revoked)\n",
        "",
        f"{SOCKET_RULES} -k ends_with",
    ),
    Mutation(
        "B-43, W1, ASVS 4.4.2",
        SOCKET,
        "            if not origin_allowed(\n",
        "            if False and not origin_allowed(\n",
        f"{SOCKET_RULES} -k foreign_page",
    ),
    Mutation(
        "ASVS 4.4.3",
        SOCKET,
        "self.gate.admit(self._transport, host, cookies, self)",
        "self.gate.admit(self._transport, host, None, self)",
        f"{SOCKET_RULES} -k no_way_into",
    ),
]
