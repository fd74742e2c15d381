"""The blocking service behind the face of the async one, so that one suite tests both.

Each call goes through a thread, as a caller of the blocking service is one; what a lock puts into
the context of that thread is carried over to the task that awaits.
"""

from __future__ import annotations

import inspect
from contextlib import asynccontextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, Self

import anyio.from_thread
import anyio.to_thread

from askel import RedisWorkflowService, SyncRedisWorkflowService


class AwaitedBlockingService:
    """Awaits in threads what a `SyncRedisWorkflowService` does."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.blocking = SyncRedisWorkflowService(*args, **options)

    def __getattr__(self, name: str) -> Any:
        original = getattr(RedisWorkflowService, name, None)
        method = getattr(self.blocking, name, None)
        if inspect.iscoroutinefunction(original):
            if method is None:
                raise AssertionError(f"SyncRedisWorkflowService has no {name}")
            return partial(self._with if name.startswith("with_") else in_thread, method)
        if callable(original) and not name.startswith("_"):
            return partial(self._block, method)
        if name in {"scripts", "connection"}:
            return _OnItsLoop(self.blocking, name)
        return getattr(self.blocking._here().service, name)

    async def __aenter__(self) -> Self:
        await in_thread(self.blocking.__enter__)
        return self

    async def __aexit__(self, *error: object) -> None:
        await in_thread(self.blocking.__exit__, *error)

    async def close(self) -> None:
        await in_thread(self.blocking.close)

    async def _with(self, method: Any, *args: Any) -> Any:
        *others, fn = args
        return await in_thread(method, *others, partial(anyio.from_thread.run, fn))

    def _block(self, method: Any, *args: Any, **options: Any) -> Any:
        return self._entered(method(*args, **options))

    @asynccontextmanager
    async def _entered(self, block: Any) -> Any:
        context = copy_context()
        value = await in_thread(context.run, block.__enter__)
        mine = copy_context()
        tokens = [
            (variable, variable.set(context[variable]))
            for variable in context
            if mine.get(variable) is not context[variable]
        ]
        error: BaseException | None = None
        try:
            yield value
        except BaseException as raised:  # noqa: BLE001 - told to the block, raised below
            error = raised
        for variable, token in tokens:
            variable.reset(token)
        leave = partial(context.run, block.__exit__, type(error), error, None)
        if not await in_thread(leave) and error is not None:
            raise error


class _OnItsLoop:
    """A part of the service whose methods are awaited on the loop that it lives on."""

    def __init__(self, blocking: SyncRedisWorkflowService, part: str) -> None:
        self._blocking, self._part = blocking, part

    def __getattr__(self, name: str) -> Any:
        found = getattr(getattr(self._blocking._here().service, self._part), name)
        if not callable(found):
            return found

        async def awaited(*args: Any, **options: Any) -> Any:
            return await in_thread(self._blocking.call, lambda _: found(*args, **options))

        return awaited


async def in_thread(function: Any, *args: Any, **options: Any) -> Any:
    call = partial(function, *args, **options)
    return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
