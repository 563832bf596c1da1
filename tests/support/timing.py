"""Durations on a machine that other programs use, too."""

import math

_ATTEMPTS = 3


async def shortest(measure, limit):
    """Return the shortest of up to three durations; stop at the first below a limit.

    A busy machine makes some of them longer, a fault all.

    Args:
        measure: an async function without arguments that returns seconds.
        limit: in seconds.
    """
    best = math.inf
    for _ in range(_ATTEMPTS):
        best = min(best, await measure())
        if best < limit:
            break
    return best
