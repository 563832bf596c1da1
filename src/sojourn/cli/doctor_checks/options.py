"""Checks of an application's options: cookie, timeouts, store; and of its public address."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from http.client import HTTPException
from typing import Final

import msgspec

from sojourn._core.policy import Limits
from sojourn.cli.doctor_checks.context import CheckContext
from sojourn.cli.doctor_checks.findings import Finding, error, info, warning
from sojourn.config import Config
from sojourn.store import SupportsBroadcast
from sojourn.stores.memory import MemoryStore

REFUSED: Final = error(
    "configuration-refused",
    "options that sojourn accepts when the application is built",
    "correct the option that the text names; docs/options.md describes each",
)
INSECURE: Final = error(
    "cookie-insecure",
    "a Secure cookie: over http the ticket can be read on the way, and the session hijacked",
    "serve https and remove secure=False; if a proxy ends TLS, pass secure=True",
)
DOMAIN: Final = warning(
    "cookie-domain",
    "a cookie for one host: every subdomain receives a cookie with domain=, and can replace it",
    "remove domain=, so that the cookie is __Host-sid; share a login between hosts with a "
    "single sign-on instead",
)
NAME: Final = warning(
    "cookie-name",
    "a name with the prefix __Host- (or __Secure- with path or domain), which other hosts of the "
    "domain cannot set",
    "remove cookie=, or give the name a prefix (Django: SESSION_COOKIE_NAME); visitors log in "
    "once more",
)
SAME_SITE: Final = warning(
    "cookie-samesite",
    "SameSite=Lax or Strict, with which browsers send no cookie with forms of other sites",
    "remove same_site='none' unless pages of other sites embed this one; then leave protect= on",
)
UNPROTECTED: Final = error(
    "cookie-unprotected",
    "protect=True with SameSite=None: forms of other sites carry the cookie (CSRF)",
    "remove protect=False, or remove same_site='none'",
)
UNLIMITED: Final = warning(
    "timeout-unlimited",
    "an absolute timeout: without one a stolen session works as long as it is used",
    "give absolute_timeout=, such as '30 days'",
)
LONG: Final = warning(
    "timeout-long",
    "an idle timeout of at most 90 days: forgotten sessions fill the store and can be stolen",
    "give a shorter timeout=; for visitors who want to stay logged in use login(remember=True)",
)
MEMORY: Final = warning(
    "store-memory",
    "a store that outlives the process and that all processes share",
    "use sqlite:/// on one machine, Valkey or PostgreSQL on several; memory:// is for tests",
)
SILENT: Final = info(
    "store-without-broadcast",
    "a store with broadcast, so that a revocation closes open connections within a second",
    "use sqlite:///, Valkey, Redis or PostgreSQL if recheck_interval is too slow",
)
SCHEME: Final = error(
    "proxy-scheme",
    "requests with the scheme https: the proxy forwards the scheme, and the server trusts it",
    "send X-Forwarded-Proto from the proxy and have the server trust it (uvicorn: "
    "--proxy-headers --forwarded-allow-ips=<address of the proxy>; Flask, Django: their proxy "
    "settings), or pass secure=True",
)
PUBLIC_HTTP: Final = error(
    "proxy-http",
    "a public address that begins with https://",
    "serve https, and redirect http to it",
)
NO_ANSWER: Final = error(
    "proxy-unreachable",
    "an answer of the application at its public address",
    "correct --url, or start the application and the proxy",
)
PUBLIC_UNKNOWN: Final = info(
    "proxy-unknown",
    "the public address of the application, to check the scheme that requests have behind a proxy",
    "give --url with the address of a page that uses the session, such as "
    "--url https://shop.example/account",
)

PROBLEMS: Final = (
    *(REFUSED, INSECURE, DOMAIN, NAME, SAME_SITE, UNPROTECTED, UNLIMITED, LONG, MEMORY, SILENT),
    *(SCHEME, PUBLIC_HTTP, NO_ANSWER, PUBLIC_UNKNOWN),
)

#: Milliseconds.
_LONGEST_IDLE: Final = 90 * 24 * 60 * 60 * 1000

_PREFIXES: Final = ("__host-", "__secure-", "__http-")

#: Seconds.
_URL_TIMEOUT: Final = 10


def check_cookie(context: CheckContext) -> Iterator[Finding]:
    """Examine the options of the cookie."""
    if context.config is None:
        return
    web = context.config.web
    settings, cookie = web.cookie, web.cookie.over_https()
    if settings.secure is False:
        yield INSECURE.finding("secure=False")
    elif not cookie.name.lower().startswith(_PREFIXES):
        yield NAME.finding(f"the cookie is named {cookie.name!r}")
    if settings.domain is not None:
        yield DOMAIN.finding(f"domain={settings.domain!r}: the cookie is named {cookie.name!r}")
    if settings.same_site == "none":
        yield SAME_SITE.finding("same_site='none'")
        if not web.protect:
            yield UNPROTECTED.finding("same_site='none' and protect=False")


def check_timeouts(context: CheckContext) -> Iterator[Finding]:
    """Examine the limits of sessions."""
    if context.config is None:
        return
    policy = context.config.core.policy
    limits: dict[str, Limits] = {
        "timeout": policy.authenticated,
        "anonymous_timeout": policy.anonymous,
    }
    if policy.authenticated.absolute_timeout is None:
        yield UNLIMITED.finding("absolute_timeout=None")
    long = [
        f"{name} is {limit.idle_timeout / 86_400_000:.0f} days"
        for name, limit in limits.items()
        if limit.idle_timeout > _LONGEST_IDLE
    ]
    if long:
        yield LONG.finding(", ".join(long))


def check_store_kind(context: CheckContext) -> Iterator[Finding]:
    """Examine what kind of store it is."""
    if isinstance(context.store, MemoryStore):
        yield MEMORY.finding("memory://")
    elif context.store is not None and not isinstance(context.store, SupportsBroadcast):
        yield SILENT.finding(f"{context.store!r} has none: connections are checked periodically")


def check_public_url(context: CheckContext) -> Iterator[Finding]:
    """Send a request to the public address, as a visitor would."""
    url, config = context.public_url, context.config
    if url is None:
        if config is not None and config.web.cookie.secure == "auto":
            yield PUBLIC_UNKNOWN.finding("secure='auto', and --url was not given")
        return
    shown = re.sub(r"//[^/?#]*@", "//***@", url)
    if url.startswith("http://"):
        yield PUBLIC_HTTP.finding(shown)
    answer = _Answer()
    # A thread, because a server may send its answer byte by byte, each within the timeout.
    request = threading.Thread(target=_request, args=(url, answer), daemon=True)
    request.start()
    request.join(_URL_TIMEOUT)
    if request.is_alive():
        yield NO_ANSWER.finding(f"{shown}: no answer within {_URL_TIMEOUT} s")
        return
    if answer.failure:
        yield NO_ANSWER.finding(f"{shown}: {answer.failure}")
    elif answer.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        yield SCHEME.finding(
            f"{shown} answers 500, as a page with a session does for a request with the scheme "
            "http; the log of the application then says InsecureTransport"
        )
    elif answer.status >= HTTPStatus.BAD_REQUEST:
        yield NO_ANSWER.finding(f"{shown} answers {answer.status}")
    yield from _check_set_cookie(shown, answer.cookies, config)


class _Answer(msgspec.Struct):
    """The answer of the public address, or why there is none."""

    status: int = 0
    cookies: list[str] = []
    failure: str = ""


def _request(url: str, answer: _Answer) -> None:
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "sojourn-doctor"})  # noqa: S310 - the operator's own address
        with urllib.request.urlopen(request, timeout=_URL_TIMEOUT) as response:  # noqa: S310 - the operator's own address
            answer.cookies = response.headers.get_all("Set-Cookie") or []
    except urllib.error.HTTPError as failure:
        with failure:
            answer.cookies = failure.headers.get_all("Set-Cookie") or []
            answer.status = failure.code
    except HTTPException as failure:
        answer.failure = f"not a valid answer of HTTP ({type(failure).__name__})"
    except (OSError, ValueError) as failure:
        answer.failure = str(getattr(failure, "reason", failure))


def _check_set_cookie(url: str, cookies: list[str], config: Config | None) -> Iterator[Finding]:
    names = {"sid", "__host-sid", "__secure-sid"}
    if config is not None:
        settings = config.web.cookie
        names |= {settings.over_https().name.lower(), settings.over_http().name.lower()}
    for cookie in cookies:
        name, *attributes = (part.strip().lower() for part in cookie.split(";"))
        name = name.partition("=")[0]
        if name in names and "secure" not in attributes:
            yield INSECURE.finding(f"{url} sets the cookie {name!r} without Secure")
