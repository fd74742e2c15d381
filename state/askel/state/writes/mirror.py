"""The run mirror: an observer that is told of each write after it landed.

Its failures never matter: whatever it raises is logged and swallowed, and however slow it is, a
write waits for it no longer than a bound. A write that failed is not told. A call that found its
write done already (a repetition, or another try after a lost reply) is told: so a mirror hears of
every write at least once, unless the process ends in between, and must take a repetition.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from askel.errors import InvalidOptionError
from askel.state.models import RunStatus, SerializedError, StepState

_log = logging.getLogger("askel.mirror")

#: How long a write waits for its mirror, in seconds.
DEFAULT_MIRROR_S = 1.0
# Calls of synchronous mirrors at a time; one that hangs keeps its place.
_THREADS = 4


class RunMirror:
    """What a mirror may be told; override what is wanted, as ``def`` or ``async def``.

    A mirror need not derive from this class: a method that it lacks is not called. Async methods
    run in the loop of the caller, others in a thread. The methods of one caller are called in the
    order of its writes. Values are those that the caller gave or got, and are not to be changed.
    """

    def create_run(
        self,
        run_id: str,
        workflow_name: str,
        input: Any,
        *,
        inline: bool,
        graph_hash: str | None,
        wire: Any,
        deterministic: bool,
        planned_steps: Any,
    ) -> Any:
        """A run exists."""

    def update_run_status(
        self, run_id: str, status: RunStatus, output: Any, error: SerializedError | None
    ) -> Any:
        """A run has *status*; *output* is ``UNSET`` when none was given."""

    def insert_step_state(self, run_id: str, step: StepState) -> Any:
        """A step exists."""

    def set_step_running(self, step_id: str) -> Any:
        """A step runs."""

    def set_step_scheduled(self, step_id: str) -> Any:
        """A step is scheduled."""

    def set_step_result(self, step_id: str, result: Any) -> Any:
        """A step has succeeded."""

    def set_step_child_run_id(self, step_id: str, child_run_id: str) -> Any:
        """A step has started another run."""

    def set_step_error(self, step_id: str, error: SerializedError) -> Any:
        """An attempt of a step has failed."""

    def create_retry_attempt(self, step_id: str, step: StepState | None) -> Any:
        """A failed step has a new attempt; *step* is the step as it stands since.

        It is None in a transaction that was found done already.
        """

    def set_branch_taken(self, step_id: str, branch_key: str) -> Any:
        """A step has chosen a branch."""

    def update_run_state(self, run_id: str, name: str, value: Any) -> Any:
        """A variable of a run has a value."""

    def upsert_workflow_version(
        self, workflow_name: str, graph_hash: str, graph: Any, source: str, status: str
    ) -> Any:
        """A workflow has a definition under this hash."""

    def update_workflow_version_status(
        self, workflow_name: str, graph_hash: str, status: str
    ) -> Any:
        """A stored definition has *status*."""


class MirrorTeller:
    """Tells a mirror, if there is one, within a bound and whatever becomes of it."""

    def __init__(self, mirror: Any = None, *, timeout_s: float = DEFAULT_MIRROR_S) -> None:
        """Tell *mirror*; a write waits at most *timeout_s* for it."""
        if issubclass(type(mirror), type):  # without running code of the mirror
            msg = f"mirror must be an object: give {mirror.__name__}(…), not the class"
            raise InvalidOptionError(msg)
        self._mirror = mirror
        self._timeout_s = timeout_s
        self._places: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None
        self._tasks: set[asyncio.Task[BaseException | None]] = set()

    @property
    def is_told(self) -> bool:
        """Whether there is a mirror."""
        return self._mirror is not None

    async def tell(self, method: str, subject: str, *args: Any, **named: Any) -> None:
        """Call *method* of the mirror about the run, step or workflow *subject*.

        Raises:
            CancelledError: The caller was cancelled, not the mirror.
            KeyboardInterrupt: Whoever interrupts the program means all of it.
        """
        if self._mirror is None:
            return
        # In a task of its own: a cancellation or a SystemExit of the mirror's making ends there.
        task = asyncio.create_task(self._call(method, (subject, *args), named))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.wait({task}, timeout=self._timeout_s)
        finally:
            is_late = task.cancel()
        if is_late:
            _warn(method, subject, f"no answer within {self._timeout_s} s")
        elif task.cancelled():
            _warn(method, subject, "it was cancelled")
        elif (error := task.result()) is not None:
            # No more than the kind: a message may carry a payload.
            _warn(method, subject, type(error).__name__)

    async def _call(
        self, method: str, args: tuple[Any, ...], named: dict[str, Any]
    ) -> BaseException | None:
        """Call the mirror; return what it raised."""
        try:
            call = getattr(self._mirror, method, None)
            if call is None:
                return None
            answer: Any
            if inspect.iscoroutinefunction(call):
                answer = call(*args, **named)
            else:
                answer = await self._in_thread(lambda: call(*args, **named))
            if inspect.isawaitable(answer):
                await answer
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - not even a SystemExit of a mirror matters
            return error
        return None

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        """Return what *call* returns, which may block; a caller that waits no longer leaves it.

        A call that hangs keeps its place: threads do not heap up, and none hinders the end of
        the program.
        """
        loop = asyncio.get_running_loop()
        if self._places is None or self._places[0] is not loop:
            self._places = loop, asyncio.Semaphore(_THREADS)
        places = self._places[1]
        await places.acquire()
        answered: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

        def settle(answer: Any, error: BaseException | None) -> None:
            places.release()
            if not answered.done():
                answered.set_result((answer, error))

        def work() -> None:
            outcome: tuple[Any, BaseException | None]
            try:
                outcome = call(), None
            except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
                outcome = None, error
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, *outcome)

        try:
            target = contextvars.copy_context().run
            threading.Thread(target=target, args=(work,), name="askel-mirror", daemon=True).start()
        except BaseException:
            places.release()
            raise
        result, error = await answered
        if error is not None:
            raise error
        return result


def _warn(method: str, subject: str, why: str) -> None:
    try:
        _log.warning("the run mirror failed at %s of %r: %s", method, subject, why)
    except Exception:  # noqa: BLE001 - a handler that fails matters as little as the mirror
        return
