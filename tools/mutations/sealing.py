"""Faults of bodies that are sealed at rest: the option ``encrypt``.

What lives here: a row for each promise of ``core/sealing.py``. What must not: tickets, which are
sealed always (``tickets.py``).
"""

from tools.mutations.places import (
    IN_IDENTITY,
    IN_SEALING,
    SEALING,
)
from tools.mutations.row import Mutation

FAULTS = [
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
        "B-25, ASVS 7.2.4",
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
        "S14, B-29",
        SEALING,
        'derive(secret, b"data", realm, 64)',
        'derive(secret, b"data", "", 64)',
        f"{IN_SEALING} -k another_realm",
    ),
    Mutation(
        "B-48, ASVS 14.2",
        SEALING,
        "cipher.encrypt(data, bound)))",
        "cipher.encrypt(data, bound), data))",
        f"{IN_SEALING} -k shows_nothing",
    ),
    Mutation(
        "ASVS 7.5.2",
        SEALING,
        "    owner = _encode((contents.user, contents.labels))\n",
        "    owner = _encode((None, {}))\n",
        f"{IN_SEALING} -k lists_read",
    ),
    Mutation(
        "B-15",
        SEALING,
        "return [session_id + nonce + mark + head]",
        "return [session_id]",
        f"{IN_SEALING} -k flipped_bit",
    ),
    Mutation(
        "B-11",
        SEALING,
        "_DAMAGED as error:  # only whoever",
        "ZeroDivisionError as error:  # only whoever",
        f"{IN_SEALING} -k still_runs_no_code",
    ),
    Mutation(
        "B-60",
        SEALING,
        "    if encrypt is False or encrypt is True:\n",
        '    if encrypt != "ticket":\n',
        f"{IN_SEALING} -k any_other_value",
    ),
    Mutation(
        "B-21",
        SEALING,
        "return [session_id + nonce + mark + head]",
        "return [session_id + nonce + mark]",
        f"{IN_SEALING} -k cut_or_lengthened",
    ),
    Mutation(
        "S9, B-13",
        SEALING,
        "(msgspec.MsgspecError, UnicodeDecodeError, RecursionError)",
        "(UnicodeDecodeError, RecursionError)",
        f"{IN_SEALING} -k no_bytes_of_others",
    ),
    Mutation(
        "S9, B-10",
        SEALING,
        "(msgspec.MsgspecError, UnicodeDecodeError, RecursionError)",
        "(UnicodeDecodeError, RecursionError)",
        f"{IN_SEALING} -k damaged_bodies",
    ),
    Mutation(
        "ASVS 11.2.2",
        SEALING,
        "own + former if slot is current else current + own",
        "own + former if slot is current else own + own",
        f"{IN_SEALING} -k its_own_half",
    ),
    Mutation(
        "ASVS 11.2.2",
        SEALING,
        "self._wrap(record.id, key, new) + self._wrap(record.id, key, verifier)",
        "_NO_SLOT + self._wrap(record.id, key, verifier)",
        f"{IN_IDENTITY} -k whole_life",
    ),
    Mutation(
        "ASVS 11.2.2",
        SEALING,
        "if root is not self._roots[0]:",
        "if False:",
        f"{IN_SEALING} -k save_moves_a_record",
    ),
]
