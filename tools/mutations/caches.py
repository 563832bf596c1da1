"""Faults of what caches are told: flaws B-1 to B-9, law A13.

What lives here: ``Vary`` and ``Cache-Control`` as answers carry them. What must not: when a session
counts as looked at (``requests.py``).
"""

from tools.mutations.places import (
    HEADERS,
    ON_ASGI,
    PROMISES,
    PROXIES,
    VISIT,
)
from tools.mutations.row import Mutation

FAULTS = [
    Mutation(
        "A13, B-1, ASVS 14.2.2, ASVS 14.3.2",
        HEADERS,
        '    sent.append((b"vary", _varying(b", ".join(vary))) if vary else _VARY_COOKIE)\n',
        "",
        f"{PROXIES} -k 'sees_anothers_page and ours and public'",
    ),
    Mutation(
        "B-5",
        HEADERS,
        'frozenset({b"cookie", b"*"})',
        'frozenset({b"cookie"})',
        "tests/web/test_headers.py -k names_cookie",
    ),
    Mutation(
        "B-6, OWASP-7",
        HEADERS,
        "        elif set_cookie is not None and name.endswith(_TARGETED):\n"
        "            _report(overruled, header)\n",
        "",
        f"{PROXIES} -k 'anothers_cookie and ours and CDNs'",
    ),
    Mutation(
        "B-7, ASVS 14.3.2",
        HEADERS,
        "_PRIVATE if set_cookie is None and not private else _PRIVATE_NO_STORE",
        "_PRIVATE if set_cookie is None else _PRIVATE_NO_STORE",
        f"{PROMISES} -k logged_in",
    ),
    Mutation(
        "B-7, ASVS 14.3.2",
        HEADERS,
        "_PRIVATE_NO_STORE if private else _PRIVATE)",
        "_PRIVATE)",
        f"{PROMISES} -k logged_in",
    ),
    Mutation(
        "B-8, OWASP-7",
        HEADERS,
        '    return said + b", no-store" if b"private" in directives else None\n',
        "    return said\n",
        f"{PROXIES} -k 'anothers_cookie and ours and max-age'",
    ),
    Mutation(
        "B-9, OWASP-7",
        HEADERS,
        '_PRIVATE_NO_STORE: Final = (b"cache-control", b"private, no-store")',
        '_PRIVATE_NO_STORE: Final = (b"cache-control", b"max-age=600")',
        f"{PROXIES} -k 'anothers_cookie and ours'",
    ),
    Mutation(
        "B-2",
        HEADERS,
        '_PRIVATE: Final = (b"cache-control", b"private")',
        '_PRIVATE: Final = (b"cache-control", b"public")',
        "tests/web/test_headers.py -k of_a_reader",
    ),
    Mutation(
        "B-1, B-6",
        HEADERS,
        "_PRIVATE if set_cookie is None and not private else _PRIVATE_NO_STORE",
        "_PRIVATE",
        "tests/web/test_headers.py -k with_a_cookie_is_not",
    ),
    Mutation(
        "A13, B-5",
        HEADERS,
        "    elif set_cookie is None:\n",
        "    elif False:\n",
        f"{ON_ASGI} -k handler_said_to_caches",
    ),
    Mutation(
        "A13, B-2",
        VISIT,
        "        self._looked = True\n",
        "        pass\n",
        "tests/core/test_session.py -k every_look_is_noted",
    ),
    Mutation(
        "A13, B-7, ASVS 14.3.2",
        HEADERS,
        "_PRIVATE_NO_STORE if private else _PRIVATE)",
        "_PRIVATE)",
        "tests/web/test_headers.py -k of_a_logged_in_user",
    ),
    Mutation(
        "B-6",
        HEADERS,
        "        elif set_cookie is not None and name.endswith(_TARGETED):\n"
        "            _report(overruled, header)\n",
        "",
        "tests/web/test_headers.py -k for_shared_caches_alone",
    ),
    Mutation(
        "A13, B-2",
        HEADERS,
        '_VARY_COOKIE: Final = (b"vary", b"Cookie")',
        '_VARY_COOKIE: Final = (b"vary", b"Accept")',
        f"{PROXIES} -k 'message_is_read and ours and public'",
    ),
]
