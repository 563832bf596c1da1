"""CheckedCoroutine: the result of a public ``a...`` verb, which has no truth value (law A24)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator
from typing import Any, NoReturn, ParamSpec, TypeVar, cast

import msgspec

from sojourn._core.coroutine_function import mark_coroutine_function

P = ParamSpec("P")
T = TypeVar("T")


class CheckedCoroutine(msgspec.Struct, eq=False):
    """A coroutine that cannot be used as a condition: ``if session.ause_grant("x")`` raises.

    A ``collections.abc.Coroutine`` by its methods, so ``asyncio.create_task``, ``gather`` and anyio
    take it. The coroutine inside still warns if it is never awaited. A struct, because its creation
    costs a fifth of that of a class with ``__init__``.

    Attributes:
        coroutine: of the ``async def`` function.
    """

    coroutine: Coroutine[Any, Any, Any]

    def __await__(self) -> Generator[Any, Any, Any]:
        """Run the coroutine in the awaiting one."""
        return self.coroutine.__await__()

    def send(self, value: Any, /) -> Any:
        """Resume the coroutine with a value."""
        return self.coroutine.send(value)

    def throw(self, *exception: Any) -> Any:
        """Raise an exception in the coroutine."""
        return self.coroutine.throw(*exception)

    def close(self) -> None:
        """Close the coroutine."""
        self.coroutine.close()

    def __bool__(self) -> NoReturn:
        """Raise ``TypeError``: a condition would always hold."""
        raise TypeError(
            f"{self.__qualname__}() returned a coroutine, which has no truth value: await it, as "
            "in `if await ...`"
        )

    def __repr__(self) -> str:
        """Show the coroutine."""
        return f"<CheckedCoroutine of {self.coroutine!r}>"

    def __getattr__(self, name: str) -> Any:
        """Return what tasks and debuggers read of a coroutine, such as ``cr_frame``."""
        if name in _INSPECTED_ATTRIBUTES:
            return getattr(self.coroutine, name)
        raise AttributeError(f"CheckedCoroutine has no attribute {name!r}")


_INSPECTED_ATTRIBUTES = frozenset({
    "__name__", "__qualname__",
    "cr_await", "cr_code", "cr_frame", "cr_origin", "cr_running", "cr_suspended",
})  # fmt: skip


def checked_coroutine(
    function: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make the coroutines of an ``async def`` function raise when they are used as conditions.

    Frameworks still recognise the function as a coroutine function.
    """

    @functools.wraps(function)
    def create(*args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        coroutine = CheckedCoroutine(function(*args, **kwargs))
        return cast("Coroutine[Any, Any, T]", coroutine)

    return mark_coroutine_function(create)
