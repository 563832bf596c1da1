"""Faults of listening in a cluster: channels that follow their slots, gaps that are told.

What lives here: law S17 and S18 for announcements over sharded channels. What must not: what an
announcement means for whatever is open (``across.py``) and single servers (``redis.py``).
"""

from tools.mutations.places import REDIS
from tools.mutations.row import Mutation

IN_CLUSTER = "tests/stores/redis/test_announcements_in_cluster.py"

FAULTS = [
    Mutation(
        "S17",
        REDIS + "listener.py",
        "                self._lost.add(channel)",
        "                pass",
        f"{IN_CLUSTER} -k 'moves and from'",
    ),
    Mutation(
        "S17",
        REDIS + "listener.py",
        '            elif kind == b"sunsubscribe" and channel in ear.standing:',
        "            elif False:",
        f"{IN_CLUSTER} -k 'moves and from'",
    ),
    Mutation(
        "S17",
        REDIS + "listener.py",
        "            self._ask(other, channels)",
        "            pass",
        f"{IN_CLUSTER} -k opening_and_closing",
    ),
    Mutation(
        "S18",
        REDIS + "listener.py",
        "            if ear is not self._home and not ear.asked and not ear.standing:",
        "            if False:",
        f"{IN_CLUSTER} -k nothing_needs",
    ),
    Mutation(
        "S18",
        REDIS + "listener.py",
        "max(time.monotonic(), self._told_at + _BETWEEN_GAPS)",
        "time.monotonic()",
        f"{IN_CLUSTER} -k succession",
    ),
    Mutation(
        "S17",
        REDIS + "ears.py",
        "        while self.is_open and self.connection.can_read(timeout=0):",
        "        if self.is_open and self.connection.can_read(timeout=0):",
        "tests/stores/redis/test_openers.py -k come_at_once",
    ),
    Mutation(
        "S17",
        REDIS + "requests.py",
        "keys.record(session_id), repeatable=True)",
        "keys.record(session_id))",
        f"{IN_CLUSTER} -k primary_that_carries",
    ),
    Mutation(
        "S17",
        REDIS + "scripts.py",
        "clustered and {SHARDED} and 'SPUBLISH' or 'PUBLISH', channel",
        "'PUBLISH', channel",
        f"{IN_CLUSTER} -k no_node_but",
    ),
]
