"""Applications of BlackSheep for the laws of requests, and for real servers."""

from blacksheep import Application, Content, Request, Response
from blacksheep.contents import StreamedContent
from blacksheep.server.routing import Router

import sojourn
from sojourn.testing import HandlerResponse


def session_of(request):
    """Return the session of a request; None after ``uninstall``."""
    try:
        return request.session
    except TypeError:  # how BlackSheep reports that there is none
        return None


def endpoint(handler):
    """Return a handler of BlackSheep that calls a handler."""

    async def respond(request: Request) -> Response:
        response = await handler(session_of(request)) or HandlerResponse()
        headers = [(name.encode(), value.encode()) for name, value in response.headers.items()]
        if isinstance(response.body, bytes):
            content = Content(b"text/plain", response.body)
        else:

            async def parts():
                async for part in response.body:
                    yield part

            content = StreamedContent(b"text/plain", parts)
        return Response(response.status, headers, content)

    return respond


def build(handlers, **options):
    """Return an application that serves each handler at its path, and its installation."""
    app = Application(router=Router())
    for path, handler in handlers.items():
        app.router.add_get(path, endpoint(handler))
        app.router.add_head(path, endpoint(handler))
    return app, sojourn.install(app, **options)


def uninstall(app, sessions):
    """Uninstall sessions from an application that is being served."""
    sojourn.uninstall(app)
