"""Faults of tickets that are replaced and of those that come again: law A9.

What lives here: the grace, the chain of verifiers, the sign of theft. What must not: logins
(``logins.py``).
"""

from tools.mutations.places import (
    CHAIN,
    ENGINE,
    HISTORIES,
    IN_IDENTITY,
    LOADER,
    LOGIN_RULES,
    OF_USERS,
    ON_ASGI,
    ON_WSGI,
    ORDERS,
    RENEWAL,
    RENEWALS,
    VISIT,
    WRITER,
)
from tools.mutations.row import Mutation

FAULTS = [
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
        "A9, B-40",
        LOADER,
        "        if heir is None and not former:\n",
        "        if heir is None or former or heir:\n",
        f"{ON_ASGI} -k sign_of_theft",
    ),
    Mutation(
        "A9, B-40",
        LOADER,
        "        if heir is None and not former:\n",
        "        if not former:\n",
        f"{IN_IDENTITY} -k many_rotations_ago",
    ),
    Mutation(
        "A9, B-40",
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
        "A9",
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
        "A9, B-40",
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
        "A11, W5",
        VISIT,
        "        self._renewal = None  # a rotation that nobody would hear of\n",
        "",
        f"{OF_USERS} -k asks_late",
    ),
    Mutation(
        "B-40",
        LOADER,
        "        if self._revoke_reused:\n",
        "        if not self._revoke_reused:\n",
        "tests/laws/test_applications.py::TestBareASGI -k sign_of_theft",
    ),
    Mutation(
        "OWASP-4",
        LOADER,
        "        if former and now < record.former_until:\n",
        "        if former and now < 0:\n",
        f"{LOGIN_RULES} -k safety_interval",
    ),
    Mutation(
        "OWASP-4",
        LOADER,
        "        if former and now < record.former_until:\n",
        "        if former:\n",
        f"{LOGIN_RULES} -k safety_interval",
    ),
]
