"""The Jinja2 environment of the pages: its own templates, with everything escaped."""

from __future__ import annotations

from functools import cache
from http import HTTPStatus

from jinja2 import Environment, PackageLoader, StrictUndefined

from sojourn.admin.csrf import FIELD
from sojourn.admin.device_names import name_device
from sojourn.admin.formatting import absolute_time, relative_time, visible
from sojourn.admin.request import AdminRequest
from sojourn.admin.response import AdminResponse
from sojourn.admin.stylesheet import load_stylesheet


@cache
def load_environment() -> Environment:
    """Return the environment, which is shared by all applications of the process."""
    environment = Environment(
        loader=PackageLoader("sojourn.admin"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["absolute_time"] = absolute_time
    environment.filters["device"] = name_device
    environment.filters["relative_time"] = relative_time
    environment.filters["visible"] = visible
    environment.globals["csrf_field"] = FIELD
    environment.globals["stylesheet"] = load_stylesheet().name
    return environment


def render(
    request: AdminRequest,
    template: str,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    headers: tuple[tuple[str, str], ...] = (),
    **values: object,
) -> AdminResponse:
    """Return a page.

    Args:
        request: available to templates as ``request``.
        template: the name of a file in ``templates``.
        status: of the response.
        headers: further headers.
        values: for the template.
    """
    text = load_environment().get_template(template).render(request=request, **values)
    return AdminResponse(status, text.encode(), headers=headers)
