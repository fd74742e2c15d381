"""Executing one attempt: the handler is called, and whatever it does becomes an outcome.

A handler may return, raise anything at all, be too slow, or return what JSON cannot carry. Only a
cancellation from outside passes through.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import anyio

from askel.durations import duration_text
from askel.errors import PayloadError, SealedPayloadError, TamperedPayloadError
from askel.state import SerializedError
from askel.state.codec import PLAIN, Codec, serialize_error
from askel.workflow.app import StepDefinition
from askel.workflow.attempts import LocalAttempt, Outcome
from askel.workflow.context import StepContext

#: Threads in which handlers that are not async are executed.
DEFAULT_THREADS = 40
#: What the names of those threads begin with.
THREAD_NAME = "askel-step"
#: How long a handler may take to end when it is cancelled, in seconds.
DEFAULT_GRACE_S = 2.0
_STACK_FRAMES = 20

#: What a handler returned, or what it raised.
Ending = tuple[Any, BaseException | None]


class Executor:
    """Calls handlers: coroutines in a task of their own, plain functions in a pool of threads.

    A handler that does not end when it is cancelled is given up: whoever executes it goes on.
    """

    def __init__(
        self,
        *,
        threads: int = DEFAULT_THREADS,
        grace_s: float = DEFAULT_GRACE_S,
        reach: Callable[[str], None] | None = None,
        codec: Codec = PLAIN,
    ) -> None:
        """Bound the threads; payloads are read and written by *codec*.

        *grace_s* is how long a handler may take to end when it is cancelled. *reach* is told
        before and after each handler, by tests.
        """
        # Not anyio's threads: those count as free when the waiting is cancelled, however long the
        # handler still blocks.
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=THREAD_NAME)
        self._grace_s = grace_s
        self._reach = reach
        self._codec = codec
        self._lost_threads: set[Future[Any]] = set()
        self._lost_tasks: set[asyncio.Task[Any]] = set()

    @property
    def lost_threads(self) -> int:
        """How many threads still execute what was given up."""
        return len(self._lost_threads)

    @property
    def lost_tasks(self) -> int:
        """How many tasks go on although they were given up."""
        return len(self._lost_tasks)

    def close(self) -> None:
        """Begin nothing more in threads; handlers that still block are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def gave_up(self, attempt: LocalAttempt) -> None:
        """Tell that the handler of *attempt* goes on although its attempt is over."""

    async def execute(self, attempt: LocalAttempt) -> Outcome:
        """Execute *attempt* and return how it ended.

        Raises:
            Cancelled: The caller was cancelled. Nothing else leaves this method.
        """
        if self._reach is not None:
            self._reach("before_handler")
        outcome = await self._guarded(attempt)
        if self._reach is not None:
            self._reach("after_handler")
        return outcome

    async def _guarded(self, attempt: LocalAttempt) -> Outcome:
        definition, codec = attempt.definition, self._codec
        try:
            arguments, named = _arguments(definition, attempt, codec)
        except (SealedPayloadError, TamperedPayloadError) as error:
            return failure(error, codec=codec)  # another worker may have the right key
        except PayloadError as error:
            return failure(error, permanent=True, codec=codec)
        # A task of its own: what a handler does to its task, it does to no other; and it can be
        # left behind.
        task = asyncio.create_task(self._call(attempt, arguments, named))
        limit_s = None if attempt.timeout_ms is None else attempt.timeout_ms / 1_000
        try:
            in_time = await _has_ended(task, limit_s)
            if not in_time:
                await self._stop(task, attempt)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._stop(task, attempt)
            raise
        result, raised = _result_of(task)
        if not in_time and isinstance(raised, asyncio.CancelledError):
            said = f"the attempt took longer than {duration_text(attempt.timeout_ms or 0)}"
            if not task.done():
                said += ", and its handler did not end when it was cancelled"
            return failure(TimeoutError(said), codec=codec)
        if isinstance(raised, asyncio.CancelledError):
            return failure(raised, message="the handler was cancelled from within", codec=codec)
        if raised is not None:
            return failure(raised, codec=codec)
        try:
            return Outcome(codec.encode(result))
        except PayloadError as error:
            return failure(error, permanent=True, codec=codec)

    async def _stop(self, task: asyncio.Task[Any], attempt: LocalAttempt) -> None:
        """Cancel *task*, twice if need be; when its grace is over, leave it behind."""
        for _ in range(2):
            # The second time for those that take the first one for an error of what they awaited.
            task.cancel()
            if await _has_ended(task, self._grace_s / 2):
                return
        self._lost_tasks.add(task)  # the loop itself keeps no task alive
        task.add_done_callback(self._lost_tasks.discard)
        self.gave_up(attempt)

    async def _call(
        self, attempt: LocalAttempt, arguments: list[Any], named: dict[str, Any]
    ) -> Ending:
        """Call the handler; whatever it raises is returned, so that no loop or group sees it."""
        definition = attempt.definition
        try:
            if definition.is_async:
                return await definition.fn(*arguments, **named), None
            result, raised = await self._in_thread(attempt, arguments, named)
            # A decorator, or an object that is called, may hide that the handler is async.
            return (await result if inspect.iscoroutine(result) else result), raised
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything
            return None, error

    async def _in_thread(
        self, attempt: LocalAttempt, arguments: list[Any], named: dict[str, Any]
    ) -> Ending:
        def call() -> Ending:
            # What crosses from the thread is a value: a StopIteration cannot, as an exception.
            try:
                return attempt.definition.fn(*arguments, **named), None
            except BaseException as error:  # noqa: BLE001 - a handler may raise anything
                return None, error

        executed = self._threads.submit(contextvars.copy_context().run, call)
        try:
            return await asyncio.wrap_future(executed)
        except asyncio.CancelledError:
            if not executed.done():  # no thread can be stopped
                self._lost_threads.add(executed)
                executed.add_done_callback(self._lost_threads.discard)
                self.gave_up(attempt)
            raise


async def _has_ended(task: asyncio.Task[Any], limit_s: float | None) -> bool:
    """Wait until *task* has ended, or for *limit_s*; tell whether it has ended.

    Unlike awaiting the task, that can be cancelled although the task cannot.
    """
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    task.add_done_callback(wake)
    timer = None if limit_s is None else loop.call_later(limit_s, wake)
    try:
        await waiter
    finally:
        task.remove_done_callback(wake)
        if timer is not None:
            timer.cancel()
    return task.done()


def _result_of(task: asyncio.Task[Ending]) -> Ending:
    """Return what the handler returned or raised; one that goes on was cancelled in vain."""
    if not task.done() or task.cancelled():  # it may cancel its task and return before that bites
        return None, asyncio.CancelledError()
    return task.result()


def failure(
    error: BaseException,
    *,
    permanent: bool = False,
    message: str | None = None,
    codec: Codec = PLAIN,
) -> Outcome:
    """Return the outcome of an attempt that failed with *error*."""
    stored = serialize_error(error, stack=_stack_of(error))
    if message is not None:
        stored = SerializedError(message, stored.stack, stored.code, stored.name)
    return Outcome(codec.encode(stored), stored, permanent)


def _stack_of(error: BaseException) -> str | None:
    try:
        shown = traceback.TracebackException.from_exception(
            error, limit=-_STACK_FRAMES, compact=True
        )
        # The frames of this module tell the user nothing.
        shown.stack = traceback.StackSummary.from_list(
            [frame for frame in shown.stack if frame.filename != __file__]
        )
        return "".join(shown.format())
    except BaseException:  # noqa: BLE001 - showing an error runs its own code, which may be broken
        return None


def _arguments(
    definition: StepDefinition, attempt: LocalAttempt, codec: Codec
) -> tuple[list[Any], dict[str, Any]]:
    arguments = []
    if definition.takes_data:
        arguments.append(codec.convert(attempt.data, definition.data_type))
    if definition.context_name is None:
        return arguments, {}
    context = StepContext(attempt.run_id, attempt.key, attempt.attempt)
    return arguments, {definition.context_name: context}
