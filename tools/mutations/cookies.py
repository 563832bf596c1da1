"""Faults of the cookie itself: its name, its flags, its age, and over which transport it goes.

What lives here: what is written and which header is read. What must not: what the value means
(``tickets.py``).
"""

from tools.mutations.places import (
    COOKIES,
    FUZZ,
    GATE,
    PROXIES,
    SOCKET_RULES,
    TICKET_RULES,
    TRANSPORT,
)
from tools.mutations.row import Mutation

FAULTS = [
    Mutation(
        "B-27",
        COOKIES,
        'rb";[ \\t]*+%b=([^;]*+)"',
        'rb";[ \\t=]*+%b=([^;]*+)"',
        f"{FUZZ} -k 'fuzzer_found and cookie_header'",
    ),
    Mutation(
        "B-23, B-28, ASVS 14.2.1",
        COOKIES,
        'rb";[ \\t]*+%b=([^;]*+)"',
        'rb";[ \\t]*+%b[.0-9]*=([^;]*+)"',
        f"{TICKET_RULES} -k only_our_cookie",
    ),
    Mutation(
        "B-56",
        GATE,
        "        values = side.reader.find(cookies)\n",
        '        values = ("".join(side.reader.find(cookies)),)\n',
        f"{TICKET_RULES} -k pieces",
    ),
    Mutation(
        "B-44",
        COOKIES,
        'past = b"Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"',
        'past = b"Max-Age=3600"',
        "tests/web/test_cookies.py -k delet",
    ),
    Mutation(
        "B-44",
        COOKIES,
        'past = b"Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"',
        'past = b"Max-Age=3600"',
        f"{PROXIES} -k 'logout and ours'",
    ),
    Mutation(
        "B-58",
        COOKIES,
        '_VALUE = re.compile(r"[!#-+\\--:<-\\[\\]-~]*")',
        '_VALUE = re.compile(r"[^;]*")',
        f"{FUZZ} -k 'any_bytes and cookie_written'",
    ),
    Mutation(
        "SESS-13, ASVS 4.4.1",
        TRANSPORT,
        "        return Transport.INSECURE\n",
        "        return Transport.PLAIN\n",
        f"{SOCKET_RULES} -k plain_socket",
    ),
    Mutation(
        "B-60, ASVS 3.3.1, COOK-01",
        COOKIES,
        '            attributes.append("Secure")\n',
        "            pass\n",
        "tests/web/test_cookies.py -k flags_are_those_of_the_settings",
    ),
    Mutation(
        "ASVS 3.3.1, ASVS 3.3.3",
        COOKIES,
        '"__Secure-sid" if shared else "__Host-sid"',
        '"sid"',
        "tests/web/test_cookies.py -k name_fits",
    ),
    Mutation(
        "ASVS 3.3.1, ASVS 3.3.3, B-58",
        COOKIES,
        "            if self.domain is not None:\n                raise",
        "            if False:\n                raise",
        "tests/web/test_cookies.py -k combination",
    ),
    Mutation(
        "ASVS 3.3.2, COOK-01",
        COOKIES,
        '        attributes.append(f"SameSite={self.same_site.capitalize()}")\n',
        "",
        "tests/web/test_cookies.py -k flags_are_those_of_the_settings",
    ),
    Mutation(
        "ASVS 3.3.2",
        COOKIES,
        'if self.same_site not in ("lax", "strict", "none"):',
        "if False:",
        "tests/web/test_cookies.py -k one_of_three",
    ),
    Mutation(
        "ASVS 3.3.5, A14",
        COOKIES,
        "        if size > MAX_PAIR_BYTES:\n",
        "        if size > MAX_PAIR_BYTES + 1:\n",
        "tests/web/test_cookies.py -k 4097",
    ),
    Mutation(
        "COOK-04",
        GATE,
        "        return max(1, remaining // 1000)\n",
        "        return 34_560_000\n",
        "tests/web/test_gate.py -k as_its_session_can",
    ),
    Mutation(
        "SESS-04",
        GATE,
        "        if record is None or not (self.rules.cookie.persistent or record.persistent):\n",
        "        if record is None:\n",
        f"{TICKET_RULES} -k tells_nothing",
    ),
    Mutation(
        "SESS-12, B-44",
        GATE,
        "            return side.cookie.delete()\n",
        "            return None\n",
        "tests/web/test_gate.py -k clears_its_cookie",
    ),
    Mutation(
        "SESS-13",
        GATE,
        "if cookies is None or transport is INSECURE:",
        "if cookies is None:",
        "tests/web/test_gate.py -k never_reaches_the_cookie",
    ),
    Mutation(
        "B-60, ASVS 3.3.1",
        COOKIES,
        '        secure = self.secure == "auto" and self._secure_only() is not None\n',
        "        secure = False\n",
        "tests/web/test_cookies.py -k secure_wherever",
    ),
    Mutation(
        "B-58",
        COOKIES,
        "if self.name is not None and _TOKEN.fullmatch(self.name) is None:",
        "if False:",
        "tests/web/test_cookies.py -k name_is_a_token",
    ),
    Mutation(
        "B-58",
        COOKIES,
        "if _PATH.fullmatch(self.path) is None or len(",
        "if len(",
        "tests/web/test_cookies.py -k path_is_one",
    ),
    Mutation(
        "B-58",
        COOKIES,
        "            _DOMAIN.fullmatch(self.domain) is None or len(",
        "            len(",
        "tests/web/test_cookies.py -k domain_is_a_host",
    ),
]
