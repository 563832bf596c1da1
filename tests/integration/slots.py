"""Migrates slots of a real cluster from one primary to another, at once or key by key."""

import time

PATIENCE_MS = 5000


class Move:
    """The migration of one slot to the next primary; a context manager.

    Args:
        cluster: a ``ValkeyCluster``.
        key: of the slot.
    """

    def __init__(self, cluster, key):
        self._primaries = cluster.primaries()
        self._admins = [cluster.admin(node) for node in self._primaries]
        self._ids = [admin.execute_command("CLUSTER", "MYID") for admin in self._admins]
        self.slot = self._admins[0].execute_command("CLUSTER", "KEYSLOT", key)
        owners = (slots_of(a, i) for a, i in zip(self._admins, self._ids, strict=True))
        self._source = next(n for n, slots in enumerate(owners) if self.slot in slots)
        self._target = (self._source + 1) % len(self._admins)

    def __enter__(self):
        """Start the migration: new keys are created at the target from now on."""
        source, target = self._source, self._target
        self._set_slot(target, "IMPORTING", self._ids[source])
        self._set_slot(source, "MIGRATING", self._ids[target])
        return self

    def send(self, keys):
        """Migrate some keys."""
        port = self._primaries[self._target].port
        for key in keys:
            self._admins[self._source].execute_command(
                "MIGRATE", "127.0.0.1", port, key, 0, PATIENCE_MS
            )

    def send_all(self, pause=0.0):
        """Migrate every key, with a pause (seconds) before each."""
        while keys := self._keys():
            for key in keys:
                time.sleep(pause)  # a slot with many keys takes long; the test configures this
                self.send([key])

    def _keys(self):
        return self._admins[self._source].execute_command(
            "CLUSTER", "GETKEYSINSLOT", self.slot, 100
        )

    def __exit__(self, *_):
        """Finish the migration: assign the slot to the target."""
        self.send_all()
        others = set(range(len(self._admins))) - {self._source, self._target}
        for number in (self._target, self._source, *others):
            self._set_slot(number, "NODE", self._ids[self._target])
        for admin in self._admins:
            admin.close()

    def _set_slot(self, number, *words):
        self._admins[number].execute_command("CLUSTER", "SETSLOT", self.slot, *words)


def slots_of(admin, node_id):
    """Return the slots of a node, without redis-py's parsing of the reply."""
    connection = admin.connection_pool.get_connection()
    try:
        connection.send_command("CLUSTER", "SLOTS")
        ranges = [(part[0], part[1], part[2][2]) for part in connection.read_response()]
    finally:
        admin.connection_pool.release(connection)
    return {
        slot for start, end, owner in ranges if owner == node_id for slot in range(start, end + 1)
    }
