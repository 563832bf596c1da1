"""Listener: one thread that hears announcements for a process, over as few connections as will do.

What lives here: who is asked for which channel, and what becomes of it when a server is lost or a
slot moves. What must not: bytes and channels (``announcements.py``), which servers there are
(``places.py``), and what a message means (``live/``).

At one of the places, its home, a listener hears what everybody is told. In a cluster the changes of
a session are heard at the nodes of its slot, and the home says which these are: asked for a channel
that is not its own it answers MOVED. So nothing has to be known of slots, and what is believed of
them cannot be out of date. There is a connection to a node only while something is heard there.

A message is a hint to look, never the truth (law S17). So whoever listens is told of a gap once
what was lost is heard again: after a lost connection, a fail-over, or a slot that moved.
"""

from __future__ import annotations

import contextlib
import logging
import math
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from redis import exceptions
from redis.crc import key_slot

from sojourn.store import MessageHandler
from sojourn.stores.redis.announcements import channel_of, decode
from sojourn.stores.redis.ears import BREATH, Ear
from sojourn.stores.redis.keys import Keys
from sojourn.stores.redis.places import Address, Places
from sojourn.stores.redis.pools import FAILURES, is_refusal
from sojourn.stores.redis.replies import Refusal

logger: logging.Logger = logging.getLogger("sojourn")

#: Seconds between two tries: the first, and the longest.
_FIRST_PAUSE: Final = 0.05
_LAST_PAUSE: Final = 1.0

#: What is raised when no connection can be made, or the server will have none.
_FAILED: Final = (*FAILURES, exceptions.ResponseError, Refusal)

#: Seconds between two gaps: each of a thousand channels that move would be one.
_BETWEEN_GAPS: Final = 1.0


class Listener:
    """Listens for a process; see ``Subscription``.

    Args:
        places: where.
        keys: what channels are called.
        heard, gap: see ``SupportsBroadcast.listen``.
    """

    def __init__(
        self, places: Places, keys: Keys, heard: MessageHandler, gap: Callable[[], object]
    ) -> None:
        self._places = places
        self._keys = keys
        self._heard = heard
        self._gap = gap
        self._lock = threading.Lock()
        self._watched: dict[str, int] = {}
        self._changed: set[str] = set()
        self._ending = threading.Event()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        # What follows is the thread's own.
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._ears: dict[Address, Ear] = {}
        self._home: Ear | None = None
        self._sharded = False
        self._at: dict[str, Ear] = {}  # which ear was asked for a channel
        self._lost = {keys.events}  # what was not heard for some time, and is not heard yet
        self._pause = _FIRST_PAUSE
        self._failed_at = self._again_at = self._told_at = -math.inf
        self._gap_at = math.inf
        self._complaint = ""  # the last, while it lasts
        self._thread = threading.Thread(target=self._run, name="sojourn-listener", daemon=True)
        self._thread.start()

    # From other threads

    def watch(self, session_id: bytes) -> None:
        """Hear of changes of a session, too."""
        channel = channel_of("changed", session_id, self._keys)
        with self._lock:
            self._watched[channel] = self._watched.get(channel, 0) + 1
            if self._watched[channel] > 1:
                return
            self._changed.add(channel)
        self._wake()

    def unwatch(self, session_id: bytes) -> None:
        """Hear of its changes no more."""
        channel = channel_of("changed", session_id, self._keys)
        with self._lock:
            self._watched[channel] -= 1
            if self._watched[channel] > 0:
                return
            del self._watched[channel]
            self._changed.add(channel)
        self._wake()

    def close(self) -> None:
        """End the thread and its connections."""
        self._ending.set()
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(BREATH)
            if not self._thread.is_alive():  # after a fork there is none that could have done it
                self._end()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # it will wake already, or has ended
            self._waker.send(b"!")

    # The thread

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                try:
                    self._settle()
                    self._listen()
                    self._check()
                except Exception:
                    logger.exception("the listener for announcements failed; it begins again")
                    self._begin_again()
        finally:
            self._end()

    def _begin_again(self) -> None:
        for ear in list(self._ears.values()):
            self._drop(ear)
        self._wait()

    def _end(self) -> None:
        self._selector.close()  # first: after a fork the parent's goes on with what it waits for
        while self._ears:
            self._places.part(self._ears.popitem()[1].connection)
        self._woken.close()
        self._waker.close()
        self._places.close()

    def _settle(self) -> None:
        """Ask for what is wanted and not asked for, and leave what is wanted no more."""
        now = time.monotonic()
        if self._home is None:
            if now < self._again_at:
                return
            self._go_home()
            if self._home is None:
                return
        with self._lock:
            changed, self._changed = self._changed, set()
            wanted = {channel for channel in changed if channel in self._watched}
        for channel in changed - wanted:
            self._lost.discard(channel)
            ear = self._at.pop(channel, None)
            if ear is not None:
                with self._losing(ear):
                    ear.leave("SUNSUBSCRIBE" if self._sharded else "UNSUBSCRIBE", channel)
        if now >= self._again_at:
            wanted |= self._lost
        self._ask(self._home, [channel for channel in wanted if channel not in self._at])

    def _go_home(self) -> None:
        """Find a place to hear what everybody is told."""
        address: Address | None = None
        try:
            address = self._places.any()
            home = self._ears.get(address)
            if home is None:
                home = self._reach(address)
                self._sharded = self._places.is_sharded(home.connection)
        except _FAILED as error:
            if address in self._ears:
                self._drop(self._ears[address])
            self._failed(error)
        else:
            self._home = home

    def _reach(self, address: Address) -> Ear:
        ear = Ear(self._places.connect(address), address)
        self._ears[address] = ear
        self._selector.register(ear, selectors.EVENT_READ, ear)
        return ear

    def _ask(self, ear: Ear, channels: Iterable[str]) -> None:
        """Ask for channels at a place."""
        everybody: list[str] = []
        own: list[str] = []
        for channel in channels:
            self._at[channel] = ear
            (own if self._sharded and channel != self._keys.events else everybody).append(channel)
        with self._losing(ear):
            ear.ask("SUBSCRIBE", everybody)
            ear.ask("SSUBSCRIBE", own)

    def _listen(self) -> None:
        """Wait until something is to be done or heard, and hear it."""
        times = [self._gap_at, *(ear.due for ear in self._ears.values())]
        if self._home is None or not self._lost <= self._at.keys():
            times.append(self._again_at)
        for key, _ in self._selector.select(max(min(times) - time.monotonic(), 0)):
            ear: Ear | None = key.data
            if ear is None:
                with contextlib.suppress(OSError):  # whoever woke it needs it but once
                    while self._woken.recv(4096):
                        pass
                continue
            with self._losing(ear):
                for reply in ear.replies():
                    if self._ending.is_set():
                        return
                    self._take(ear, reply)

    def _check(self) -> None:
        """Tell of a gap when it is time, and look after those who are silent."""
        now = time.monotonic()
        if now >= self._gap_at:
            self._gap_at, self._told_at = math.inf, now
            self._gap()
        for ear in list(self._ears.values()):
            if now < ear.due:
                continue
            if ear is not self._home and not ear.asked and not ear.standing:
                self._drop(ear)
                continue
            with self._losing(ear):
                ear.check()

    # What servers say

    def _take(self, ear: Ear, reply: Any) -> None:
        if isinstance(reply, exceptions.MovedError):
            self._follow(ear, reply)
        elif isinstance(reply, Exception):
            self._refused(ear, reply)
        elif isinstance(reply, list):
            kind, channel = reply[0], reply[1].decode()
            if kind in (b"message", b"smessage"):
                message = decode(reply[2])
                if message is not None:
                    self._heard(message)
            elif kind in (b"subscribe", b"ssubscribe"):
                self._stands(ear, channel)
            elif kind == b"sunsubscribe" and channel in ear.standing:
                # The server's own doing: its slot is elsewhere now, and the home will know.
                self._forget(ear, [channel])
                self._again_at = time.monotonic()

    def _stands(self, ear: Ear, channel: str) -> None:
        if channel not in ear.asked:
            return  # it was left meanwhile
        ear.asked.discard(channel)
        ear.standing.add(channel)
        if channel == self._keys.events:
            self._complaint = ""
        if channel in self._lost:
            self._lost.discard(channel)
            self._gap_at = min(self._gap_at, max(time.monotonic(), self._told_at + _BETWEEN_GAPS))

    def _follow(self, ear: Ear, moved: exceptions.MovedError) -> None:
        """Ask for the channels of a slot where it is."""
        slot = moved.slot_id
        channels = [channel for channel in ear.asked if key_slot(channel.encode()) == slot]
        if not channels:
            return  # they were left meanwhile
        address = self._places.named(moved, ear.address)
        if ear is not self._home or address == ear.address:  # they do not agree yet
            self._forget(ear, channels)
            self._wait()
        else:
            ear.asked.difference_update(channels)
            try:
                other = self._ears.get(address) or self._reach(address)
            except _FAILED as error:
                self._forget(ear, channels)
                self._failed(error)
                return
            self._ask(other, channels)

    def _refused(self, ear: Ear, error: Exception) -> None:
        """Try again what was asked for; which of it was refused, the answer does not say."""
        everybody = self._keys.events in ear.asked
        self._forget(ear, list(ear.asked))
        if everybody:
            self._drop(ear)
        self._failed(error)

    # What is lost

    @contextlib.contextmanager
    def _losing(self, ear: Ear) -> Iterator[None]:
        """Let go of an ear whose connection fails inside the block."""
        try:
            yield
        except FAILURES as error:
            if ear.is_open:
                self._drop(ear)
                self._failed(error)

    def _drop(self, ear: Ear) -> None:
        """Close an ear; what it heard is lost."""
        ear.is_open = False
        self._selector.unregister(ear)
        del self._ears[ear.address]
        if ear is self._home:
            self._home = None
        self._forget(ear, [*ear.asked, *ear.standing])
        self._places.part(ear.connection)

    def _forget(self, ear: Ear, channels: Iterable[str]) -> None:
        for channel in channels:
            ear.asked.discard(channel)
            ear.standing.discard(channel)
            if self._at.get(channel) is ear:
                del self._at[channel]
                self._lost.add(channel)

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, Refusal) or (isinstance(error, Exception) and is_refusal(error)):
            text = f"the server refuses announcements: {error}"
        else:
            text = f"announcements are not heard ({error}); connecting again"
        # Each try fails in the same way while a server is down: that is said once.
        logger.log(logging.DEBUG if text == self._complaint else logging.WARNING, "%s", text)
        self._complaint = text
        self._wait()

    def _wait(self) -> None:
        """Let time pass before the next try, more if the last one was not long ago."""
        now = time.monotonic()
        rested = now - self._failed_at > BREATH
        self._pause = _FIRST_PAUSE if rested else min(2 * self._pause, _LAST_PAUSE)
        self._failed_at, self._again_at = now, now + self._pause
