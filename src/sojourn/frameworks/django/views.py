"""Sessions for single views: ``get_session``, ``aget_session``, and ``@sessions.route``."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest

from sojourn.errors import ConfigurationError
from sojourn.frameworks.django.lifecycle import LIFECYCLE, RequestLifecycle
from sojourn.session import Session
from sojourn.web.installation import OnStoreFailure


def get_session(
    request: HttpRequest, on_store_failure: OnStoreFailure | None = None
) -> Session[Any]:
    """Return the session of a request; load it if necessary.

    For ``autoload=False``, and for paths that ``include`` and ``exclude`` leave out.

    Args:
        request: of Django.
        on_store_failure: what to do if the store fails; None for the installation's choice.

    Raises:
        ConfigurationError: the request did not pass sojourn's middleware.
        StoreUnavailable: the store failed.
    """
    return _lifecycle(request).load(on_store_failure)


async def aget_session(
    request: HttpRequest, on_store_failure: OnStoreFailure | None = None
) -> Session[Any]:
    """Return the session of a request; see ``get_session``."""
    return await _lifecycle(request).aload(on_store_failure)


def _lifecycle(request: HttpRequest) -> RequestLifecycle:
    lifecycle: RequestLifecycle | None = getattr(request, LIFECYCLE, None)
    if lifecycle is None:
        raise ConfigurationError(
            "this view needs a session, and the request did not pass sojourn's middleware. Put "
            "'sojourn.frameworks.django.SessionMiddleware' into MIDDLEWARE"
        )
    return lifecycle


def route(view: Callable[..., Any], policy: OnStoreFailure | None) -> Callable[..., Any]:
    """Load the session before a view function runs."""

    @functools.wraps(view)
    def load_and_call(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        get_session(request, policy)
        return view(request, *args, **kwargs)

    @functools.wraps(view)
    async def load_and_await(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        await aget_session(request, policy)
        return await view(request, *args, **kwargs)

    return load_and_await if iscoroutinefunction(view) else load_and_call
