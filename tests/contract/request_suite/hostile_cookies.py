"""Large Cookie headers: law A19."""

import time

from sojourn.testing import ServedApp
from sojourn.testing.app_suite.base import AppTests
from sojourn.testing.app_suite.handlers import ignore
from sojourn.testing.decorators import under_loop


class HostileCookieTests(AppTests):
    """Tests of the cost of a Cookie header."""

    @under_loop
    async def test_a_large_cookie_header_is_parsed_in_linear_time(self) -> None:
        """A19, B-57: 64 KiB take less than 5 ms, and twice the length about twice the time."""
        size = 65_536
        hostile = {
            "pairs": "a=b; " * (size // 5),
            "semicolons": ";" * size,
            "spaces": "sid=" + " " * (size - 8) + "x=1",
            "names": "; ".join(["sid=" + "A" * 66] * (size // 72)),
            "quotes": 'sid="' + "\\" * (size - 6),
            "equals": "=" * size,
        }
        async with self.serve({"/ignore": ignore}) as app, self.serve({"/ignore": ignore}) as bare:
            # Frameworks parse the header, too; their time is subtracted.
            self.uninstall(bare.app, bare.sessions)
            for name, header in hostile.items():
                once = await _extra_cost(app, bare, header)
                assert once < 0.005, name
                twice = await _extra_cost(app, bare, f"{header};{header}")
                assert twice < 6 * max(once, 0.001), name
            assert "load" not in app.take_trace()


async def _extra_cost(app: ServedApp, bare: ServedApp, cookies: str) -> float:
    """Return the CPU seconds of a request minus those of one without sessions."""
    best = {app: float("inf"), bare: float("inf")}
    for _ in range(7):
        for place in (app, bare):
            start = time.process_time()
            await place.browser(cookies).get("/ignore")
            best[place] = min(best[place], time.process_time() - start)
    return best[app] - best[bare]
