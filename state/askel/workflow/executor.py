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
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio

from askel.durations import duration_text
from askel.errors import PayloadError, SealedPayloadError, TamperedPayloadError
from askel.state import SerializedError
from askel.state.codec import PLAIN, Codec, serialize_error
from askel.workflow.activation import LocalAttempt, Outcome
from askel.workflow.app import StepDefinition
from askel.workflow.context import StepContext

#: Threads in which handlers that are not async are executed.
DEFAULT_THREADS = 40
#: What the names of those threads begin with.
THREAD_NAME = "askel-step"
_STACK_FRAMES = 20


class Executor:
    """Calls handlers: coroutines here, plain functions in a bounded pool of threads."""

    def __init__(
        self,
        *,
        threads: int = DEFAULT_THREADS,
        reach: Callable[[str], None] | None = None,
        codec: Codec = PLAIN,
    ) -> None:
        """Bound the threads; payloads are read and written by *codec*.

        *reach* is told before and after each handler, by tests.
        """
        # Not anyio's threads: those count as free when the waiting is cancelled, however long the
        # handler still blocks.
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=THREAD_NAME)
        self._reach = reach
        self._codec = codec

    def close(self) -> None:
        """Begin nothing more in threads; handlers that still block are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

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
        limit_s = None if attempt.timeout_ms is None else attempt.timeout_ms / 1_000
        try:
            with anyio.move_on_after(limit_s) as scope:
                result = await self._call(definition, arguments, named)
            if _is_cancelled():  # it cancelled its own task, and returned before that took effect
                await asyncio.sleep(0)
        except anyio.get_cancelled_exc_class() as error:
            if anyio.current_effective_deadline() == float("-inf"):
                raise  # the cancellation is the caller's
            await _forget_cancellation()
            return failure(error, message="the handler was cancelled from within", codec=codec)
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything
            return failure(error, codec=codec)
        if scope.cancelled_caught:
            limit = duration_text(attempt.timeout_ms or 0)
            return failure(TimeoutError(f"the attempt took longer than {limit}"), codec=codec)
        try:
            return Outcome(codec.encode(result))
        except PayloadError as error:
            return failure(error, permanent=True, codec=codec)

    async def _call(
        self, definition: StepDefinition, arguments: list[Any], named: dict[str, Any]
    ) -> Any:
        if definition.is_async:
            return await definition.fn(*arguments, **named)

        def call() -> tuple[Any, BaseException | None]:
            # What crosses from the thread is a value: a StopIteration cannot, as an exception.
            try:
                return definition.fn(*arguments, **named), None
            except BaseException as error:  # noqa: BLE001 - raised again in the loop
                return None, error

        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        result, error = await loop.run_in_executor(self._threads, context.run, call)
        if error is not None:
            raise error
        # A decorator, or an object that is called, may hide that the handler is async.
        return await result if inspect.iscoroutine(result) else result


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


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _forget_cancellation() -> None:
    """Undo every ``task.cancel()`` that a handler called on its own task, delivered or not."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            continue
