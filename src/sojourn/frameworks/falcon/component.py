"""Middleware components: load the session and commit it where Falcon's error handlers answer.

``process_response`` runs before the body is rendered or streamed. What changes after it is
committed by the middleware outside of the application.
"""

from __future__ import annotations

from types import CoroutineType
from typing import Any

from sojourn.frameworks.falcon.context import find_session, set_session
from sojourn.web.asgi_exchange import HTTPExchange
from sojourn.web.asgi_scope import CONNECTION, read_path
from sojourn.web.installation import WebInstallation
from sojourn.web.lifecycle import SessionLifecycle, run
from sojourn.web.websocket import WebSocketConnection
from sojourn.web.wsgi import EXCHANGE, SESSION, WSGIExchange
from sojourn.web.wsgi_environ import read_path as read_wsgi_path


class WSGIComponent:
    """Loads and commits the session of each request of a ``falcon.App``.

    Args:
        web: the web layer of the installation.
    """

    def __init__(self, web: WebInstallation) -> None:
        self._web = web

    def process_request(self, req: Any, resp: Any) -> None:  # noqa: ARG002 - of the interface
        """Load the session."""
        exchange: WSGIExchange | None = req.env.get(EXCHANGE)
        if exchange is None or exchange.web is not self._web:
            return
        config = self._web.config
        if config.autoload and (
            config.patterns.everything or config.patterns.match(read_wsgi_path(req.env))
        ):
            try:
                exchange.load()
            finally:  # error handlers may use it, too
                if exchange.session is not None:
                    set_session(req, exchange.session)

    def process_response(self, req: Any, resp: Any, resource: object, req_succeeded: bool) -> None:  # noqa: ARG002, FBT001 - of the interface
        """Commit what the request has changed."""
        exchange: WSGIExchange | None = req.env.get(EXCHANGE)
        if exchange is None or exchange.web is not self._web or exchange.session is None:
            return
        found = find_session(req, exchange.session)
        try:
            if found is not exchange.session:
                set_session(req, exchange.session)
                req.env[SESSION] = found
                exchange.adopt_replacement()
            if _has_changes(exchange):
                waiting = exchange.commit(resp.status_code)
                if waiting is not None:
                    run(waiting)
        except Exception as error:
            exchange.settle(error)
            raise


class ASGIComponent:
    """Loads and commits the session of each request of a ``falcon.asgi.App``.

    Args:
        web: the web layer of the installation.
    """

    def __init__(self, web: WebInstallation) -> None:
        self._web = web

    async def process_request(self, req: Any, resp: Any) -> None:  # noqa: ARG002 - of the interface
        """Load the session."""
        exchange: HTTPExchange | None = req.scope.get(CONNECTION)
        if exchange is None or exchange.web is not self._web:
            return
        config = self._web.config
        if config.autoload and (
            config.patterns.everything or config.patterns.match(read_path(req.scope))
        ):
            try:
                await exchange.load()
            finally:  # error handlers may use it, too
                if exchange.session is not None:
                    set_session(req, exchange.session)

    async def process_response(
        self,
        req: Any,
        resp: Any,
        resource: object,  # noqa: ARG002 - of the interface
        req_succeeded: bool,  # noqa: ARG002, FBT001 - of the interface
    ) -> None:
        """Commit what the request has changed."""
        exchange: HTTPExchange | None = req.scope.get(CONNECTION)
        if exchange is None or exchange.web is not self._web or exchange.session is None:
            return
        found = find_session(req, exchange.session)
        try:
            if found is not exchange.session:
                set_session(req, exchange.session)
                req.scope["session"] = found
            if req.scope.get("session") is not exchange.session:
                exchange.adopt_replacement()
            if _has_changes(exchange):
                waiting = exchange.commit(resp.status_code)
                if type(waiting) is CoroutineType:
                    await waiting
        except Exception as error:
            exchange.failure = error
            await exchange.settle(error)
            raise

    async def process_request_ws(self, req: Any, ws: Any) -> None:  # noqa: ARG002 - of the interface
        """Put the session of a socket, which is loaded, into its context."""
        connection: WebSocketConnection | None = req.scope.get(CONNECTION)
        if connection is not None and connection.session is not None:
            set_session(req, connection.session)


def _has_changes(lifecycle: SessionLifecycle) -> bool:
    """Return whether a commit would change more than the last activity."""
    copy = lifecycle.working_copy
    return copy is not None and (
        copy.modified() or copy.renewal is not None or copy.destroyed_record is not None
    )
