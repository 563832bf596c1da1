"""The application of ``test_caching_proxies.py``: pages that a cache would store.

Each page has an old Last-Modified, so that a cache may assign a long lifetime. ``?say=`` sets
Cache-Control. Below ``/naked`` are the same pages without the headers of sojourn, for the controls.
"""

import itertools
import json
import os

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

import sojourn

LONG_AGO = "Tue, 01 Jan 2019 00:00:00 GMT"
COUNTER = itertools.count()


def answer(request, text, *, status=200, kind=PlainTextResponse, **headers):
    """Return a response with a unique text and with headers that make it cacheable."""
    said = request.query_params.get("say")
    control = {} if said is None else {"cache-control": said}
    if "cdn" in request.query_params:
        control |= {"cdn-cache-control": "max-age=600", "surrogate-control": "max-age=600"}
    body = f"<{text}> answer {next(COUNTER)}"
    return kind(body, status, headers={"last-modified": LONG_AGO, **control, **headers})


async def anonymous(request):
    return answer(request, "public")


async def begin(request):
    request.session["name"] = request.query_params["name"]
    return answer(request, "begun")


async def enter(request):
    """Create a session if there is none."""
    name = request.session.setdefault("name", f"visitor {next(COUNTER)}")
    return answer(request, name)


async def read(request):
    return answer(request, request.session.get("name"))


async def contains(request):
    return answer(request, ["Ada" in request.session, "name" in request.session])


async def length(request):
    return answer(request, f"{len(request.session)} keys of {request.session.get('name')}")


async def write(request):
    return answer(request, f"{request.session.get('name')} {request.session.increment('n')}")


async def leave_flash(request):
    request.session.flash(f"for {request.session.get('name')}")
    return answer(request, "left")


async def flashes(request):
    return answer(request, request.session.flashes())


async def logout(request):
    name = request.session.get("name")
    request.session.destroy()
    return answer(request, f"bye {name}")


async def tagged(request):
    """Return 304 if the visitor has the page."""
    name = request.session.get("name")
    tag = f'"{name}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"etag": tag})
    return answer(request, name, etag=tag)


async def missing(request):
    return answer(request, request.session.get("name"), status=404)


async def broken(request):
    return answer(request, request.session.get("name"), status=500)


async def failing(request):
    raise LookupError(f"as planned, for {request.session.get('name')}")


async def streamed(request):
    name = request.session.get("name")

    async def parts(text):
        for part in (text[:8], text[8:]):
            yield part

    return answer(request, name, kind=lambda text, *a, **k: StreamingResponse(parts(text), *a, **k))


async def late(request):
    """Read the session after the headers were sent, like a streaming template."""

    async def parts():
        yield b"for "
        yield str(request.session.get("name")).encode()

    return answer(request, None, kind=lambda _, *a, **k: StreamingResponse(parts(), *a, **k))


async def fails(request, error):
    return answer(request, f"failed for {request.session.get('name')}", status=500)


PAGES = {
    "/anonymous": anonymous,
    "/begin": begin,
    "/enter": enter,
    "/read": read,
    "/in": contains,
    "/len": length,
    "/write": write,
    "/flash": leave_flash,
    "/flashes": flashes,
    "/logout": logout,
    "/tagged": tagged,
    "/missing": missing,
    "/broken": broken,
    "/failing": failing,
    "/streamed": streamed,
    "/late": late,
}


class WithoutCacheHeaders:
    """A middleware that removes the caching headers, as a careless one may."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def stripped(message):
            if message["type"] == "http.response.start" and "/naked/" in scope.get("path", ""):
                message["headers"] = [
                    pair
                    for pair in message["headers"]
                    if pair[0] not in (b"vary", b"cache-control")
                ]
            await send(message)

        await self.app(scope, receive, stripped)


routes = [Route(path, page) for path, page in PAGES.items()]
inner = Starlette(
    routes=[*routes, Mount("/naked", routes=routes)], exception_handlers={Exception: fails}
)
sessions = sojourn.install(inner, **json.loads(os.environ["SOJOURN_TEST_OPTIONS"]))
app = WithoutCacheHeaders(inner)
