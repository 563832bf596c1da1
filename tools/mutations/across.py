"""Faults of what crosses processes, and of requests that go on without the store.

What lives here: a row for each protection of announcements, looks and stranded requests. What must
not: sockets in one process (``sockets.py``).
"""

from tools.mutations.places import (
    ANNOUNCER,
    ASGI,
    CHANNELS,
    ENDING,
    FAILING,
    GATE,
    SCRIPTS,
    SOCKET,
    STRANDED,
    TELLING,
    WSGI,
)
from tools.mutations.row import Mutation

FAULTS = [
    Mutation(
        "W4, S17",
        ANNOUNCER,
        "        dispatcher.on(Revoked, self._on_revoked)\n",
        "",
        TELLING,
    ),
    Mutation(
        "W4, S17",
        ANNOUNCER,
        "            self._registry.end(session_id, message.reason or ",
        "            self._registry.recheck(session_id, message.reason or ",
        TELLING,
    ),
    Mutation(
        "S17",
        ANNOUNCER,
        "            self._registry.recheck(session_id, message.reason)\n",
        "            self._registry.end(session_id, message.reason)\n",
        TELLING,
    ),
    Mutation(
        "S17",
        ANNOUNCER,
        "            self._registry.recheck_all(message.reason)\n",
        "            self._registry._on_revoked(Revoked('', message.reason))\n",
        TELLING,
    ),
    Mutation(
        "S17",
        ANNOUNCER,
        '        self._registry.recheck_all("")\n',
        "        pass\n",
        f"{TELLING} tests/servers/test_announcements.py",
    ),
    Mutation(
        "S17",
        ANNOUNCER,
        "            except SojournError as error:\n                self._engine.journal.untold",
        "            except KeyError as error:\n                self._engine.journal.untold",
        TELLING,
    ),
    Mutation(
        "S17",
        ENDING,
        "            self._again = True  # what it reads",
        "            self._again = False  # what it reads",
        TELLING,
    ),
    Mutation(
        "W4",
        ENDING,
        "        self._ring_in(max(0.0, min(seconds, interval)))\n",
        "        self._ring_in(max(0.0, seconds))\n",
        TELLING,
    ),
    Mutation(
        "W4",
        ENDING,
        "                    reason = self._hint or await engine.ender.reason(record.id)\n",
        "                    reason = self._hint\n",
        TELLING,
    ),
    Mutation(
        "W3, A6",
        ENDING,
        "            newest = await self._examine(record)\n",
        "            newest = await self._examine(record)\n"
        "            await engine.refresh(self._session)\n",
        TELLING,
    ),
    Mutation(
        "W3",
        SOCKET,
        "        if self._ending.stale:\n",
        "        if False:\n",
        TELLING,
    ),
    Mutation(
        "S17",
        SCRIPTS,
        "  redis.pcall(clustered and {SHARDED} and 'SPUBLISH' or 'PUBLISH', channel, message)\n",
        "",
        CHANNELS,
    ),
    Mutation(
        "S17",
        SCRIPTS,
        "    if answers[i] == 1 then tell(",
        "    if true then tell(",
        CHANNELS,
    ),
    Mutation(
        "A15",
        STRANDED,
        "        self._gone = True  # so that no commit does anything\n",
        "",
        FAILING,
    ),
    Mutation(
        "A15, ASVS 7.4.1",
        STRANDED,
        '        """Fail: the session would live on."""\n        self._fail()\n',
        '        """Fail: the session would live on."""\n',
        FAILING,
    ),
    Mutation(
        "A15",
        GATE,
        '        if policy == "error" or (policy is None and not allowed):\n',
        "        if policy is None and not allowed:\n",
        FAILING,
    ),
    Mutation(
        "A15",
        GATE,
        "        if reads != self._reads:  # it has",
        "        if True:  # it has",
        FAILING,
    ),
    Mutation(
        "A15",
        ASGI,
        "                    if self.denied:\n",
        "                    if False:\n",
        FAILING,
    ),
    Mutation(
        "A15",
        WSGI,
        "        if isinstance(session, Stranded) and session._denied and ",
        "        if False and ",
        FAILING,
    ),
    Mutation(
        "A15",
        ENDING,
        "        if isinstance(session, Stranded):\n            return  # it has",
        "        if False:\n            return  # it has",
        FAILING,
    ),
    Mutation(
        "W4, S17, B-41",
        "src/sojourn/live/announcer.py",
        '            self._registry.end(session_id, message.reason or "revoked")\n',
        "            pass\n",
        "tests/servers/test_announcements.py -k 'TestTold and end_closes_elsewhere'",
    ),
    Mutation(
        "S17, B-34",
        "src/sojourn/live/announcer.py",
        '        self._registry.recheck_all("")\n',
        "        pass\n",
        "tests/servers/test_announcements.py -k 'TestTold and survives_the_announcers'",
    ),
]
