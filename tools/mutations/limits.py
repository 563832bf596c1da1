"""Faults of limits of time: how long a session may be silent, and how long it may live.

What lives here: defaults, presets, and that they are enforced. What must not: law A17 through the
adapters (``requests.py``) and what a login restarts (``logins.py``).
"""

from tools.mutations.places import (
    GATE,
    LIMITS,
    LOGIN_RULES,
    POLICY,
    PROMISES,
    PROTECT,
    RENEWAL,
)
from tools.mutations.row import Mutation

FAULTS = [
    Mutation(
        "ASVS 7.1.1",
        LIMITS,
        "ABSOLUTE: Final = 12 * 3_600_000\n",
        "ABSOLUTE: Final = None\n",
        "tests/core/test_policy.py -k must_be_asked_for",
    ),
    Mutation(
        "ASVS 7.1.1",
        LIMITS,
        "IDLE: Final = 30 * 60_000\n",
        "IDLE: Final = 12 * 3_600_000\n",
        "tests/core/test_policy.py -k defaults_of",
    ),
    Mutation(
        "ASVS 7.1.1, ASVS 7.3.1, ASVS 7.3.2",
        LIMITS,
        "        ordinary,\n    )\n    remembered",
        "        Limits(IDLE, ABSOLUTE),\n    )\n    remembered",
        "tests/test_settings.py -k each_kind",
    ),
    Mutation(
        "ASVS 7.3.1",
        POLICY,
        "    if now >= record.seen_at + record.idle_timeout:\n",
        "    if now > record.seen_at + record.idle_timeout:\n",
        "tests/core/test_policy.py -k very_millisecond",
    ),
    Mutation(
        "ASVS 7.3.2",
        POLICY,
        "    if now >= record.absolute_at:\n",
        "    if now > record.absolute_at:\n",
        "tests/core/test_policy.py -k very_millisecond",
    ),
    Mutation(
        "ASVS 7.3.1",
        GATE,
        "            session._seen_at = session._record.seen_at\n",
        "            pass\n",
        f"{PROTECT} -k polling",
    ),
    Mutation(
        "A17, SESS-06, COOK-05, REAUTH-08",
        POLICY,
        "    if now >= record.seen_at + record.idle_timeout:\n",
        "    if now < 0:\n",
        f"{PROMISES} -k eternal",
    ),
    Mutation(
        "SESS-14, REAUTH-02",
        POLICY,
        '    "aal2": Limits(_UNITS["hour"], 24 * _UNITS["hours"]),\n',
        '    "aal2": Limits(24 * _UNITS["hours"], 24 * _UNITS["hours"]),\n',
        "tests/core/test_policy.py -k presets_are",
    ),
    Mutation(
        "SESS-14, REAUTH-02",
        POLICY,
        '    "aal3": Limits(15 * _UNITS["minutes"], 12 * _UNITS["hours"]),\n',
        '    "aal3": Limits(15 * _UNITS["minutes"], 24 * _UNITS["hours"]),\n',
        "tests/docs/test_docs_are_complete.py -k presets",
    ),
    Mutation(
        "REAUTH-06",
        LIMITS,
        "    if found.absolute_timeout is None or found",
        "    if False and found",
        "tests/core/test_policy.py -k beyond_a_preset",
    ),
    Mutation(
        "SESS-14",
        LIMITS,
        "    if found.idle_timeout > most.idle_timeout:\n",
        "    if False:\n",
        "tests/test_settings.py -k weakened",
    ),
    Mutation(
        "REAUTH-09",
        POLICY,
        "        silence = now - record.seen_at\n",
        "        silence = 0\n",
        f"{LOGIN_RULES} -k activity_restarts",
    ),
    Mutation(
        "REAUTH-10",
        RENEWAL,
        "        absolute_at=limits.absolute_at(login.at),\n",
        "",
        f"{LOGIN_RULES} -k activity_restarts",
    ),
    Mutation(
        "SESS-05",
        POLICY,
        "        return record.persistent and (\n",
        "        return not record.persistent and (\n",
        "tests/core/test_policy.py -k lapses_by",
    ),
]
