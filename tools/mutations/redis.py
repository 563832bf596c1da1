"""Faults of the store for Valkey and Redis.

What lives here: a row for each protection in ``stores/redis/``. What must not: what every store
promises by its own code (``stores.py`` breaks the embedded ones).
"""

from tools.mutations.places import (
    IN_FAILURES,
    IN_GROUPS,
    IN_STORE,
    REDIS,
)
from tools.mutations.row import Mutation

FAULTS = [
    Mutation(
        "S6",
        REDIS + "scripts.py",
        "  if number(seen) > number(string.sub(value, 11, 18)) then",
        "  if false then",
        f"{IN_STORE} -k 'keeps_the_larger and TCP'",
    ),
    Mutation(
        "S6",
        REDIS + "scripts.py",
        "local function number(text) return (struct.unpack('>I8', text)) end",
        "local function number(text) return text end",
        f"{IN_FAILURES} -k order_of_letters",
    ),
    Mutation(
        "S12",
        REDIS + "courier.py",
        'reply.code == "NOSCRIPT"',
        'reply.code == "NEVER"',
        f"{IN_FAILURES} -k flushed",
    ),
    Mutation(
        "S12",
        REDIS + "courier.py",
        "        twice = [at for at in lost if _is_repeatable(requests[at])]",
        "        twice = []",
        f"{IN_FAILURES} -k reads_survive",
    ),
    Mutation(
        "S12",
        REDIS + "courier.py",
        "            deadline = min(deadline, now + max(_LEAST, _PATIENCE * self.timeout))",
        "            pass",
        f"{IN_FAILURES} -k silent_network",
    ),
    Mutation(
        "S12",
        REDIS + "wires.py",
        "        if self._socket is None or _speaks(self._socket, within=0):",
        "        if self._socket is None:",
        f"{IN_FAILURES} -k anew_without",
    ),
    Mutation(
        "ASK and TRYAGAIN are no failures",
        REDIS + "courier.py",
        "                if command.joined and is_split(replies[at]):",
        "                if False:",
        f"{IN_GROUPS} -k on_its_way",
    ),
    Mutation(
        "ASK and TRYAGAIN are no failures",
        REDIS + "cluster.py",
        '        if told == "ASK":',
        "        if False:",
        f"{IN_GROUPS} -k on_its_way",
    ),
    Mutation(
        "S15",
        REDIS + "lists.py",
        "            if not is_split(error.__cause__):",
        "            if True:",
        "tests/stores/redis/test_moving.py -k on_its_way",
    ),
    Mutation(
        "S16",
        REDIS + "lists.py",
        "        if await self._is_void(mark, record):",
        "        if False:",
        "tests/stores/redis/test_moving.py -k on_its_way",
    ),
    Mutation(
        "S12",
        REDIS + "replies.py",
        "        if wrapped is not None:",
        "        if False:",
        f"{IN_FAILURES} -k 'full_server and Redis'",
    ),
    Mutation(
        "S14",
        REDIS + "keys.py",
        'f"{prefix}:{realm}:"',
        'f"{prefix}:"',
        f"{IN_STORE} -k 'realms_never and TCP'",
    ),
    Mutation(
        "S15",
        REDIS + "requests.py",
        "        return None if part is None or created_at(part) < mark else part",
        "        return part",
        f"{IN_STORE} -k 'absent_at_once and TCP and 20'",
    ),
    Mutation(
        "S13",
        REDIS + "scripts.py",
        "if many > 0 and order == 0 then return -2 end",
        "",
        f"{IN_STORE} -k 'is_refused_leaves and TCP'",
    ),
    Mutation(
        "ASVS 7.1.2",
        REDIS + "scripts.py",
        "a[3] < b[3] or a[3] == b[3] and a[1] < b[1]",
        "a[3] > b[3] or a[3] == b[3] and a[1] < b[1]",
        f"{IN_STORE} -k 'right_one_go and TCP'",
    ),
    Mutation(
        "S15",
        REDIS + "scripts.py",
        "if type(done) == 'table' then unlist(done[1], id, value) end",
        "",
        f"{IN_STORE} -k 'somebody_else_moves and TCP'",
    ),
    Mutation(
        "ASVS 7.1.2",
        REDIS + "scripts.py",
        "if redis.call('EXISTS', KEYS[3]) == 1 then return {'busy'} end",
        "",
        f"{IN_GROUPS} -k 'TestCluster and as_many_as_may_be'",
    ),
    Mutation(
        "S16",
        REDIS + "scripts.py",
        "  if mark and number(mark) > field(value, own, {AUTHENTICATED_AT}) then return -1 end\n",
        "",
        f"{IN_STORE} -k 'began_before_is_void and TCP'",
    ),
    Mutation(
        "S16",
        REDIS + "lists.py",
        "        while holder is not None and holder == waiting:",
        "        while False:",
        f"{IN_GROUPS} -k 'TestCluster and logged_in_after_all'",
    ),
    Mutation(
        "S16",
        REDIS + "lists.py",
        "            if await self._is_void(self._keys.lists(digest)[1], record):",
        "            if False:",
        f"{IN_GROUPS} -k outlasts_its_lease",
    ),
    Mutation(
        "S17",
        REDIS + "listener.py",
        "            self._gap()",
        "            pass",
        "tests/stores/redis/test_announcements.py -k gap",
    ),
    Mutation(
        "S10, S12",
        REDIS + "courier.py",
        "            lost = [at for at in failed if isinstance(outcomes[at], Broken)]",
        "            lost = []",
        f"{IN_FAILURES} -k killed_under_load",
    ),
    Mutation(
        "S12",
        REDIS + "wires.py",
        "max(deadline - time.monotonic(), 0), self._expire",
        "max(deadline - time.monotonic(), 0) / 10, self._expire",
        f"{IN_FAILURES} -k slow_server",
    ),
    Mutation(
        "S12",
        REDIS + "replies.py",
        '"READONLY", ',
        "",
        f"{IN_FAILURES} -k read_only_replica",
    ),
]
