"""An event loop in a thread of its own, for callers that have none: calls, and ``with`` blocks."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from contextvars import Context, ContextVar, Token, copy_context
from types import TracebackType
from typing import Any, Generic, TypeVar

from askel.errors import BlockingCallError, StoreUnavailableError, UnknownOutcomeError

T = TypeVar("T")

#: How long the end of calls that are under way, and of the thread, is waited for, in seconds.
_ENDING_S = 2.0
_JOIN_S = 5.0
#: Name of the tasks that are calls; those have tasks of their own.
_CALL = "askel-call"
#: Context variables that a ``with`` block hands on to its body begin with this.
_OURS = "askel_"

Closing = Callable[[], Awaitable[None]]


class LoopThread:
    """One event loop in one daemon thread, started by the first call.

    Any number of threads may call at once. Each call runs as a task of its own, in a copy of its
    caller's context.
    """

    def __init__(self, name: str, at_end: Closing) -> None:
        """Prepare the loop; *at_end* is awaited on it before it ends."""
        self._name = name
        self._at_end = at_end
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing = False

    def call(self, make: Callable[[], Awaitable[T]]) -> T:
        """Await ``make()`` on the loop; return its result, or raise what it raised.

        A caller that is interrupted while it waits (KeyboardInterrupt, SystemExit) leaves at once,
        and the call is cancelled: whether it was applied is then unknown.

        Raises:
            BlockingCallError: This thread runs an event loop, which would stand still.
            StoreUnavailableError: The loop was closed before.
            UnknownOutcomeError: The loop was closed in the meantime.
        """
        running = self.begin(make, copy_context())
        try:
            return running.outcome.result()
        except CancelledError:
            if running.interrupted or not running.outcome.cancelled():
                raise
            msg = "the service was closed while the call was under way"
            raise UnknownOutcomeError(msg) from None
        except BaseException:
            if not running.outcome.done():
                running.cancel()
            raise

    def begin(self, make: Callable[[], Awaitable[T]], context: Context) -> Running[T]:
        """Start ``make()`` as a task of the loop in *context*, and do not wait for it."""
        refuse_in_event_loop()
        running: Running[T] = Running()
        with self._guard:
            if self._closing:
                raise StoreUnavailableError("the service is closed")
            running.loop = loop = self._started()
            loop.call_soon_threadsafe(running.start, make, context)
        return running

    def close(self) -> None:
        """Cancel what is under way, end the loop and its thread. Repeatable, from any thread."""
        with self._guard:
            first, self._closing = not self._closing, True
            loop, thread = self._loop, self._thread
            if loop is None or thread is None:
                return
            if first:
                loop.call_soon_threadsafe(self._end, loop)
        if thread is not threading.current_thread():
            thread.join(_JOIN_S)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=_run, args=(self._loop,), name=self._name, daemon=True
            )
            self._thread.start()
        return self._loop

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        ending = loop.create_task(self._ended(loop))
        ending.add_done_callback(lambda _: loop.stop())

    async def _ended(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel every call, so that held locks are given back, then close what they used."""
        calls = {task for task in asyncio.all_tasks(loop) if task.get_name() == _CALL}
        for task in calls:
            task.cancel()
        if calls:
            await asyncio.wait(calls, timeout=_ENDING_S)
        with suppress(Exception):  # nobody is left who could do anything about it
            await asyncio.wait_for(self._at_end(), _ENDING_S)


class Running(Generic[T]):
    """One task of the loop, seen from another thread."""

    def __init__(self) -> None:
        self.outcome: Future[T] = Future()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.interrupted = False
        self._task: asyncio.Task[T] | None = None

    def start(self, make: Callable[[], Awaitable[T]], context: Context) -> None:
        """Make the task; on the loop."""
        loop = asyncio.get_running_loop()
        if not self.interrupted:
            self._task = loop.create_task(_awaited(make), name=_CALL, context=context)
            self._task.add_done_callback(self._hand_over)

    def cancel(self) -> None:
        """Cancel the task, from any thread, without waiting for its end."""
        self.interrupted = True
        assert self.loop is not None
        with suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _hand_over(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.outcome.cancel()
        elif (error := task.exception()) is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())


class _BodyFailed(Exception):  # noqa: N818 - never seen outside
    """Stands for what the body raised: a KeyboardInterrupt must not reach the loop."""


class BlockingBlock(AbstractContextManager[T]):
    """An async context manager as a ``with`` block: entered and left by one task of the loop.

    What the async one put into askel's context variables holds for the body, too.
    """

    def __init__(self, thread: LoopThread, inner: AbstractAsyncContextManager[T]) -> None:
        """Wrap *inner*, which is used once."""
        self._thread = thread
        self._inner = inner
        self._pid = os.getpid()
        self._leave: asyncio.Future[None] | None = None
        self._running: Running[None] | None = None
        self._tokens: list[tuple[ContextVar[Any], Token[Any]]] = []

    def __enter__(self) -> T:
        """Enter it, and wait until that is done."""
        before = copy_context()
        entered: Future[tuple[T, list[tuple[ContextVar[Any], Any]]]] = Future()
        running = self._thread.begin(lambda: self._hold(before, entered), before.copy())
        self._running = running

        def not_entered(outcome: Future[None]) -> None:
            if entered.done():
                return
            if outcome.cancelled():
                entered.set_exception(UnknownOutcomeError("the service was closed meanwhile"))
            else:
                entered.set_exception(outcome.exception() or RuntimeError("left before entered"))

        running.outcome.add_done_callback(not_entered)
        try:
            value, changed = entered.result()
        except BaseException:
            if not running.outcome.done():
                running.cancel()
            raise
        self._tokens = [(variable, variable.set(to)) for variable, to in changed]
        return value

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Leave it, and wait until that is done; an error of the body goes on."""
        for variable, token in reversed(self._tokens):
            with suppress(ValueError):  # left in another context than entered
                variable.reset(token)
        if self._pid != os.getpid():
            return False  # a forked child: the block is the parent's, and so is what it holds
        running = self._running
        assert running is not None
        assert running.loop is not None
        with suppress(RuntimeError):  # the loop has ended
            running.loop.call_soon_threadsafe(self._let_go, error is not None)
        try:
            running.outcome.result()
        except _BodyFailed:
            return False
        except CancelledError:
            if not running.outcome.cancelled():
                raise
            msg = "the service was closed inside the block"
            raise UnknownOutcomeError(msg) from None
        return error is not None

    async def _hold(self, before: Context, entered: Future[Any]) -> None:
        async with self._inner as value:
            now = copy_context()
            changed = [
                (variable, now[variable])
                for variable in now
                if variable.name.startswith(_OURS) and before.get(variable) is not now[variable]
            ]
            self._leave = asyncio.get_running_loop().create_future()
            entered.set_result((value, changed))
            await self._leave

    def _let_go(self, failed: bool) -> None:  # noqa: FBT001 - of one class
        if self._leave is None or self._leave.done():
            return  # it ended by itself: a lock was lost
        if failed:
            self._leave.set_exception(_BodyFailed())
        else:
            self._leave.set_result(None)


def refuse_in_event_loop() -> None:
    """Raise where this thread runs an event loop: blocking would stop it, and all its tasks.

    Raises:
        BlockingCallError: An event loop runs here.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    msg = (
        "a blocking call inside a running event loop would stop it: await the methods of "
        "RedisWorkflowService here, or call from a thread (asyncio.to_thread, sync_to_async)"
    )
    raise BlockingCallError(msg)


async def _awaited(make: Callable[[], Awaitable[T]]) -> T:
    return await make()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
