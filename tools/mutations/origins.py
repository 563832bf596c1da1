"""Faults of what tells our own pages from others, and of what a browser is told at logout.

What lives here: tokens of forms, foreign pages, Clear-Site-Data. What must not: handshakes of
sockets (``sockets.py``).
"""

from tools.mutations.places import (
    ASGI,
    CLEARING,
    CROSSORIGIN,
    CSRF,
    GATE,
    IN_CLEARING,
    IN_CROSSORIGIN,
    IN_CSRF,
    PROTECT,
)
from tools.mutations.row import Mutation

FAULTS = [
    Mutation(
        "SESS-20",
        CSRF,
        'digest(key, known, "sha256"))',
        "mac)",
        f"{IN_CSRF} -k another_session",
    ),
    Mutation(
        "SESS-20",
        CSRF,
        "hashes = [known for known in verifier_hashes if known != NO_VERIFIER]",
        "hashes = list(verifier_hashes)",
        f"{IN_CSRF} -k absent_verifier",
    ),
    Mutation(
        "SESS-20",
        CSRF,
        "if verifier_hash == NO_VERIFIER:",
        "if False:",
        f"{IN_CSRF} -k without_a_verifier",
    ),
    Mutation(
        "BREACH",
        CSRF,
        "mask = random.token_bytes(_MAC_BYTES)",
        "mask = bytes(_MAC_BYTES)",
        f"{IN_CSRF} -k shows_what_another",
    ),
    Mutation(
        "B-17",
        CSRF,
        'compare_digest(mac, digest(key, known, "sha256"))',
        'mac == digest(key, known, "sha256")',
        f"{IN_CSRF} -k constant_time",
    ),
    Mutation(
        "ASVS 3.5.1",
        CROSSORIGIN,
        "        return Refusal.CROSS_SITE\n",
        "        return None\n",
        f"{IN_CROSSORIGIN} -k other_sites",
    ),
    Mutation(
        "ASVS 3.5.1",
        CROSSORIGIN,
        "return None if trusted else Refusal.SAME_SITE",
        "return None",
        f"{IN_CROSSORIGIN} -k siblings",
    ),
    Mutation(
        "ASVS 3.5.1",
        CROSSORIGIN,
        "return None if same else Refusal.ORIGIN",
        "return None",
        f"{IN_CROSSORIGIN} -k origin_decides",
    ),
    Mutation(
        "ASVS 3.5.1",
        CROSSORIGIN,
        "return None if local or not ticket else Refusal.UNKNOWN",
        "return None",
        f"{IN_CROSSORIGIN} -k says_nothing",
    ),
    Mutation(
        "ASVS 3.5.3",
        CROSSORIGIN,
        "if method in SAFE_METHODS:",
        "if method.upper() in SAFE_METHODS:",
        f"{IN_CROSSORIGIN} -k other_sites",
    ),
    Mutation(
        "B-60",
        CROSSORIGIN,
        'if protect and "*" in allowed_origins:',
        "if False:",
        f"{IN_CROSSORIGIN} -k contradict",
    ),
    Mutation(
        "ASVS 14.3.1",
        CLEARING,
        """f'"{each}"' for each""",
        "each for each",
        f"{IN_CLEARING} -k quoted",
    ),
    Mutation(
        "SESS-13",
        CLEARING,
        "if transport is not Transport.SECURE:",
        "if transport is Transport.INSECURE:",
        f"{IN_CLEARING} -k https_alone",
    ),
    Mutation(
        "ASVS 14.3.1",
        CLEARING,
        "return self._without_cookies if new_cookie else self._with_cookies",
        "return self._with_cookies",
        f"{IN_CLEARING} -k keeps_its_cookie",
    ),
    Mutation(
        "ASVS 3.5.1", ASGI, "if gate.rules.protect and", "if False and", f"{PROTECT} -k others"
    ),
    Mutation(
        "ASVS 14.3.1",
        GATE,
        "new_cookie=session._cookie is CookieChange.SEND",
        "new_cookie=session._cookie is CookieChange.CLEAR",
        f"{PROTECT} -k Clear",
    ),
    Mutation(
        "SESS-19, SESS-20, ASVS 3.5.1",
        CSRF,
        'masked = _xor(mask, digest(self._keys[0], verifier_hash, "sha256"))',
        'masked = _xor(mask, digest(self._keys[0], b"", "sha256"))',
        f"{IN_CSRF} -k its_own",
    ),
    Mutation(
        "ASVS 3.5.3",
        CROSSORIGIN,
        'SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})',
        'SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "DELETE"})',
        f"{IN_CROSSORIGIN} -k no_other_method",
    ),
    Mutation(
        "ASVS 11.2.2",
        CSRF,
        "            for key in self._keys\n",
        "            for key in self._keys[:1]\n",
        f"{IN_CSRF} -k newest_secret",
    ),
    Mutation(
        "B-29",
        CSRF,
        'derive(secret, b"csrf", realm, _MAC_BYTES)',
        'derive(secret, b"csrf", "", _MAC_BYTES)',
        f"{IN_CSRF} -k another_realm",
    ),
    Mutation(
        "ASVS 14.3.2",
        CROSSORIGIN,
        '        (b"cache-control", b"no-store"),\n',
        "",
        f"{IN_CROSSORIGIN} -k kept_by_no_cache",
    ),
    Mutation(
        "ASVS 3.5.3",
        CROSSORIGIN,
        'SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})',
        'SAFE_METHODS: Final = frozenset({"HEAD", "OPTIONS", "TRACE"})',
        f"{PROTECT} -k safe_methods",
    ),
    Mutation(
        "B-43",
        CROSSORIGIN,
        "        return Refusal.CROSS_SITE\n",
        "        return None\n",
        f"{IN_CROSSORIGIN} -k nothing_of_another",
    ),
    Mutation(
        "B-60",
        CLEARING,
        "            if directive not in DIRECTIVES:\n",
        "            if False:\n",
        f"{IN_CLEARING} -k would_ignore",
    ),
]
