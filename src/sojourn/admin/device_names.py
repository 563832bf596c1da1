"""Names of browsers and devices, from the User-Agent header in the label ``browser``."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

import ua_parser

#: Names of ua-parser that users do not know their browser by.
_BROWSERS: Final = {
    "Chrome Mobile": "Chrome",
    "Chrome Mobile iOS": "Chrome",
    "Edge Mobile": "Edge",
    "Firefox Mobile": "Firefox",
    "Firefox iOS": "Firefox",
    "Mobile Safari": "Safari",
    "Mobile Safari UI/WKWebView": "Safari",
    "Samsung Internet": "Samsung Internet",
}
_SYSTEMS: Final = {"Mac OS X": "macOS"}

#: Devices that are named instead of their system; the names of others are codes of models.
_DEVICES: Final = frozenset({"iPhone", "iPad"})

#: A parse takes about one millisecond.
_CACHE_SIZE: Final = 4_096

_MAX_PRODUCT: Final = 40


class DeviceName(NamedTuple):
    """What the User-Agent header states; it may be false.

    Attributes:
        browser: such as ``Firefox 127``; empty if unknown.
        system: such as ``Windows`` or ``iPhone``; empty if unknown.
    """

    browser: str
    system: str

    def __str__(self) -> str:
        """Return both for a list, such as ``Firefox 127 on Windows``."""
        if self.browser and self.system:
            return f"{self.browser} on {self.system}"
        return self.browser or self.system or "Unknown device"


@lru_cache(maxsize=_CACHE_SIZE)
def name_device(user_agent: str) -> DeviceName:
    """Return the name of a device.

    Args:
        user_agent: the header; empty if there was none. A browser that matches no rule is
            named by its first product token.
    """
    found = ua_parser.parse(user_agent)
    browser = ""
    if found.user_agent is not None:
        family = found.user_agent.family
        name = _BROWSERS.get(family, family)
        browser = f"{name} {found.user_agent.major}" if found.user_agent.major else name
    elif user_agent:
        product = user_agent.split(maxsplit=1)[:1]
        browser = "".join(product).replace("/", " ", 1)[:_MAX_PRODUCT]
    system = "" if found.os is None else _SYSTEMS.get(found.os.family, found.os.family)
    if found.device is not None and found.device.family in _DEVICES:
        system = found.device.family
    return DeviceName(browser, system)
