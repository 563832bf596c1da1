"""The faults that tests of the security table must notice, as a table for ``mutate.py``.

What lives here: one fault or more for each flaw of ``security_flaws.py`` whose protection is not
one of the laws; ``BY_LAW`` names the laws whose faults (``mutations.py``) take the others away.
What must not: the laws' own rows. A row is as in ``mutations.py``; its first field names flaws.
"""

from tools.mutations import (
    COOKIES,
    GATE,
    HEADERS,
    LOADER,
    MEMORY,
    RECORD,
    SESSION,
    SOCKET,
    TICKET,
    VISIT,
    WRITER,
    Mutation,
)

CODEC = "src/sojourn/core/codec.py"
EVENTS = "src/sojourn/events.py"
JOURNAL = "src/sojourn/core/journal.py"
REGISTRY = "src/sojourn/live/registry.py"
SCOPE = "src/sojourn/web/scope.py"
QUALITY = "src/sojourn/secret.py"
SQLITE_FILE = "src/sojourn/stores/sqlite_file.py"
TRANSPORT = "src/sojourn/web/transport.py"
ASGI = "src/sojourn/web/asgi.py"
RENEWAL = "src/sojourn/core/renewal.py"
ENDER = "src/sojourn/core/ender.py"

PROXIES = "tests/security/test_caching_proxies.py"
PROMISES = "tests/security/test_promises.py"
SOURCE = "tests/security/test_source.py"
TICKETS = "tests/security/test_tickets.py"
BYTES = "tests/security/test_byte_search.py"
SOCKETS = "tests/security/test_sockets.py"
FUZZ = "tests/fuzz/test_fuzz.py"
LOGINS = "tests/security/test_logins.py"
PROTECT = "tests/web/test_protect.py"

#: Flaws whose protection is a law: the faults of these laws are theirs.
BY_LAW = {
    "B-2": "A13",
    "B-3": "A13",
    "B-22": "A8",
    "B-24": "A8",
    "B-26": "S2",
    "B-32": "A7",
    "B-33": "S5",
    "B-35": "A7",
    "B-36": "A7",
    "B-37": "A17",
    "B-38": "A7",
    "B-52": "A16",
    "B-53": "A1",
    "B-57": "A19",
    "B-60": "A14",
}

CACHES = [
    Mutation(
        "B-1 B-4",
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
        "B-6",
        HEADERS,
        "        elif set_cookie is not None and name.endswith(_TARGETED):\n"
        "            _report(overruled, header)\n",
        "",
        f"{PROXIES} -k 'anothers_cookie and ours and CDNs'",
    ),
    Mutation(
        "B-7",
        HEADERS,
        "_PRIVATE if set_cookie is None and not private else _PRIVATE_NO_STORE",
        "_PRIVATE if set_cookie is None else _PRIVATE_NO_STORE",
        f"{PROMISES} -k logged_in",
    ),
    Mutation(
        "B-7",
        HEADERS,
        "_PRIVATE_NO_STORE if private else _PRIVATE]",
        "_PRIVATE]",
        f"{PROMISES} -k logged_in",
    ),
    Mutation(
        "B-8",
        HEADERS,
        '    return said + b", no-store" if b"private" in directives else None\n',
        "    return said\n",
        f"{PROXIES} -k 'anothers_cookie and ours and max-age'",
    ),
    Mutation(
        "B-9",
        HEADERS,
        '_PRIVATE_NO_STORE: Final = (b"cache-control", b"private, no-store")',
        '_PRIVATE_NO_STORE: Final = (b"cache-control", b"max-age=600")',
        f"{PROXIES} -k 'anothers_cookie and ours'",
    ),
]

FORMATS = [
    Mutation(
        "B-10 B-11 B-12",
        CODEC,
        "        return _decode(data)\n    except RecursionError:",
        '        if data[:1] == b"\\x80":\n'
        '            __import__("pickle").loads(data)\n'
        "        return _decode(data)\n    except RecursionError:",
        f"{PROMISES} -k thief",
    ),
    Mutation(
        "B-10 B-12",
        CODEC,
        "        return _decode(data)\n    except RecursionError:",
        "        return eval(data)\n    except RecursionError:",
        f"{SOURCE} -k runs_what",
    ),
    Mutation(
        "B-13 B-42 B-46 B-47",
        TICKET,
        "except InvalidTag:\n                continue\n",
        "except InvalidTag:\n                return Ticket(sealed[:16], sealed[16:32])\n",
        f"{TICKETS} -k public_id",
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
        f"{SOURCE} -k constant_time",
    ),
    Mutation(
        "B-18 B-48",
        TICKET,
        "    return hashlib.sha256(verifier).digest()\n",
        "    return verifier * 2\n",
        f"{PROMISES} -k never_goes",
    ),
    Mutation(
        "B-48",
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
        "B-20 B-50",
        SQLITE_FILE,
        "                if not stat.S_ISREG(path.lstat().st_mode):\n",
        "                if stat.S_ISDIR(path.lstat().st_mode):\n",
        "tests/stores/test_sqlite.py -k link",
    ),
    Mutation(
        "B-21",
        RECORD,
        "(msgspec.MsgspecError, UnicodeDecodeError, RecursionError)",
        "(msgspec.MsgspecError, UnicodeDecodeError)",
        f"{FUZZ} -k 'fuzzer_found and body'",
    ),
]

WAYS_IN = [
    Mutation(
        "B-23 B-28",
        SCOPE,
        '            elif name == b"cookie":\n',
        '            elif name in (b"cookie", b"origin"):\n',
        "tests/web/test_scope.py",
    ),
    Mutation(
        "B-27",
        COOKIES,
        'rb";[ \\t]*+%b=([^;]*+)"',
        'rb";[ \\t=]*+%b=([^;]*+)"',
        f"{FUZZ} -k 'fuzzer_found and cookie_header'",
    ),
    Mutation(
        "B-23 B-28 B-56",
        COOKIES,
        'rb";[ \\t]*+%b=([^;]*+)"',
        'rb";[ \\t]*+%b[.0-9]*=([^;]*+)"',
        f"{TICKETS} -k 'only_our_cookie or pieces'",
    ),
    Mutation(
        "B-29",
        TICKET,
        "        # One string of associated data instead of three",
        '        realm = ""\n        # One string of associated data instead of three',
        "tests/core/test_ticket.py -k another_realm",
    ),
    Mutation(
        "B-30 B-31",
        TICKET,
        "not in _LAST or not text.isascii():\n            return None\n",
        "not in _LAST or not text.isascii():\n"
        '            return Ticket(text.encode()[:16].ljust(16, b"0"), bytes(16))\n',
        f"{TICKETS} -k visitors_choice",
    ),
]

ENDINGS = [
    Mutation(
        "B-34",
        EVENTS,
        "            except Exception:\n",
        "            except ZeroDivisionError:\n",
        "tests/test_events.py",
    ),
    Mutation(
        "B-41",
        REGISTRY,
        "        dispatcher.on(Revoked, self._on_revoked)\n",
        "",
        f"{SOCKETS} -k ends_with",
    ),
    Mutation(
        "B-43",
        SOCKET,
        "            if not origin_allowed(\n",
        "            if False and not origin_allowed(\n",
        f"{SOCKETS} -k foreign_page",
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
]

OTHERS = [
    Mutation(
        "B-49",
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
        "B-50",
        SQLITE_FILE,
        "                if stat.S_IMODE(path.lstat().st_mode) & 0o077:\n",
        "                if stat.S_IMODE(path.lstat().st_mode) & 0o007 == 0o007:\n",
        "tests/stores/test_sqlite.py",
    ),
    Mutation(
        "B-51",
        CODEC,
        "    if convert is None:\n        raise _Refused(path, kind)\n",
        "    if convert is None:\n        return str(value)\n",
        f"{PROMISES} -k hides",
    ),
    Mutation(
        "B-54",
        MEMORY,
        "        if len(self._records) >= self._limit:\n",
        "        if len(self._records) < 0:\n",
        "tests/stores/test_memory.py",
    ),
    Mutation(
        "B-55",
        WRITER,
        "        if len(body) > self._max_bytes:\n",
        "        if len(body) > 10 * self._max_bytes:\n",
        "tests/core/test_engine.py -k too_large",
    ),
    Mutation(
        "B-58",
        COOKIES,
        '_VALUE = re.compile(r"[!#-+\\--:<-\\[\\]-~]*")',
        '_VALUE = re.compile(r"[^;]*")',
        f"{FUZZ} -k 'any_bytes and cookie_written'",
    ),
    Mutation(
        "B-59",
        ASGI,
        '    (b"retry-after", b"2"),\n',
        '    (b"retry-after", b"2"),\n    (b"location", b"/login"),\n',
        f"{PROMISES} {SOURCE} -k 'redirects or leads_elsewhere'",
    ),
    Mutation(
        "ASVS-16.3.3",
        JOURNAL,
        "        self._dispatcher.emit(Rejected(session_id.hex(), reason))\n",
        "        pass\n",
        f"{TICKETS} -k told",
    ),
    Mutation(
        "SESS-13",
        TRANSPORT,
        "        return Transport.INSECURE\n",
        "        return Transport.PLAIN\n",
        f"{SOCKETS} -k plain_socket",
    ),
]

USERS = [
    Mutation(
        "B-25",
        RENEWAL,
        "        former=NO_VERIFIER,\n        former_until=0,\n",
        "        former=record.verifier,\n        former_until=login.at + GRACE,\n",
        f"{LOGINS} -k second_factor",
    ),
    Mutation(
        "B-39",
        ENDER,
        "            if record.id != keep:\n",
        "            if keep is None:\n",
        "tests/test_sessions.py -k credentials",
    ),
    Mutation(
        "B-40",
        LOADER,
        "        if self._revoke_reused:\n",
        "        if not self._revoke_reused:\n",
        "tests/laws/test_applications.py::TestBareASGI -k sign_of_theft",
    ),
    Mutation(
        "B-45",
        VISIT,
        "        return None if self._contents is None else self._contents.user\n",
        "        return self._contents and (self._contents.user or 'ada')\n",
        f"{LOGINS} -k second_factor",
    ),
    Mutation(
        "ASVS-3.5.1", ASGI, "if gate.rules.protect and", "if False and", f"{PROTECT} -k others"
    ),
    Mutation(
        "ASVS-14.3.1",
        GATE,
        "new_cookie=session._cookie is CookieChange.SEND",
        "new_cookie=session._cookie is CookieChange.CLEAR",
        f"{PROTECT} -k Clear",
    ),
]

SECURITY = [*CACHES, *FORMATS, *WAYS_IN, *ENDINGS, *OTHERS, *USERS]
