"""Faults of a login: whose session it is, since when, by which proof.

What lives here: laws A9 to A17 where a login is concerned, recent proofs and remembered browsers.
What must not: tickets that are replaced without one (``rotations.py``).
"""

from tools.mutations.places import (
    ASGI,
    ENGINE,
    HISTORIES,
    IDENTITY,
    IN_IDENTITY,
    LOGIN_RULES,
    OF_USERS,
    ON_ASGI,
    ON_WSGI,
    ORDERS,
    PROMISES,
    RENEWAL,
    RENEWALS,
    SESSION,
    VISIT,
    WRITER,
    WSGI,
)
from tools.mutations.row import Mutation

FAULTS = [
    Mutation(
        "A9, B-25, ASVS 7.2.4",
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
        "A9, B-25, ASVS 7.2.4",
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
        "A9, A7",
        WRITER,
        "                if base.authenticated_at != began.authenticated_at:\n"
        "                    return False\n",
        "",
        f"{ON_ASGI} -k 'passes_the_end and write'",
    ),
    Mutation(
        "A9",
        WRITER,
        "                if base.authenticated_at != began.authenticated_at:\n"
        "                    return False\n",
        "",
        f"{ORDERS} -k login_and",
    ),
    Mutation(
        "A9, A7",
        WRITER,
        "                if base.authenticated_at != began.authenticated_at:\n"
        "                    return False\n",
        "",
        HISTORIES,
    ),
    Mutation(
        "A9, A7",
        ENGINE,
        "            or newer.authenticated_at != base.authenticated_at  # our ticket died at that "
        "login\n",
        "",
        f"{ON_ASGI} -k 'passes_the_end and refresh'",
    ),
    Mutation(
        "A9, W3",
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
        "A13, B-7, ASVS 14.3.2",
        ASGI,
        "private=session._authenticated",
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
        "A13, B-7",
        ASGI,
        " or (session._record is not None and _is_stream(message))",
        "",
        "tests/security/test_caching_proxies.py -k stream_looked",
    ),
    Mutation(
        "A17, REAUTH-10, ASVS 7.3.2",
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
        "key in login.grants or not key.startswith(GRANT)",
        "True",
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
    Mutation(
        "B-45",
        RENEWAL,
        "        former=NO_VERIFIER,\n        former_until=0,\n",
        "        former=record.verifier,\n        former_until=login.at + GRACE,\n",
        f"{LOGIN_RULES} -k second_factor",
    ),
    Mutation(
        "B-45",
        VISIT,
        "        return None if self._contents is None else self._contents.user\n",
        "        return self._contents and (self._contents.user or 'ada')\n",
        f"{LOGIN_RULES} -k second_factor",
    ),
    Mutation(
        "SESS-08, ASVS 7.2.4",
        SESSION,
        "if RESERVED in key and key.startswith(RESERVED):",
        "if False:",
        f"{LOGIN_RULES} -k nothing_but",
    ),
    Mutation(
        "SESS-07",
        IDENTITY,
        "            mint_verifier(),\n        )\n",
        "            self._engine.chain.following(self._raw_id(), self._verifier or bytes(16)),\n"
        "        )\n",
        f"{LOGIN_RULES} -k made_at_the_login",
    ),
    Mutation(
        "SESS-08",
        RENEWAL,
        '{"methods": list(login.methods)}',
        '{"methods": [*noted_methods(contents.data), *login.methods]}',
        f"{LOGIN_RULES} -k claims_no_more",
    ),
    Mutation(
        "ASVS 7.5.3",
        ENGINE,
        "if k != key} if taken else None\n",
        "if k != key} if False else None\n",
        f"{IN_IDENTITY} -k used_once",
    ),
    Mutation(
        "ASVS 10.1.2, B-42",
        ENGINE,
        "if k != key} if taken else None\n",
        "if k != key} if False else None\n",
        f"{PROMISES} -k one_time_value",
    ),
]
