"""The deterministic scheduler of workflow code.

A workflow is a coroutine, and every part of a ``gather`` another. They are driven by hand: each
runs until it awaits an operation, in the order in which they became ready, without any event loop.
So what a workflow does is a function of the order in which its operations are resolved.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task  # documented under "Extending asyncio"
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from askel.errors import WorkflowCodeError
from askel.workflow.context import Gather, Operation

#: Called for an operation that code reaches. Returns its outcome if that is known, else keeps the
#: waiter, which takes (value, error) later.
Waiter = Callable[[Any, BaseException | None], None]
Reach = Callable[[Operation, Waiter], None]


class Fibers:
    """Runs one workflow coroutine and all the coroutines it gathers."""

    def __init__(self, root: Coroutine[Any, Any, Any], reach: Reach) -> None:
        """Prepare *root*; *reach* is told of each step or sleep that code awaits."""
        self._reach = reach
        self._ready: deque[tuple[Coroutine[Any, Any, Any], Waiter, Any, BaseException | None]]
        self._ready = deque()
        self._live: set[Coroutine[Any, Any, Any]] = set()
        self._running = False
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._spawn(root, self._root_done)

    def run(self) -> None:
        """Run everything that is ready until all of it waits."""
        if self._running:  # a resolution that came while running; the loop below takes it
            return
        self._running = True
        hidden = _hide_current_task()
        try:
            while self._ready and not self.done:
                self._step(*self._ready.popleft())
        finally:
            self._running = False
            _show_current_task(hidden)

    def close(self) -> None:
        """Abandon the workflow: its coroutines are closed, their ``finally`` blocks run."""
        self.done = True
        hidden = _hide_current_task()
        for coroutine in list(self._live):
            try:
                coroutine.close()
            except BaseException:  # noqa: BLE001, S112 - user code that resists being closed
                continue
        self._live.clear()
        _show_current_task(hidden)

    def _root_done(self, value: Any, error: BaseException | None) -> None:
        self.done, self.value, self.error = True, value, error

    def _spawn(self, coroutine: Coroutine[Any, Any, Any], waiter: Waiter) -> None:
        self._live.add(coroutine)
        self._ready.append((coroutine, waiter, None, None))

    def _step(
        self,
        coroutine: Coroutine[Any, Any, Any],
        waiter: Waiter,
        value: Any,
        error: BaseException | None,
    ) -> None:
        """Resume *coroutine* with an outcome, until it awaits or ends."""
        try:
            awaited = coroutine.throw(error) if error is not None else coroutine.send(value)
        except StopIteration as stop:
            self._live.discard(coroutine)
            waiter(stop.value, None)
            return
        except BaseException as raised:  # noqa: BLE001 - user code may raise anything
            self._live.discard(coroutine)
            waiter(None, raised)
            return

        def resume(value: Any, error: BaseException | None) -> None:
            self._ready.append((coroutine, waiter, value, error))

        if isinstance(awaited, Gather):
            self._adopt(awaited)
            self._gather(awaited, resume)
        elif isinstance(awaited, Operation):
            self._reach(awaited, resume)
        else:
            msg = (
                "workflow code awaited something other than run.do, run.sleep, run.wait_signal or "
                "run.gather; move that work into a step"
            )
            resume(None, WorkflowCodeError(msg))

    def _adopt(self, gather: Gather) -> None:
        """Take charge of coroutines whose turn may never come: they are to be closed, too."""
        for part in gather.parts:
            if isinstance(part, Gather):
                self._adopt(part)
            elif not isinstance(part, Operation):
                self._live.add(part)

    def _gather(self, gather: Gather, resume: Waiter) -> None:
        """Start the parts in order, as many as may be under way; resume when the last has ended."""
        parts, most = gather.parts, gather.limit or len(gather.parts)
        results: list[Any] = [None] * len(parts)
        errors: dict[int, BaseException] = {}
        started, ended, starting = 0, 0, False

        def go_on() -> None:
            # A part may end before it has been started: what it came to is known in a replay. Then
            # this loop goes on, not another one inside of it.
            nonlocal started, starting
            starting = True
            while started < len(parts) and started - ended < most:
                started += 1
                self._start(parts[started - 1], collect(started - 1))
            starting = False
            if ended == len(parts):
                resume(results, errors[min(errors)] if errors else None)

        def collect(index: int) -> Waiter:
            def collected(value: Any, error: BaseException | None) -> None:
                nonlocal ended
                ended += 1
                results[index] = value
                if error is not None:
                    errors[index] = error
                if not starting:
                    go_on()

            return collected

        go_on()

    def _start(self, part: Operation | Coroutine[Any, Any, Any], waiter: Waiter) -> None:
        if isinstance(part, Gather):
            self._gather(part, waiter)
        elif isinstance(part, Operation):
            self._reach(part, waiter)
        else:
            self._spawn(part, waiter)


def _hide_current_task() -> asyncio.Task[Any] | None:
    """Let workflow code find no current task: ``asyncio.timeout`` and the like fail there at once.

    They would seize the task of whoever drives the workflow, and cancel that.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop is running: replay needs none
        return None
    if task is not None:
        _leave_task(task.get_loop(), task)
    return task


def _show_current_task(task: asyncio.Task[Any] | None) -> None:
    if task is not None:
        _enter_task(task.get_loop(), task)
