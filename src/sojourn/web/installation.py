"""WebInstallation: cookies, tickets, transports and origin checks of one installation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import ceil
from typing import Any, Final, Literal, Protocol, TypeAlias

import msgspec

from sojourn._core.engine import Engine
from sojourn._core.working_copy import NO_COOKIE_CHANGE, CookieChange, WorkingCopy
from sojourn._crypto.tickets import KeyRing, Ticket, is_well_formed
from sojourn.errors import ConfigurationError, SojournError
from sojourn.live.connections import ConnectionRegistry
from sojourn.record import FOREVER
from sojourn.session import NullSession, Session
from sojourn.web.cache_headers import VARY_COOKIE, RawHeaders
from sojourn.web.clear_site_data import ClearSiteData
from sojourn.web.cookies import Cookie, CookieReader, CookieSettings
from sojourn.web.event_log import EventLog, escape
from sojourn.web.header_transport import HeaderTransport, ReadHeader
from sojourn.web.legacy_conversion import LegacyConversion
from sojourn.web.origin import SAFE_METHODS, Refusal, check_request
from sojourn.web.paths import Patterns
from sojourn.web.transport_security import ENCRYPTED, INSECURE, SECURE, TransportSecurity, classify

#: What happens to a request whose session cannot be loaded: 503, or it continues without a session.
OnStoreFailure = Literal["error", "anonymous"]

#: The application's response to an error of sojourn: called with the request (of the framework, or
#: the ASGI scope, or the WSGI environ) and the error. Returns a response, an awaitable of one
#: (ASGI), or None for the default.
OnError: TypeAlias = Callable[[Any, SojournError], Any]

logger: logging.Logger = logging.getLogger("sojourn")

#: Milliseconds in which a response follows the creation of its session, or its login.
_MAX_RESPONSE_DELAY: Final = 1_000

#: The end of the name of the cookie of ``set_written_cookie``.
_WRITTEN: Final = b"-written"

#: Seconds for which that cookie lives longer than a record in memory.
_WRITTEN_COOKIE_MARGIN: Final = 1

#: The number of Host headers whose transport is cached.
_MAX_HOSTS: Final = 256


#: The number of Cookie headers whose ticket is cached, and the longest of them in bytes: 0.6 MB.
_MAX_CACHED_HEADERS: Final = 1_024
_MAX_CACHED_BYTES: Final = 512


class CookieVariant:
    """The session cookie over one kind of transport: its name, how it is read and written.

    Attributes:
        tickets: of recent Cookie headers with a valid ticket. Parsing a header and unsealing its
            ticket is an eighth of the cost of a reading request. The store is called each time
            whether the session is alive. Python's keyed hash keeps the time of a look-up from
            revealing how much of a guess was right (security.md B-18).
    """

    __slots__ = ("cookie", "name", "reader", "tickets")

    def __init__(self, cookie: Cookie) -> None:
        self.cookie: Cookie = cookie
        self.reader: CookieReader = CookieReader(cookie.name)
        self.name: bytes = cookie.name.encode()
        self.tickets: dict[bytes, Ticket] = {}

    def remember(self, header: bytes, ticket: Ticket) -> None:
        """Cache the ticket of a Cookie header."""
        if len(header) > _MAX_CACHED_BYTES:
            return
        if len(self.tickets) >= _MAX_CACHED_HEADERS:
            self.tickets = {}
        self.tickets[header] = ticket


class WebConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The options of an installation that concern requests and sockets.

    Attributes:
        cookie: name and attributes.
        patterns: the paths that have a session.
        autoload: load the session before the handler runs, or when a route requests it.
        save_on_error: keep data changes of a failing request.
        allowed_origins: accepted for WebSocket handshakes besides the application's own origin.
        protect: check the origin of requests with unsafe methods, too.
        passive: paths whose requests do not count as activity; None for none.
        clear_site_data: the Clear-Site-Data header at logout.
        recheck_interval: seconds within which a socket checks that its session is alive.
        anonymous: paths whose requests continue without a session if the store fails; None for
            none.
        close_code: of WebSockets whose session has ended, or that require one: 4000 to 4999 are for
            applications (RFC 6455 7.4.2), and 401 is the HTTP status of this case.
        on_error: answers errors; None for the framework's handlers and the default.
        header_transport: how requests carry the ticket without a cookie; None if they do not.
        near_cache: seconds for which a process may serve a record from memory; None if it must not.
    """

    cookie: CookieSettings
    patterns: Patterns
    autoload: bool
    save_on_error: bool
    allowed_origins: frozenset[str]
    protect: bool = False
    passive: Patterns | None = None
    clear_site_data: ClearSiteData = ClearSiteData()
    recheck_interval: float = 30.0
    anonymous: Patterns | None = None
    close_code: int = 4401
    on_error: OnError | None = None
    header_transport: HeaderTransport | None = None
    near_cache: float | None = None


class WebInstallation:
    """The web layer of one installation, shared by all its requests and sockets.

    Args:
        engine: loads and commits.
        keyring: seals and unseals tickets.
        connections: the open connections of this process.
        config: options.

    Attributes:
        active: False after ``uninstall``; requests then pass without a session.
        header_transport: as in the options.
        added_headers: the names of the headers that follow Cache-Control in a response.
        vary: the Vary header of responses whose handler accessed the session.
        loads_all: every request's session is loaded, and no origin is checked; the default.
        session_class: of the sessions that handlers get. A framework with a session protocol sets
            its own subclass when it is installed; None for ``Session``.
        null_session_class: the same for requests that continue although the store failed.
        legacy: continues the sessions of other libraries; None if there are no readers.
        written_cookie_suffix: the end of the name of the cookie that says that the client has
            written its session, with "="; None without ``near_cache``.
        transports: of http and ws requests that were not proxied, by Host header; a cache.
        event_log: logs security events, and each outage of the store once.
    """

    __slots__ = (
        "_http",
        "_https",
        "_keyring",
        "active",
        "added_headers",
        "config",
        "connections",
        "engine",
        "event_log",
        "header_transport",
        "legacy",
        "loads_all",
        "null_session_class",
        "session_class",
        "transports",
        "vary",
        "written_cookie_suffix",
    )

    def __init__(
        self, engine: Engine, keyring: KeyRing, connections: ConnectionRegistry, config: WebConfig
    ) -> None:
        self.engine: Engine = engine
        self.connections: ConnectionRegistry = connections
        self.config: WebConfig = config
        self.active: bool = True
        self.loads_all: bool = config.patterns.everything and config.autoload and not config.protect
        self.event_log: EventLog = EventLog(engine.context.dispatcher)
        self.session_class: type[Session[Any]] | None = None
        self.null_session_class: type[NullSession] = NullSession
        self.legacy: LegacyConversion | None = None
        self._keyring = keyring
        header_transport = config.header_transport
        self.header_transport: HeaderTransport | None = header_transport
        self.vary: tuple[bytes, bytes] = (
            VARY_COOKIE if header_transport is None else (b"vary", header_transport.vary)
        )
        self.added_headers: frozenset[bytes] = frozenset(
            (b"set-cookie", b"clear-site-data")
            if header_transport is None
            else (b"set-cookie", b"clear-site-data", header_transport.response_header)
        )
        self.written_cookie_suffix: bytes | None = (
            None if config.near_cache is None else _WRITTEN + b"="
        )
        self.transports: dict[bytes | None, TransportSecurity] = {}
        self._https = CookieVariant(config.cookie.over_https())
        self._http = CookieVariant(config.cookie.over_http())

    def lower_case_attributes(self) -> None:
        """Spell the attributes of the cookie in lower case: ``path=/; httponly``.

        Browsers ignore the case. Programs that were written for a library with this spelling, and
        their tests, may compare it.
        """
        for variant in (self._https, self._http):
            variant.cookie = variant.cookie.with_lower_case_attributes()

    def classify(
        self,
        scheme: str,
        host: bytes | None,
        proxied: bool,  # noqa: FBT001 - positional: called for every request
    ) -> TransportSecurity:
        """Return whether the transport of a request is encrypted, local or insecure.

        A proxied request may name "127.0.0.1" and come from another machine.

        Args:
            scheme: http, https, ws or wss, in lower case.
            host: the Host header.
            proxied: the request has headers that only proxies add.
        """
        if proxied or scheme in ENCRYPTED:
            return classify(scheme, None, secure=self.config.cookie.secure)
        transport = self.transports.get(host)
        if transport is None:
            transport = classify(scheme, decode_header(host), secure=self.config.cookie.secure)
            if len(self.transports) >= _MAX_HOSTS:
                self.transports.clear()  # invented Host headers must not fill the memory
            self.transports[host] = transport
        return transport

    def cookie_variant(self, transport: TransportSecurity) -> CookieVariant:
        """Return the cookie for a transport."""
        return self._https if transport is SECURE else self._http

    def read_ticket(self, transport: TransportSecurity, cookies: bytes | None) -> Ticket | None:
        """Return the ticket of a request.

        A ticket that is forged, malformed, of another realm, or accompanied by a second one is
        rejected before the store is called (law A8).

        Args:
            transport: of the request; an insecure one carries no ticket.
            cookies: the Cookie header; None if there is none.
        """
        if cookies is None or transport is INSECURE:
            return None
        variant = self._https if transport is SECURE else self._http
        ticket = variant.tickets.get(cookies)
        if ticket is not None:
            return ticket
        values = variant.reader.find(cookies)
        if len(values) != 1:
            if values:
                self.engine.context.report_rejected(b"", "duplicate")
            return None
        ticket = self._keyring.unseal(values[0], variant.name)
        if ticket is None:
            self._report_not_unsealed(values[0])
        else:
            variant.remember(cookies, ticket)
        return ticket

    def read_header_ticket(
        self, transport: TransportSecurity, cookies: bytes | None, read: ReadHeader
    ) -> Ticket | None:
        """Return the ticket of a request that may carry it in a header or a subprotocol.

        As ``read_ticket``: a header and a cookie, or two headers, with different values count as
        none (law A8).

        Args:
            transport: of the request; an insecure one carries no ticket.
            cookies: the Cookie header; None if there is none.
            read: returns a request header.
        """
        headers = self.header_transport
        assert headers is not None  # noqa: S101 - the caller has checked it
        if not headers.cookies:
            cookies = None
        values = headers.find(read)
        if not values or transport is INSECURE:
            return self.read_ticket(transport, cookies)
        variant = self.cookie_variant(transport)
        if cookies is not None:
            values = tuple(dict.fromkeys((*values, *variant.reader.find(cookies))))
        texts = [value for value in values if value]
        if len(texts) != 1:
            if texts:
                self.engine.context.report_rejected(b"", "duplicate")
            return None
        ticket = self._keyring.unseal(texts[0], variant.name)
        if ticket is None:
            self._report_not_unsealed(texts[0])
        return ticket

    def _report_not_unsealed(self, text: str) -> None:
        # A ticket of another secret may be the operator's mistake; anything else is not.
        reason = "forged" if is_well_formed(text) else "malformed"
        self.engine.context.report_rejected(b"", reason)

    def has_header_only(
        self, transport: TransportSecurity, cookies: bytes | None, read: ReadHeader | None
    ) -> bool:
        """Return whether a request carries the header and no cookie of this installation.

        No page of another site can have a browser send it: for a header of its own the browser
        first sends a preflight request.

        Args:
            transport: of the request.
            cookies: the Cookie header; None if there is none.
            read: returns a request header; None if there is no header transport.
        """
        headers = self.header_transport
        if headers is None or read is None or not headers.find(read):
            return False
        return not headers.cookies or not self.has_cookie(transport, cookies)

    def handshake_allowed(
        self,
        transport: TransportSecurity,
        cookies: bytes | None,
        origin: bytes | None,
        read: ReadHeader,
    ) -> bool:
        """Return whether a handshake is allowed although its Origin is not.

        It has no cookie of this installation, and either no Origin, so that it is not a browser's,
        or a valid ticket in a header or subprotocol, which a page of another site does not know.
        Without a valid ticket the Origin decides: browsers send no preflight request here.

        Args:
            transport: of the request.
            cookies: the Cookie header; None if there is none.
            origin: the Origin header; None if there is none.
            read: returns a request header.
        """
        if not self.has_header_only(transport, cookies, read):
            return False
        return origin is None or self.read_header_ticket(transport, cookies, read) is not None

    def has_ticket(
        self, transport: TransportSecurity, cookies: bytes | None, read: ReadHeader | None = None
    ) -> bool:
        """Return whether a request carries a ticket, valid or not.

        Args:
            transport: of the request.
            cookies: the Cookie header; None if there is none.
            read: returns a request header; None for cookies only.
        """
        headers = self.header_transport
        if headers is not None and read is not None:
            if any(headers.find(read)):
                return True
            if not headers.cookies:
                return False
        return self.has_cookie(transport, cookies)

    def seal(self, copy: WorkingCopy) -> str:
        """Return the ticket of a session as text, for a cookie that a framework writes itself."""
        return self._keyring.seal(copy.ticket(), name=self._https.name)

    def unseal(self, text: str) -> Ticket | None:
        """Return the ticket in a text of ``seal``; None for any other text."""
        return self._keyring.unseal(text, self._https.name)

    def has_cookie(self, transport: TransportSecurity, cookies: bytes | None) -> bool:
        """Return whether a Cookie header has a session cookie, valid or not; also an old one.

        Args:
            transport: of the request.
            cookies: the Cookie header; None if there is none.
        """
        if cookies is None:
            return False
        if self.legacy is not None and self.legacy.has_cookie(cookies):
            return True
        return bool(self.cookie_variant(transport).reader.find(cookies))

    def check_nested(self, outer: WebInstallation) -> None:
        """Check that a nested installation does not use the cookie of an outer one.

        Args:
            outer: the installation whose middleware the request has passed before.

        Raises:
            ConfigurationError: both use one cookie name, so each would replace the other's cookie.
        """
        own = {self._https.name, self._http.name}
        for variant in (
            outer.cookie_variant(SECURE),
            outer.cookie_variant(TransportSecurity.LOCAL),
        ):
            if variant.name in own:
                raise ConfigurationError(
                    "two installations of sojourn serve this request, one inside the other, and "
                    f"both use the cookie {variant.name.decode()}. A mounted application has the "
                    "session of the outer one: remove the inner sojourn.install. For a session of "
                    "its own, give the inner one another realm=, such as realm='admin', or cookie="
                )

    def check_origin(
        self,
        method: str,
        scheme: str,
        *,
        site: bytes | None,
        origin: bytes | None,
        host: bytes | None,
        cookies: bytes | None,
        proxied: bool,
        read: ReadHeader | None = None,
    ) -> Refusal | None:
        """Return why a request with an unsafe method must be refused; None if it may pass.

        Always None without ``protect``. See ``origin.check_request``; the store is not called.
        Requests that carry the ticket in a header, and no cookie, pass (``has_header_only``).
        """
        if not self.config.protect or method in SAFE_METHODS:
            return None
        transport = self.classify(scheme, host, proxied)
        if self.has_header_only(transport, cookies, read):
            return None
        refusal = check_request(
            method,
            scheme,
            site=decode_header(site),
            origin=decode_header(origin),
            host=decode_header(host),
            allowed=self.config.allowed_origins,
            local=transport is TransportSecurity.LOCAL,
            ticket=self.read_ticket(transport, cookies) is not None
            or (self.legacy is not None and self.legacy.has_cookie(cookies)),
        )
        if refusal is not None:
            self._log_refusal(refusal, method, decode_header(origin))
        return refusal

    def _log_refusal(self, refusal: Refusal, method: str, origin: str | None) -> None:
        """Log a refused request, once a minute for each origin."""
        count = self.event_log.refused_origins.admit(f"{refusal.name} {origin}")
        if count:
            logger.warning(
                "answered 403 to %.20r from origin %.200r, because %s. %s Requests since the last "
                "line: %d",
                method,
                origin,
                refusal.value,
                refusal.remedy,
                count,
                extra={
                    "sojourn_event": "OriginRefused",
                    "sojourn_origin": None if origin is None else escape(origin),
                    "sojourn_reason": refusal.name.lower(),
                    "sojourn_count": count,
                },
            )

    def log_refused_handshake(self, origin: bytes | None) -> None:
        """Log a refused WebSocket handshake, once a minute for each origin."""
        text = decode_header(origin)
        count = self.event_log.refused_origins.admit(f"WebSocket {text}")
        if count:
            logger.warning(
                "refused a WebSocket handshake from origin %.200r; if it is yours, add it to "
                "allowed_origins. Handshakes since the last line: %d",
                text,
                count,
                extra={
                    "sojourn_event": "OriginRefused",
                    "sojourn_origin": None if text is None else escape(text),
                    "sojourn_reason": "websocket",
                    "sojourn_count": count,
                },
            )

    def clear_site_data_header(
        self, copy: WorkingCopy, transport: TransportSecurity
    ) -> bytes | None:
        """Return the Clear-Site-Data header of a response; call it before ``set_cookie``."""
        if not copy.destroyed_by_visitor:
            return None
        copy.destroyed_by_visitor = False
        return self.config.clear_site_data.header(
            transport, new_cookie=copy.cookie_change is CookieChange.SEND
        )

    def set_cookie(self, copy: WorkingCopy, transport: TransportSecurity) -> bytes | None:
        """Return the Set-Cookie header of a response; None for none.

        Call it once, when the headers are sent: the change counts as sent.
        """
        variant = self.cookie_variant(transport)
        sealed = self._changed_ticket(copy, variant)
        if not sealed:
            return None if sealed is None else variant.cookie.delete()
        now = self.engine.clock()
        return variant.cookie.set(sealed, self._max_age(copy, now), now=now // 1000)

    def set_written_cookie(self, copy: WorkingCopy, transport: TransportSecurity) -> bytes | None:
        """Return the Set-Cookie header that marks that the client has written its session (law N3).

        Its next requests are then loaded from the store, until no process can have the older record
        in memory. The cookie is not a secret: a forged one only costs a load.

        Returns:
            None without ``near_cache``, or if nothing was written.
        """
        near_cache = self.config.near_cache
        if near_cache is None or not copy.written:
            return None
        copy.written = False
        cookie = self.cookie_variant(transport).cookie
        written_cookie = msgspec.structs.replace(cookie, name=cookie.name + _WRITTEN.decode())
        return written_cookie.set("1", ceil(near_cache) + _WRITTEN_COOKIE_MARGIN)

    def ticket_header(self, copy: WorkingCopy, transport: TransportSecurity) -> bytes | None:
        """Return the value of the response header for a client that does not use the cookie.

        Call it once, as ``set_cookie``.

        Returns:
            The new ticket; empty if the session has ended; None for no header.
        """
        sealed = self._changed_ticket(copy, self.cookie_variant(transport))
        return None if sealed is None else sealed.encode()

    def _changed_ticket(self, copy: WorkingCopy, variant: CookieVariant) -> str | None:
        """Return the sealed ticket to send, empty if it is to be deleted, None for no change."""
        change = copy.cookie_change
        if change is NO_COOKIE_CHANGE:
            return None
        copy.cookie_change = NO_COOKIE_CHANGE
        if change is CookieChange.CLEAR:
            return ""
        if self.engine.clock() >= copy.send_cookie_until:
            return None  # the previous ticket stays valid until the present one was seen
        return self._keyring.seal(copy.ticket(), name=variant.name)

    def retire_cookie(self, copy: WorkingCopy, set_cookie: bytes | None) -> RawHeaders:
        """Return the header that deletes the cookie of another library, once; none to keep it.

        It is kept if the session's own cookie is not sent, because a later response brings it.

        Args:
            copy: of the request.
            set_cookie: the header that was made for the session's own cookie; None for none.
        """
        retired, copy.retired_cookie = copy.retired_cookie, b""
        if not retired or (set_cookie is None and copy.record is not None):
            return []
        if set_cookie is not None and set_cookie.startswith(retired.partition(b"=")[0] + b"="):
            return []  # the session's own cookie replaces it
        return [(b"set-cookie", retired)]

    def _max_age(self, copy: WorkingCopy, now: int) -> int | None:
        """Return the seconds that a persistent cookie lives: until the absolute deadline.

        The cookie of a session that has just been created, or logged in, lives exactly as long as
        the session's whole lifetime.
        """
        record = copy.record
        if record is None or not (self.config.cookie.persistent or record.persistent):
            return None
        started = max(record.created_at, record.authenticated_at)
        if now - started < _MAX_RESPONSE_DELAY:
            now = started
        remaining = min(record.absolute_at, FOREVER) - now
        return max(1, remaining // 1000)


class HasWebInstallation(Protocol):
    """An object with a web layer: ``Sessions``, as the middleware classes need it."""

    @property
    def web(self) -> WebInstallation:
        """The web layer of the installation."""
        ...


def decode_header(value: bytes | None) -> str | None:
    """Return a header's value as text (Latin-1, which maps every byte)."""
    return None if value is None else value.decode("latin-1")
