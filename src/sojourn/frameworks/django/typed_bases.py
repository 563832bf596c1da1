"""Base classes of Django with types, which Django itself does not have."""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, ItemsView, KeysView, Mapping, ValuesView
    from datetime import datetime, timedelta
    from typing import Any

    class SessionBase:
        """The methods of ``django.contrib.sessions.backends.base.SessionBase`` that are kept."""

        TEST_COOKIE_NAME: str
        TEST_COOKIE_VALUE: str
        _session_key: str | None

        @property
        def session_key(self) -> str | None:
            """The key of the session; None for one that is not stored."""
            ...

        async def aget(self, key: str, default: Any = None) -> Any:
            """Return the value of a key, ``default`` if there is none."""
            ...

        async def apop(self, key: str, default: Any = ...) -> Any:
            """Remove a key and return its value; see ``dict.pop``."""
            ...

        async def asetdefault(self, key: str, value: Any) -> Any:
            """Return the value of a key; set it to ``value`` if there is none."""
            ...

        async def aupdate(self, dict_: Mapping[str, Any]) -> None:
            """Assign each key of another mapping."""
            ...

        def has_key(self, key: str) -> bool:
            """Return whether a key exists."""
            ...

        async def ahas_key(self, key: str) -> bool:
            """Return whether a key exists."""
            ...

        async def akeys(self) -> KeysView[str]:
            """Return the keys."""
            ...

        async def avalues(self) -> ValuesView[Any]:
            """Return the values."""
            ...

        async def aitems(self) -> ItemsView[str, Any]:
            """Return the keys with their values."""
            ...

        def set_test_cookie(self) -> None:
            """Store a value that ``test_cookie_worked`` finds at the next request."""
            ...

        async def aset_test_cookie(self) -> None:
            """Store a value; see ``set_test_cookie``."""
            ...

        def test_cookie_worked(self) -> bool:
            """Return whether the browser has sent the cookie of ``set_test_cookie`` back."""
            ...

        async def atest_cookie_worked(self) -> bool:
            """Return whether the browser has sent the cookie back."""
            ...

        def delete_test_cookie(self) -> None:
            """Delete what ``set_test_cookie`` has stored."""
            ...

        def set_expiry(self, value: int | datetime | timedelta | None) -> None:
            """Limit the session.

            Args:
                value: an integer is the longest inactivity in seconds, a ``datetime`` the end,
                    a ``timedelta`` the time until the end. 0: the cookie ends with the browser
                    session. None: the limits of the installation.
            """
            ...

        async def aset_expiry(self, value: int | datetime | timedelta | None) -> None:
            """Limit the session; see ``set_expiry``."""
            ...

        def get_expiry_age(self, **kwargs: Any) -> int:
            """Return the seconds until the session expires."""
            ...

        async def aget_expiry_age(self, **kwargs: Any) -> int:
            """Return the seconds until the session expires."""
            ...

        def get_expiry_date(self, **kwargs: Any) -> datetime:
            """Return when the session expires."""
            ...

        async def aget_expiry_date(self, **kwargs: Any) -> datetime:
            """Return when the session expires."""
            ...

        def get_expire_at_browser_close(self) -> bool:
            """Return whether the cookie ends with the browser session."""
            ...

        async def aget_expire_at_browser_close(self) -> bool:
            """Return whether the cookie ends with the browser session."""
            ...

        def encode(self, session_dict: Any) -> str:
            """Return data as signed text."""
            ...

        def decode(self, session_data: str) -> dict[str, Any]:
            """Return the data of a text of ``encode``; empty if its signature is invalid."""
            ...

    class SessionMiddleware:
        """``django.contrib.sessions.middleware.SessionMiddleware``."""

        get_response: Callable[..., Any]
        async_mode: bool

        def __init__(self, get_response: Callable[..., Any]) -> None: ...

    class AppConfig:
        """``django.apps.AppConfig``."""

        name: str
        label: str
        verbose_name: str

    class BaseCommand:
        """``django.core.management.base.BaseCommand``."""

        help: str
        requires_system_checks: tuple[str, ...]

else:
    from django.apps import AppConfig
    from django.contrib.sessions.backends.base import SessionBase
    from django.contrib.sessions.middleware import SessionMiddleware
    from django.core.management.base import BaseCommand

__all__ = ["AppConfig", "BaseCommand", "SessionBase", "SessionMiddleware"]
