"""Set-Cookie: law A14."""

from __future__ import annotations

from typing import Any, Final

import pytest

from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.handlers import destroy, write
from sojourn.testing.decorators import under_loop

_PLAIN: Final = {"path=/", "httponly", "samesite=lax"}
_SHARED: Final = {"cookie": "shop", "path": "/shop", "domain": "example.com", "same_site": "Strict"}
_EMBEDDED: Final = {"same_site": "None", "partitioned": True, "persistent": True}

#: Options, scheme, the start of Set-Cookie and its attributes.
CASES: Final[dict[str, tuple[dict[str, Any], str, str, set[str]]]] = {
    "https": ({}, "https", "__Host-sid=", {*_PLAIN, "secure"}),
    "http": ({}, "http", "sid=", _PLAIN),
    "shared": (
        _SHARED,
        "https",
        "shop=",
        {"path=/shop", "domain=example.com", "secure", "httponly", "samesite=strict"},
    ),
    "embedded": (
        _EMBEDDED,
        "https",
        "__Host-sid=",
        {"path=/", "secure", "httponly", "samesite=none", "partitioned", "max-age=43200"},
    ),
    "secure=False": ({"secure": False}, "http", "sid=", _PLAIN),
    "secure=True": ({"secure": True}, "http", "__Host-sid=", {*_PLAIN, "secure"}),
}


class CookieTests(AppTests):
    """Tests of the session cookie."""

    @pytest.mark.parametrize("case", CASES)
    @under_loop
    async def test_the_cookie_is_as_configured(self, case: str) -> None:
        """Name, size and attributes, also of its deletion.

        A14, ASVS 3.3.1, 3.3.2, 3.3.3, 3.3.4, 3.3.5, B-44, B-60.
        """
        options, scheme, start, attributes = CASES[case]
        async with self.serve({"/shop/write": write, "/shop/end": destroy}, **options) as app:
            browser = app.browser()
            [setting] = (await browser.get("/shop/write", scheme=scheme)).all("set-cookie")
            value, *found = setting.split("; ")
            assert value.startswith(start)
            assert len(value) <= 4096
            sent = {attribute.lower() for attribute in found}
            expires = {attribute for attribute in sent if attribute.startswith("expires=")}
            assert sent - expires == attributes
            assert len(expires) == ("max-age=43200" in attributes)  # for older clients
            [deleting] = (await browser.get("/shop/end", scheme=scheme)).all("set-cookie")
            empty, *found = deleting.split("; ")
            assert empty == start
            past = {"max-age=0", "expires=thu, 01 jan 1970 00:00:00 gmt"}
            assert {a.lower() for a in found} == (attributes - {"max-age=43200"}) | past
            assert browser.cookie is None
