"""A shared cache that stores everything that RFC 9111 allows.

Most caches refuse responses with Set-Cookie; the RFC does not demand it (7.3), so this one stores
them, and uses heuristic lifetimes. Headers for CDNs (RFC 9213) take precedence over Cache-Control.
"""

import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

#: Cacheable by default (RFC 9110 15.1).
HEURISTIC = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
#: Which statuses this cache understands, for must-understand (RFC 9111 5.2.2.3).
UNDERSTOOD = HEURISTIC | {302, 303, 307, 400, 403, 500, 503}
TARGETED = ("cdn-cache-control", "surrogate-control")
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

_DIRECTIVE = re.compile(r'([\w-]+)(?:\s*=\s*("[^"]*"|[^\s,]+))?')


@dataclass
class Stored:
    """One stored response, with the request headers that its Vary names."""

    response: httpx.Response
    varies: dict[str, str | None]
    kept_at: float
    lifetime: float
    validate: bool

    def serves(self, request: httpx.Request) -> bool:
        return all(request.headers.get(name) == value for name, value in self.varies.items())

    @property
    def age(self) -> float:
        return time.monotonic() - self.kept_at


class SharedCache(httpx.BaseTransport):
    """Responds from its stored responses, or forwards the request to the server.

    Attributes:
        hits: number of responses served from the cache.
    """

    def __init__(self) -> None:
        self.hits = 0
        # A connection for each request: the server closes those on which a handler raised.
        self._server = httpx.HTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))
        self._stored: dict[str, list[Stored]] = {}

    def close(self) -> None:
        self._server.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        found = self._find(request)
        if found is not None and found.age < found.lifetime and not found.validate:
            return self._from(found, request)
        if found is not None and "etag" in found.response.headers and not _conditional(request):
            return self._validated(found, request)
        return self._forwarded(request)

    def _find(self, request: httpx.Request) -> Stored | None:
        if request.method not in ("GET", "HEAD") or "no-cache" in _directives(request.headers):
            return None
        kept = self._stored.get(str(request.url), ())
        return next((stored for stored in reversed(kept) if stored.serves(request)), None)

    def _forwarded(self, request: httpx.Request) -> httpx.Response:
        response = self._server.handle_request(request)
        response.read()
        if request.method not in SAFE and response.status_code < 400:
            self._stored.pop(str(request.url), None)  # RFC 9111 4.4
        self._keep(request, response)
        return response

    def _validated(self, found: Stored, request: httpx.Request) -> httpx.Response:
        """Revalidate a stale response (RFC 9111 4.3)."""
        headers = httpx.Headers(request.headers)
        headers["if-none-match"] = found.response.headers["etag"]
        answer = self._forwarded(httpx.Request(request.method, request.url, headers=headers))
        if answer.status_code != 304:
            return answer
        for name in answer.headers:  # RFC 9111 3.2: the newer fields replace the stored ones
            found.response.headers[name] = answer.headers[name]
        found.kept_at = time.monotonic()
        return self._from(found, request)

    def _from(self, found: Stored, request: httpx.Request) -> httpx.Response:
        self.hits += 1
        headers = [*found.response.headers.multi_items(), ("age", str(int(found.age)))]
        if request.headers.get("if-none-match") == found.response.headers.get("etag", ""):
            return httpx.Response(304, headers=headers)
        body = b"" if request.method == "HEAD" else found.response.content
        return httpx.Response(found.response.status_code, headers=headers, content=body)

    def _keep(self, request: httpx.Request, response: httpx.Response) -> None:
        """Store a response unless a header forbids it (RFC 9111 3)."""
        directives = _directives(response.headers)
        if request.method != "GET" or "no-store" in _directives(request.headers):
            return
        understood = "must-understand" in directives and response.status_code in UNDERSTOOD
        if ("no-store" in directives and not understood) or "private" in directives:
            return
        if "authorization" in request.headers and directives.keys().isdisjoint(
            {"public", "s-maxage", "must-revalidate"}
        ):
            return
        if response.headers.get("vary", "").strip() == "*" or response.status_code == 304:
            return
        lifetime = _lifetime(response, directives)
        if lifetime is None:
            return
        names = [name.strip().lower() for name in response.headers.get("vary", "").split(",")]
        varies = {name: request.headers.get(name) for name in names if name}
        kept = self._stored.setdefault(str(request.url), [])
        kept[:] = [stored for stored in kept if stored.varies != varies]
        kept.append(Stored(response, varies, time.monotonic(), lifetime, "no-cache" in directives))


def _conditional(request: httpx.Request) -> bool:
    return "if-none-match" in request.headers


def _directives(headers: httpx.Headers) -> dict[str, str]:
    """Return the cache directives of a message; headers for CDNs take precedence."""
    text = next((headers[name] for name in TARGETED if name in headers), None)
    if text is None:
        text = headers.get("cache-control", "")
    return {name.lower(): value.strip('"') for name, value in _DIRECTIVE.findall(text)}


def _lifetime(response: httpx.Response, directives: dict[str, str]) -> float | None:
    """Return the freshness lifetime in seconds; None if the response must not be stored."""
    for name in ("s-maxage", "max-age"):
        if directives.get(name, "").isdigit():
            return float(directives[name])
    if response.status_code not in HEURISTIC and "public" not in directives:
        return None
    changed = response.headers.get("last-modified")
    if changed is None:
        return 0.0
    return 0.1 * (time.time() - parsedate_to_datetime(changed).timestamp())
