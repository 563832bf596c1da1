"""Mutation: one deliberate fault, a row of the tables beside this file.

What lives here: the type. A row says what it breaks, in which file, which text stands there exactly
once, what the fault makes of it, and which tests must fail. Where code changes, its rows change
with it: a text that is not found is an error, so that no row is silently out of use.
"""

from typing import NamedTuple


class Mutation(NamedTuple):
    """One deliberate fault.

    Attributes:
        breaks: names, separated by commas: laws, and rows of the security table. For each of them a
            test that cites it must fail. A promise without a number is said in words: any test.
        file: where.
        text: what stands there, exactly once.
        fault: what stands there instead.
        tests: arguments for pytest.
    """

    breaks: str
    file: str
    text: str
    fault: str
    tests: str

    def names(self) -> list[str]:
        """Return what it breaks, one by one."""
        return self.breaks.split(", ")
