"""Waiting for a fact instead of sleeping for a while."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")

POLL_S = 0.01


async def wait_until(
    predicate: Callable[[], T | Awaitable[T]],
    timeout: float = 10,
    message: str | Callable[[], str] = "",
) -> T:
    """Poll *predicate*, sync or async, until what it returns is true, and return that.

    Exceptions of the predicate go through: a predicate that may fail for a while catches them.

    Args:
        predicate: Asked at once, then every 10 ms.
        timeout: In seconds. An async predicate that hangs is cancelled then, too.
        message: What was waited for; a function is called at the time of failure, so it can show
            the state that was reached.

    Raises:
        AssertionError: It did not become true in time.
    """
    deadline = time.monotonic() + timeout
    with anyio.move_on_after(timeout + POLL_S):
        while True:
            answer = predicate()
            value = await answer if inspect.isawaitable(answer) else answer
            if value:
                return value
            if time.monotonic() >= deadline:
                break
            await anyio.sleep(POLL_S)
    said = message() if callable(message) else message
    name = getattr(predicate, "__qualname__", repr(predicate))
    raise AssertionError(f"not within {timeout:g} s: {said or name}")
