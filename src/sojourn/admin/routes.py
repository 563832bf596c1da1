"""The routing table of an application: patterns of paths, methods and their handlers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, NamedTuple

from sojourn.admin.errors import PageError
from sojourn.admin.request import AdminRequest
from sojourn.admin.response import AdminResponse

Handler = Callable[..., Awaitable[AdminResponse]]
"""``handler(request, **parameters)``: parameters are the named parts of the path."""

#: What ``{id}`` matches, a public session ID; other names match one segment.
_PARTS: Final = {"id": "[0-9a-f]{32}"}


class Route(NamedTuple):
    """A pattern of paths.

    Attributes:
        pattern: such as ``/sessions/{id}``.
        methods: a handler for each method. GET also answers HEAD.
    """

    pattern: str
    methods: dict[str, Handler]


class Routes:
    """Finds the handler of a request.

    Args:
        routes: in order; the first that matches is used.

    Attributes:
        routes: as given.
    """

    def __init__(self, *routes: Route) -> None:
        self.routes: tuple[Route, ...] = routes
        self._compiled = [(_compile(route.pattern), route.methods) for route in routes]

    def find(self, request: AdminRequest) -> tuple[Handler, dict[str, str]]:
        """Return the handler of a request and the named parts of its path.

        Raises:
            PageError: 404 if no pattern matches, 405 if the method has no handler.
        """
        for pattern, methods in self._compiled:
            match = pattern.fullmatch(request.path)
            if match is not None:
                method = "GET" if request.method == "HEAD" else request.method
                if method not in methods:
                    raise _not_allowed(methods)
                return methods[method], match.groupdict()
        raise PageError(
            HTTPStatus.NOT_FOUND,
            "Page not found",
            "There is no page at this address. Check the address, or start at the first page.",
        )


def _compile(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", pattern)
    expression = "".join(
        f"(?P<{part}>{_PARTS.get(part, '[^/]+')})" if index % 2 else re.escape(part)
        for index, part in enumerate(parts)
    )
    return re.compile(expression)


def _not_allowed(methods: dict[str, Handler]) -> PageError:
    allowed = [*methods, *(["HEAD"] if "GET" in methods else [])]
    return PageError(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "This method is not allowed",
        f"This address accepts {', '.join(allowed)}.",
        (("allow", ", ".join(allowed)),),
    )
