"""Gate: from a request's cookie to its session, and from a session to the cookie it needs.

What lives here: what ASGI, WSGI and WebSocket have in common. What must not: their message formats.
A ticket that is forged, malformed, of another realm or planted beside a second one never reaches
the store (law A8); plain http to elsewhere never reaches the cookie (NIST SP 800-63B-4 SESS-13).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from sojourn._core.engine import Engine
from sojourn._core.null_session import NullSession
from sojourn._core.session import Session
from sojourn._core.working_copy import NO_CHANGE, Client, CookieChange
from sojourn._crypto.tickets import KeyRing, Ticket
from sojourn.errors import StoreUnavailable
from sojourn.live.connections import Registry
from sojourn.record import FOREVER
from sojourn.web.clear_site_data import ClearSiteData
from sojourn.web.cookies import Cookie, CookieReader, CookieSettings
from sojourn.web.origin import SAFE_METHODS, Refusal, judge
from sojourn.web.paths import Patterns
from sojourn.web.transport import ENCRYPTED, INSECURE, SECURE, Transport, classify, refusal

#: What becomes of a request whose session cannot be loaded: 503, or it goes on without.
OnStoreFailure = Literal["error", "anonymous"]

logger: logging.Logger = logging.getLogger("sojourn")

#: How many Host headers are remembered with their transport.
_MAX_HOSTS: Final = 256


class Side:
    """The cookie of one kind of transport: how it is found and how it is written."""

    __slots__ = ("cookie", "name", "reader")

    def __init__(self, cookie: Cookie) -> None:
        self.cookie: Cookie = cookie
        self.reader: CookieReader = CookieReader(cookie.name)
        self.name: bytes = cookie.name.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What an installation asks of its requests and sockets.

    Attributes:
        cookie: its settings.
        patterns: which paths have a session.
        autoload: whether it is loaded before the handler runs, or when a route asks.
        save_on_error: whether data changes of a failing request are kept.
        allowed_origins: from where WebSocket handshakes may come besides our own pages.
        protect: whether requests that change something must come from there, too.
        passive: paths whose requests are no activity of the visitor; None for none.
        clear_site_data: what a browser is told to throw away at logout.
        recheck_interval: seconds within which a socket looks whether its session lives.
        anonymous: paths whose requests go on without a session if the store fails; None for none.
    """

    cookie: CookieSettings
    patterns: Patterns
    autoload: bool
    save_on_error: bool
    allowed_origins: frozenset[str]
    protect: bool = False
    passive: Patterns | None = None
    clear_site_data: ClearSiteData = ClearSiteData()  # noqa: RUF009 - it never changes
    recheck_interval: float = 30.0
    anonymous: Patterns | None = None


class Gate:
    """Admits requests to their sessions.

    Args:
        engine: loads and commits.
        keyring: seals and unseals tickets.
        live: what sessions have open.
        rules: of the installation.

    Attributes:
        active: False after ``uninstall``; then requests pass as if we were not there.
    """

    __slots__ = (
        "_hosts",
        "_keyring",
        "_plain",
        "_reads",
        "_secure",
        "active",
        "engine",
        "live",
        "rules",
    )

    def __init__(self, engine: Engine, keyring: KeyRing, live: Registry, rules: Rules) -> None:
        self.engine: Engine = engine
        self.live: Registry = live
        self.rules: Rules = rules
        self.active: bool = True
        self._keyring = keyring
        self._hosts: dict[bytes | None, Transport] = {}
        self._reads = -1  # how many records had been read when the store was last seen failing
        self._secure = Side(rules.cookie.over_https())
        self._plain = Side(rules.cookie.over_http())

    def transport(
        self,
        scheme: str,
        host: bytes | None,
        proxied: bool,  # noqa: FBT001 - by position, as every request comes this way
    ) -> Transport:
        """Tell how far what we send can be read by others.

        A request that a proxy passed on may say "127.0.0.1" and yet come from far away.

        Args:
            scheme: http, https, ws or wss, in lower case.
            host: the Host header.
            proxied: there are headers that only a proxy adds.
        """
        if proxied or scheme in ENCRYPTED:
            return classify(scheme, None, secure=self.rules.cookie.secure)
        known = self._hosts.get(host)
        if known is None:
            known = classify(scheme, _text(host), secure=self.rules.cookie.secure)
            if len(self._hosts) >= _MAX_HOSTS:
                self._hosts.clear()  # whoever sends made-up hosts gets no memory of ours
            self._hosts[host] = known
        return known

    def side(self, transport: Transport) -> Side:
        """Return the cookie for a transport."""
        return self._secure if transport is SECURE else self._plain

    async def admit(
        self, transport: Transport, host: bytes | None, cookies: bytes | None, client: Client
    ) -> Session[Any]:
        """Return the session of a request, an empty one if its cookie opens none.

        Args:
            transport: as ``transport`` told.
            host: for the error where the transport is refused.
            cookies: the Cookie header, None if there is none.
            client: who asks.

        Raises:
            StoreUnavailable: the store failed; a request without our cookie never waits for it.
        """
        ticket = self.ticket(transport, cookies)
        if ticket is None:
            return self.empty(transport, host, client)
        return await self.engine.load(ticket, client)

    def empty(self, transport: Transport, host: bytes | None, client: Client) -> Session[Any]:
        """Return the session of a request without a ticket."""
        session: Session[Any] = Session(self.engine, None, b"", client)
        if transport is INSECURE:
            session._refusal = refusal(_text(host))
        return session

    def ticket(self, transport: Transport, cookies: bytes | None) -> Ticket | None:
        """Return the ticket of a request, None if it brings none of ours, or more than one."""
        if cookies is None or transport is INSECURE:
            return None
        # As `side` says, without a call for each request.
        side = self._secure if transport is SECURE else self._plain
        values = side.reader.find(cookies)
        if len(values) != 1:
            if values:
                self.engine.journal.rejected(b"", "duplicate")
            return None
        ticket = self._keyring.unseal(values[0], side.name)
        if ticket is None:
            self.engine.journal.rejected(b"", "forged")
        return ticket

    def strand(
        self,
        failure: StoreUnavailable,
        path: str,
        client: Client,
        *,
        policy: OnStoreFailure | None = None,
    ) -> NullSession:
        """Return a session for a request whose own could not be loaded.

        If the request must not go on, it is refused already (``_denied``); raise the failure.

        Args:
            failure: of the store.
            path: of the request.
            client: who asks.
            policy: what the route asks for; None for the installation's.
        """
        session = NullSession(self.engine, client, failure)
        anonymous = self.rules.anonymous
        allowed = anonymous is not None and anonymous.match(path)
        if policy == "error" or (policy is None and not allowed):
            session._denied = True
            return session
        reads = self.engine.journal.counters.reads
        if reads != self._reads:  # it has answered since: this is another outage
            self._reads = reads
            logger.warning(
                "the session store failed, and requests go on without their session until it "
                "answers: %s",
                failure,
            )
        return session

    def judge(
        self,
        method: str,
        scheme: str,
        *,
        site: bytes | None,
        origin: bytes | None,
        host: bytes | None,
        cookies: bytes | None,
        proxied: bool,
    ) -> Refusal | None:
        """Tell why a request that changes something is refused, None if it may pass.

        Only with ``protect``; see ``crossorigin.judge``. It needs no store.
        """
        if not self.rules.protect or method in SAFE_METHODS:
            return None
        transport = self.transport(scheme, host, proxied=proxied)
        return judge(
            method,
            scheme,
            site=_text(site),
            origin=_text(origin),
            host=_text(host),
            allowed=self.rules.allowed_origins,
            local=transport is Transport.LOCAL,
            ticket=self.ticket(transport, cookies) is not None,
        )

    def arrived(self, session: Session[Any], path: str) -> None:
        """Note what the path says of a request: whether it is an activity of the visitor."""
        passive = self.rules.passive
        if passive is not None and session._record is not None and passive.match(path):
            session._seen_at = session._record.seen_at

    def farewell(self, session: Session[Any], transport: Transport) -> bytes | None:
        """Return the Clear-Site-Data header of a response; call it before ``set_cookie``."""
        if not session._departed:
            return None
        session._departed = False
        return self.rules.clear_site_data.header(
            transport, new_cookie=session._cookie is CookieChange.SEND
        )

    def set_cookie(self, session: Session[Any], transport: Transport) -> bytes | None:
        """Return the value of the Set-Cookie header that a response needs, None for none.

        Call it once, when the headers leave: it counts as sent.
        """
        change = session._cookie
        if change is NO_CHANGE:
            return None
        session._cookie = NO_CHANGE
        side = self.side(transport)
        if change is CookieChange.CLEAR:
            return side.cookie.delete()
        ticket = Ticket(session._raw_id(), session._verifier)
        return side.cookie.set(self._keyring.seal(ticket, name=side.name), self._max_age(session))

    def _max_age(self, session: Session[Any]) -> int | None:
        """Return the seconds that a persistent cookie lives: the session's longest life."""
        record = session._record
        if record is None or not (self.rules.cookie.persistent or record.persistent):
            return None
        remaining = min(record.absolute_at, FOREVER) - self.engine.clock()
        return max(1, remaining // 1000)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


class Guarded(Protocol):
    """Whoever has a gate: ``Sessions``, seen from below."""

    @property
    def gate(self) -> Gate:
        """The gate of the installation."""
        ...
