"""Bodies of streaming responses: commit what a stream changes when it ends (law A11)."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any, cast

from django.http.response import HttpResponseBase, StreamingHttpResponse

from sojourn._core.concurrency import run, shielded
from sojourn.frameworks.django.errors import wait_in_thread
from sojourn.frameworks.django.lifecycle import RequestLifecycle, is_stream


def wrap_stream(
    lifecycle: RequestLifecycle, response: HttpResponseBase, *, in_loop: bool
) -> HttpResponseBase:
    """Return the response; have a stream commit what it changes (law A11)."""
    if not is_stream(response):
        lifecycle.end()
        return response
    stream = cast("StreamingHttpResponse", response)
    content: Any = stream.streaming_content
    if stream.is_async:
        stream.streaming_content = _Body(lifecycle, content)
    else:
        stream.streaming_content = _stream(lifecycle, content, wait_in_thread if in_loop else run)
    return stream


def _stream(
    lifecycle: RequestLifecycle,
    content: Iterator[bytes],
    wait: Callable[[Coroutine[Any, Any, None]], None],
) -> Iterator[bytes]:
    """Yield the parts of a body, and commit at its end."""
    try:
        yield from content
        waiting = lifecycle.finish()
        if waiting is not None:
            wait(waiting)
    except BaseException as error:
        lifecycle.client_disconnected = isinstance(error, GeneratorExit)
        waiting = lifecycle.fail()
        if waiting is not None:
            wait(waiting)
        raise
    finally:
        lifecycle.end()


class _Body:
    """The body of an asynchronous stream.

    Django iterates over a generator of its own, which it closes when the client disconnects. That
    one must hold the only reference to ``_stream_async``, so that it is closed, too: a response
    lives longer.
    """

    def __init__(self, lifecycle: RequestLifecycle, content: AsyncIterator[bytes]) -> None:
        self._lifecycle = lifecycle
        self._content = content
        self._is_set = False

    def __aiter__(self) -> _Body | AsyncIterator[bytes]:
        """Return the body itself to Django's setter, and the parts to its loop."""
        if not self._is_set:
            self._is_set = True
            return self
        return _stream_async(self._lifecycle, self._content)

    async def __anext__(self) -> bytes:
        """Return the next part, for a caller that does not use a loop."""
        raise StopAsyncIteration


async def _stream_async(
    lifecycle: RequestLifecycle, content: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Yield the parts of a body, and commit at its end."""
    try:
        async with aclosing(cast("Any", content)):
            async for part in content:
                yield part
        waiting = lifecycle.finish()
        if waiting is not None:
            await waiting
    except BaseException as error:
        # Django cancels the task of a request whose client has disconnected.
        lifecycle.client_disconnected = not isinstance(error, Exception)
        waiting = lifecycle.fail()
        if waiting is not None:
            await shielded(waiting)
        raise
    finally:
        lifecycle.end()
