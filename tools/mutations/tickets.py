"""Faults of tickets: how they are made, sealed, opened, compared and shown.

What lives here: what a visitor may send that opens a session, and where a secret could show. What
must not: cookies (``cookies.py``).
"""

from tools.mutations.places import (
    BYTES,
    FUZZ,
    LOADER,
    ON_ASGI,
    PROMISES,
    QUALITY,
    REGISTRY,
    SCOPE,
    SESSION,
    SETTINGS,
    SOCKET_RULES,
    SOURCE_TEXT,
    TICKET,
    TICKET_RULES,
)
from tools.mutations.row import Mutation

FAULTS = [
    Mutation(
        "A8, B-13",
        TICKET,
        "except InvalidTag:\n                continue\n",
        "except InvalidTag:\n                return Ticket(sealed[:16], sealed[16:32])\n",
        f"{ON_ASGI} -k never_reaches",
    ),
    Mutation(
        "B-42, B-46, B-47, OWASP-2",
        TICKET,
        "except InvalidTag:\n                continue\n",
        "except InvalidTag:\n                return Ticket(sealed[:16], sealed[16:32])\n",
        f"{TICKET_RULES} -k public_id",
    ),
    Mutation(
        "B-14",
        TICKET,
        'self._context = b"sojourn\\0" + realm.encode() + b"\\0"',
        'self._context = type("C", (bytes,), {"__add__": lambda a, b: bytes(a)})(b"x")',
        "tests/core/test_ticket.py -k another_cookie",
    ),
    Mutation(
        "B-15",
        TICKET,
        "except InvalidTag:\n                continue\n",
        "except InvalidTag:\n                return Ticket(sealed[:16], sealed[16:32])\n",
        f"{FUZZ} -k 'fuzzer_found and altered_ticket'",
    ),
    Mutation(
        "B-16",
        QUALITY,
        "    if words * 3 >= len(text):\n",
        "    if words > len(text):\n",
        "tests/test_secret.py -k weak",
    ),
    Mutation(
        "B-17",
        REGISTRY,
        "            connection.end(reason)\n",
        "            if connection.verifier == reason:\n                connection.end(reason)\n",
        f"{SOURCE_TEXT} -k constant_time",
    ),
    Mutation(
        "B-18, B-48",
        TICKET,
        "    return hashlib.sha256(verifier).digest()\n",
        "    return verifier * 2\n",
        f"{PROMISES} -k never_goes",
    ),
    Mutation(
        "B-48, ASVS 16.2.5",
        TICKET,
        "    return hashlib.sha256(verifier).digest()\n",
        "    return verifier * 2\n",
        f"{BYTES} -k sqlite",
    ),
    Mutation(
        "B-19",
        TICKET,
        'AESSIV(derive(secret, b"ticket", realm, 64))',
        "AESSIV(AESSIV.generate_key(512))",
        "tests/core/test_ticket.py -k two_processes",
    ),
    Mutation(
        "B-29",
        TICKET,
        "        # One string of associated data instead of three",
        '        realm = ""\n        # One string of associated data instead of three',
        "tests/core/test_ticket.py -k another_realm",
    ),
    Mutation(
        "B-22, B-30, B-31, ASVS 7.2.1, SESS-01, OWASP-2",
        TICKET,
        "not in _LAST or not text.isascii():\n            return None\n",
        "not in _LAST or not text.isascii():\n"
        '            return Ticket(text.encode()[:16].ljust(16, b"0"), bytes(16))\n',
        f"{TICKET_RULES} -k visitors_choice",
    ),
    Mutation(
        "B-49, ASVS 16.2.5",
        SESSION,
        'return f"<Session {self.id} with',
        'return f"<Session {self.id} {self._verifier!r} with',
        f"{BYTES} -k sqlite",
    ),
    Mutation(
        "B-49",
        TICKET,
        '        return f"KeyRing({len(self._ciphers)} keys)"\n',
        '        return f"KeyRing({list(self._opened)})"\n',
        f"{BYTES} -k memory",
    ),
    Mutation(
        "B-11, B-48, ASVS 7.2.1",
        LOADER,
        "        if not compare_digest(record.verifier, ticket.digest):\n",
        "        if not record.verifier:\n",
        f"{TICKET_RULES} -k leaked",
    ),
    Mutation(
        "ASVS 7.2.2, ASVS 7.2.3, SESS-11",
        TICKET,
        "    return secrets.token_bytes(ID_BYTES)\n",
        "    return secrets.token_bytes(1) * ID_BYTES\n",
        f"{TICKET_RULES} -k ticket_of_its_own",
    ),
    Mutation(
        "ASVS 7.2.3, ASVS 11.5.1",
        TICKET,
        "    return secrets.token_bytes(VERIFIER_BYTES)\n",
        "    return secrets.token_bytes(8) + bytes(8)\n",
        "tests/core/test_ticket.py -k 128_random_bits",
    ),
    Mutation(
        "SESS-11, ASVS 11.5.1",
        TICKET,
        "    return secrets.token_bytes(VERIFIER_BYTES)\n",
        "    import uuid\n\n    return uuid.uuid4().bytes\n",
        f"{SOURCE_TEXT} -k come_from_the_system",
    ),
    Mutation(
        "B-15, ASVS 11.4.1",
        TICKET,
        "    return hashlib.sha256(verifier).digest()\n",
        "    return hashlib.sha1(verifier).digest()\n",
        f"{SOURCE_TEXT} -k approved",
    ),
    Mutation(
        "ASVS 14.3.3, COOK-08, OWASP-1",
        TICKET,
        'AESSIV(derive(secret, b"ticket", realm, 64))',
        'type("Clear", (), {"encrypt": lambda _, plain, __: plain + bytes(16),\n'
        '            "decrypt": lambda _, sealed, __: sealed[:33]})()',
        f"{TICKET_RULES} -k tells_nothing",
    ),
    Mutation(
        "B-23, B-28, B-42, ASVS 4.4.3, ASVS 14.2.1",
        SCOPE,
        "        if name in _WANTED:\n",
        '        if name == b"x-session-id":\n'
        '            cookies = b"sid=" + value\n'
        "        elif name in _WANTED:\n",
        f"{SOCKET_RULES} {TICKET_RULES} -k 'no_way_into or only_our_cookie'",
    ),
    Mutation(
        "B-23, B-28, ASVS 14.2.1",
        SCOPE,
        "    host = cookies = origin = None\n",
        '    host = cookies = origin = scope.get("query_string") and None\n',
        f"{SOURCE_TEXT} -k addresses",
    ),
    Mutation(
        "OWASP-6",
        LOADER,
        '            return self._reject(ticket, "labels", client)\n        if self._rotates',
        "            pass\n        if self._rotates",
        f"{PROMISES} -k hints",
    ),
    Mutation(
        "OWASP-6",
        SETTINGS,
        '    "check_labels": (),\n',
        '    "check_labels": ("browser",),\n',
        f"{PROMISES} -k hints",
    ),
]
