"""A process whose wall clock is wrong; executes the commands that it reads, one JSON line each.

Arguments: the URL of the store, and the milliseconds by which the clock is ahead.
"""

import json
import sys
import time
from contextlib import ExitStack

SECRET = "machines-with-other-clocks-5Tq8Wn2Zb"


class Worker:
    """The commands of one process."""

    def __init__(self, sessions):
        self.sessions = sessions
        self.open_blocks = ExitStack()

    def login(self, user):
        """Return the cookie; None if the login was refused."""
        self.begin_login(user)
        return self.end_login()

    def begin_login(self, user):
        self.visit = self.open_blocks.enter_context(self.sessions.open())
        self.visit.session.login(user)

    def end_login(self):
        self.open_blocks.close()
        cookies = [
            value.partition(";")[0]
            for name, value in self.visit.response_headers()
            if name.lower() == "set-cookie"
        ]
        return cookies[0] if cookies else None

    def who(self, cookie):
        with self.sessions.open(cookies=cookie) as visit:
            return visit.session.user

    def revoke_all(self):
        self.sessions.revoke_all()

    def revoke_user(self, user):
        return self.sessions.revoke_user(user)

    def enter(self, cookie, wait):
        from sojourn.errors import ExclusiveTimeout

        visit = self.open_blocks.enter_context(self.sessions.open(cookies=cookie))
        try:
            self.open_blocks.enter_context(visit.session.exclusive(wait=wait))
        except ExclusiveTimeout:
            self.open_blocks.close()
            return "timeout"
        return "inside"

    def leave(self):
        self.open_blocks.close()


def main(url, skew):
    real_time, real_time_ns = time.time, time.time_ns
    time.time = lambda: real_time() + int(skew) / 1_000
    time.time_ns = lambda: real_time_ns() + int(skew) * 1_000_000
    from sojourn.sessions import Sessions  # after the change of the clock

    sessions = Sessions(store=url, secret=SECRET)
    worker = Worker(sessions)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(getattr(worker, name)(*arguments)) + "\n")
        sys.stdout.flush()
    sessions.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
