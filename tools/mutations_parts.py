"""The faults that tests of the parts beside the engine must notice, as a table for ``mutate.py``.

What lives here: one row or more for each promise of sealed bodies, tokens for forms, foreign pages,
clearing at logout and the audit log. What must not: laws (``mutations.py``, ``mutations_lives.py``)
and flaws of the past (``mutations_security.py``). A row's first field says what it breaks.
"""

from tools.mutations import Mutation

SEALING = "src/sojourn/core/sealing.py"
CSRF = "src/sojourn/core/csrf.py"
CROSSORIGIN = "src/sojourn/web/crossorigin.py"
CLEARING = "src/sojourn/web/clearing.py"
AUDIT = "src/sojourn/audit.py"
IN_SEALING = "tests/core/test_sealing.py"
IN_CSRF = "tests/core/test_csrf.py"
IN_CROSSORIGIN = "tests/web/test_crossorigin.py"
IN_CLEARING = "tests/web/test_clearing.py"
IN_AUDIT = "tests/test_audit.py"

PARTS = [
    Mutation(
        "encrypt: not moved to another session",
        SEALING,
        "return [session_id + nonce + mark + head]",
        "return [nonce + mark + head]",
        f"{IN_SEALING} -k another_session",
    ),
    Mutation(
        "encrypt: user and labels are bound",
        SEALING,
        "return [session_id + nonce + mark + head]",
        "return [session_id + nonce + mark]",
        f"{IN_SEALING} -k cannot_be_changed_beside",
    ),
    Mutation(
        "encrypt: another mode is told apart",
        SEALING,
        "    if sealed.data[:1] != mark:\n"
        '        raise _unreadable(session_id, "was sealed in another mode of encrypt")\n',
        "",
        f"{IN_SEALING} -k one_mode",
    ),
    Mutation(
        "B-15",
        SEALING,
        "nonce = secrets.token_bytes(_NONCE_BYTES)",
        "nonce = bytes(_NONCE_BYTES)",
        f"{IN_SEALING} -k differently",
    ),
    Mutation(
        "encrypt: clear bodies are refused",
        SEALING,
        "        sealed = _sealed(record.id, record.body, _BY_SECRET)\n",
        "        if _is(_decode_clear, record.body):\n"
        "            return _decode_clear(record.body)\n"
        "        sealed = _sealed(record.id, record.body, _BY_SECRET)\n",
        f"{IN_SEALING} -k refused_while_encryption_is_on",
    ),
    Mutation(
        "encrypt: clear bodies are refused",
        SEALING,
        "        sealed = _sealed(record.id, record.body, _BY_TICKET)\n",
        "        if _is(_decode_clear, record.body):\n"
        "            return _decode_clear(record.body)\n"
        "        sealed = _sealed(record.id, record.body, _BY_TICKET)\n",
        f"{IN_SEALING} -k refused_while_encryption_is_on",
    ),
    Mutation(
        "ASVS 11.2.2",
        SEALING,
        "        for cipher in self._ciphers:\n",
        "        for cipher in self._ciphers[:1]:\n",
        f"{IN_SEALING} -k every_secret_opens",
    ),
    Mutation(
        "ASVS 11.2.2",
        SEALING,
        "        for root in self._roots:\n",
        "        for root in self._roots[:1]:\n",
        f"{IN_SEALING} -k every_secret_opens",
    ),
    Mutation(
        "ASVS 11.2.2",
        SEALING,
        "if root is not self._roots[0]:",
        "if False:",
        f"{IN_SEALING} -k newest_secret",
    ),
    Mutation(
        "B-48",
        SEALING,
        'digest(root, verifier + b"\\x01", "sha256")',
        'digest(root, b"\\x01", "sha256")',
        f"{IN_SEALING} -k together_read_nothing",
    ),
    Mutation(
        "B-48",
        SEALING,
        "key = secrets.token_bytes(_DATA_KEY_BYTES)",
        "key = digest(self._roots[0], session_id, 'sha256')",
        f"{IN_SEALING} -k takes_a_new_key",
    ),
    Mutation(
        "encrypt: a former ticket is forgotten",
        SEALING,
        "return record.body[:start] + _NO_SLOT + record.body[start + _SLOT_BYTES :]",
        "return record.body",
        f"{IN_SEALING} -k forgotten",
    ),
    Mutation(
        "S14",
        SEALING,
        'derive(secret, b"data", realm, 64)',
        'derive(secret, b"data", "", 64)',
        f"{IN_SEALING} -k another_realm",
    ),
    Mutation(
        "NIST SESS-20",
        CSRF,
        'digest(key, known, "sha256"))',
        "mac)",
        f"{IN_CSRF} -k another_session",
    ),
    Mutation(
        "NIST SESS-20",
        CSRF,
        "hashes = [known for known in verifier_hashes if known != NO_VERIFIER]",
        "hashes = list(verifier_hashes)",
        f"{IN_CSRF} -k absent_verifier",
    ),
    Mutation(
        "NIST SESS-20",
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
        "NIST SESS-13",
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
        "B-34",
        AUDIT,
        "        try:\n            self._put(line)\n        except Exception:\n"
        '            logger.exception("an audit line could not be written: %s", line)\n',
        "        self._put(line)\n",
        f"{IN_AUDIT} -k 'is_logged and breaks_nothing'",
    ),
    Mutation(
        "B-50",
        AUDIT,
        "return os.open(path, flags, 0o600)",
        "return os.open(path, flags, 0o666)",
        f"{IN_AUDIT} -k owners_alone",
    ),
    Mutation(
        "ASVS 16.4.1",
        AUDIT,
        'return line.encode() + b"\\n"',
        "return line.encode()",
        f"{IN_AUDIT} -k several_processes",
    ),
    Mutation(
        "ASVS 16.3",
        AUDIT,
        "for kind in KINDS - TRAFFIC:",
        "for kind in KINDS:",
        f"{IN_AUDIT} -k all_kinds",
    ),
    Mutation(
        "ASVS 16.4",
        AUDIT,
        '"ab", buffering=0',
        '"r+b", buffering=0',
        f"{IN_AUDIT} -k 'several_processes or appended'",
    ),
]
