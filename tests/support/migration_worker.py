"""A process that reads, writes, logs in and revokes during a migration, and records its actions.

Arguments: a JSON file with the settings. It works until SIGTERM, then writes its notes beside it.
"""

import asyncio
import json
import random
import signal
import sys
from pathlib import Path

from sojourn import Sessions
from sojourn.stores import migrating
from sojourn.testing.visitor import Visitor

SECRET = "sessions-of-a-migration-8Kq2Wz5Lm"

#: Requests that a worker handles at the same time.
CONCURRENCY = 6


def open_sessions(settings):
    """Return the installation for a step of the deployment."""
    old, new, step = settings["old"], settings["new"], settings["step"]
    store = {
        "old": old,
        "prepare": migrating(old, new, prepare=True),
        "move": migrating(old, new),
        "new": new,
    }[step]
    return Sessions(store=store, secret=SECRET, store_timeout="20 seconds", max_sessions=3)


class Worker:
    """The work of one process.

    Attributes:
        notes: how often each shared session was incremented; what each own session is.
    """

    def __init__(self, settings):
        self.sessions = open_sessions(settings)
        self.number = settings["number"]
        self.shared = settings["shared"]
        self.own = settings["own"]
        self.idle = settings["idle"]
        self.stopped = False
        self.notes = {"increments": {}, "revoked": [], "created": [], "own": self.own}
        self.random = random.Random(self.number)

    async def run(self):
        """Work until the process receives the signal to stop."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, setattr, self, "stopped", True)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.gather(*(self.work(task) for task in range(CONCURRENCY)))
        self.sessions.close()
        return self.notes

    async def work(self, task):
        while not self.stopped:
            action = self.random.choices(
                [self.read, self.write, self.log_in, self.revoke, self.begin],
                [40, 40, 8, 6, 6],
            )[0]
            await action(task)

    async def read(self, _):
        number = self.random.randrange(len(self.shared))
        session = await Visitor(self.sessions, cookie=self.shared[number]).load()
        assert session.get("number") == number, f"session {number} is lost: {dict(session)}"

    async def write(self, _):
        number = self.random.randrange(len(self.shared))
        async with Visitor(self.sessions, cookie=self.shared[number]).visit() as session:
            session.increment("count")
        counts = self.notes["increments"]
        counts[str(number)] = counts.get(str(number), 0) + 1

    async def log_in(self, task):
        """Log in with a session of this task; its user's list contains it once."""
        mine = [each for each in self.own if each["task"] == task and each["cookie"]]
        if not mine:
            return
        one = self.random.choice(mine)
        visitor = Visitor(self.sessions, cookie=one["cookie"])
        async with visitor.visit() as session:
            assert session.get("name") == one["name"], f"session {one['name']} is lost"
            session.login(one["name"])
        one["cookie"], one["user"] = visitor.cookie, one["name"]
        listed = await self.sessions.alist_user(one["name"])
        assert [each.id for each in listed] == [session.id], f"{one['name']}: {listed}"

    async def revoke(self, task):
        """Revoke a session outside of a request, or all sessions of a user of this task."""
        if self.idle and self.random.random() < 0.7:
            session_id = self.idle.pop()
            assert await self.sessions.arevoke(session_id) is True, f"{session_id} is lost"
            self.notes["revoked"].append(session_id)
            assert await self.sessions.aget(session_id) is None, f"{session_id} is revived"
            return
        mine = [e for e in self.own if e["task"] == task and e["cookie"] and e["user"]]
        if not mine:
            return
        one = self.random.choice(mine)
        assert await self.sessions.arevoke_user(one["user"]) == 1
        session = await Visitor(self.sessions, cookie=one["cookie"]).load()
        assert dict(session) == {}, f"{one['name']} is revived"
        self.notes["revoked"].append(one["id"])
        one["cookie"] = None

    async def begin(self, task):
        """Create a session."""
        name = f"{self.number}-{task}-{self.random.getrandbits(64):x}"
        visitor = Visitor(self.sessions)
        async with visitor.visit() as session:
            session["name"] = name
        one = {"name": name, "task": task, "id": session.id, "cookie": visitor.cookie, "user": None}
        self.own.append(one)
        self.notes["created"].append(session.id)


def main():
    """Work until the signal, then write the notes."""
    path = Path(sys.argv[1])
    settings = json.loads(path.read_text())
    notes = asyncio.run(Worker(settings).run())
    path.with_suffix(".notes").write_text(json.dumps(notes))


if __name__ == "__main__":
    main()
