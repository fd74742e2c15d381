"""The state service for programs without an event loop: the same methods, blocking."""

from __future__ import annotations

import functools
import inspect
import os
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from askel.errors import InvalidOptionError
from askel.state.keys import Keys
from askel.state.service import RedisWorkflowService
from askel.state.sync.loop_thread import BlockingBlock, LoopThread

P = ParamSpec("P")
T = TypeVar("T")


class _Worker:
    """The service of one process, and the thread whose loop it lives on."""

    def __init__(self, service: RedisWorkflowService) -> None:
        self.service = service
        self.thread = LoopThread("askel-sync", service.close)


def _blocking(
    method: Callable[Concatenate[RedisWorkflowService, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncRedisWorkflowService, P], T]:
    """Return the method that waits for *method* and has its signature and documentation."""

    @functools.wraps(method)
    def call(self: SyncRedisWorkflowService, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.call(lambda service: method(service, *args, **kwargs))

    return call


def _blocking_block(
    method: Callable[Concatenate[RedisWorkflowService, P], AbstractAsyncContextManager[T]],
) -> Callable[Concatenate[SyncRedisWorkflowService, P], AbstractContextManager[T]]:
    """Return the method whose ``with`` block is the ``async with`` block of *method*."""

    @functools.wraps(method)
    def block(
        self: SyncRedisWorkflowService, /, *args: P.args, **kwargs: P.kwargs
    ) -> AbstractContextManager[T]:
        here = self._here()
        return BlockingBlock(here.thread, method(here.service, *args, **kwargs))

    return block


def _same_arguments(
    like: Callable[Concatenate[RedisWorkflowService, P], None],
) -> Callable[[Callable[..., None]], Callable[Concatenate[SyncRedisWorkflowService, P], None]]:
    """Give a constructor the signature of *like*."""

    def decorate(
        init: Callable[..., None],
    ) -> Callable[Concatenate[SyncRedisWorkflowService, P], None]:
        return functools.wraps(like)(init)

    return decorate


class SyncRedisWorkflowService:
    """``RedisWorkflowService`` for Django, Flask and scripts: each method waits for its result.

    One event loop in one daemon thread serves every calling thread. It starts with the first call
    and ends with ``close``, with the ``with`` block, or with the process. A forked child gets a
    loop and a connection of its own with its first call, so that one may stand in a module that is
    loaded before a server forks. In a thread that runs an event loop calls raise
    BlockingCallError: await the methods of ``RedisWorkflowService`` there.

    Locks belong to the thread, or rather the context, that took them. A lock that is lost cannot
    interrupt a blocking body: its writes raise LockLostError, and so does leaving it.
    """

    @_same_arguments(RedisWorkflowService.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._make = functools.partial(RedisWorkflowService, *args, **kwargs)
        # By process: a child starts anew, and never touches, or collects, what is the parent's.
        self._workers: dict[int, _Worker] = {os.getpid(): _Worker(self._make())}
        self._closed = False
        self._end = weakref.finalize(self, _close, self._workers)

    def __repr__(self) -> str:
        """Name the prefix, never the credentials."""
        return f"<{type(self).__name__} prefix={self.keys.prefix!r}>"

    def __enter__(self) -> Self:
        """Verify the connection and the server."""
        self.init()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what the service opened."""
        self.close()

    @property
    def keys(self) -> Keys:
        """The keys under the prefix."""
        return self._here().service.keys

    @property
    def queue(self) -> Any:
        """The queue that was given, None in inline mode."""
        return self._here().service.queue

    @property
    def compat(self) -> str | None:
        """Whom the prefix is shared with."""
        return self._here().service.compat

    def call(self, fn: Callable[[RedisWorkflowService], Awaitable[T]]) -> T:
        """Await ``fn(service)`` on the loop and return its result.

        For what has no blocking form of its own, such as
        ``service.call(lambda s: app.start(s, "checkout", order))``.
        """
        here = self._here()
        return here.thread.call(lambda: fn(here.service))

    def close(self) -> None:
        """Close the connection and end the loop and its thread. Repeatable.

        Calls that are under way in other threads are cancelled: they raise UnknownOutcomeError.
        """
        self._closed = True
        self._here().thread.close()

    init = _blocking(RedisWorkflowService.init)
    unconfirmed_since = _blocking(RedisWorkflowService.unconfirmed_since)

    confirm_run = _blocking(RedisWorkflowService.confirm_run)
    create_run = _blocking(RedisWorkflowService.create_run)
    update_run_status = _blocking(RedisWorkflowService.update_run_status)
    delete_run = _blocking(RedisWorkflowService.delete_run)
    get_run = _blocking(RedisWorkflowService.get_run)
    get_run_history = _blocking(RedisWorkflowService.get_run_history)
    get_history_entries = _blocking(RedisWorkflowService.get_history_entries)
    get_run_status = _blocking(RedisWorkflowService.get_run_status)
    get_run_timeline = _blocking(RedisWorkflowService.get_run_timeline)
    reconstruct_run_state_at = _blocking(RedisWorkflowService.reconstruct_run_state_at)
    list_runs = _blocking(RedisWorkflowService.list_runs)
    get_distinct_workflow_names = _blocking(RedisWorkflowService.get_distinct_workflow_names)

    insert_step_state = _blocking(RedisWorkflowService.insert_step_state)
    get_step_state = _blocking(RedisWorkflowService.get_step_state)
    get_run_steps = _blocking(RedisWorkflowService.get_run_steps)
    set_step_scheduled = _blocking(RedisWorkflowService.set_step_scheduled)
    set_step_running = _blocking(RedisWorkflowService.set_step_running)
    set_step_result = _blocking(RedisWorkflowService.set_step_result)
    set_step_error = _blocking(RedisWorkflowService.set_step_error)
    create_retry_attempt = _blocking(RedisWorkflowService.create_retry_attempt)
    set_branch_taken = _blocking(RedisWorkflowService.set_branch_taken)
    set_step_child_run_id = _blocking(RedisWorkflowService.set_step_child_run_id)

    update_run_state = _blocking(RedisWorkflowService.update_run_state)
    get_run_state = _blocking(RedisWorkflowService.get_run_state)
    get_completed_graph_state = _blocking(RedisWorkflowService.get_completed_graph_state)
    get_step_instances = _blocking(RedisWorkflowService.get_step_instances)
    get_node_results = _blocking(RedisWorkflowService.get_node_results)

    upsert_workflow_version = _blocking(RedisWorkflowService.upsert_workflow_version)
    update_workflow_version_status = _blocking(RedisWorkflowService.update_workflow_version_status)
    get_workflow_version = _blocking(RedisWorkflowService.get_workflow_version)

    set_retention = _blocking(RedisWorkflowService.set_retention)
    clear_retention = _blocking(RedisWorkflowService.clear_retention)
    get_retention = _blocking(RedisWorkflowService.get_retention)
    apply_retention = _blocking(RedisWorkflowService.apply_retention)
    reindex = _blocking(RedisWorkflowService.reindex)

    run_lock = _blocking_block(RedisWorkflowService.run_lock)
    step_lock = _blocking_block(RedisWorkflowService.step_lock)
    transaction = _blocking_block(RedisWorkflowService.transaction)

    def with_run_lock(self, run_id: str, fn: Callable[[], T]) -> T:
        """Call ``fn()`` under the run's lock and return its result; see ``run_lock``."""
        with self.run_lock(run_id):
            return _plain(fn())

    def with_step_lock(self, run_id: str, step_name: str, fn: Callable[[], T]) -> T:
        """Call ``fn()`` under the step's lock and return its result; see ``step_lock``."""
        with self.step_lock(run_id, step_name):
            return _plain(fn())

    def _here(self) -> _Worker:
        """Return the worker of this process."""
        pid = os.getpid()
        found = self._workers.get(pid)
        if found is None:
            found = self._workers.setdefault(pid, _Worker(self._make()))
            if self._closed:
                found.thread.close()
        return found


def _close(workers: dict[int, _Worker]) -> None:
    """End the thread of this process, when nobody has the service any more or Python ends."""
    if (worker := workers.get(os.getpid())) is not None:
        worker.thread.close()


def _plain(result: T) -> T:
    """Return *result*, unless it is work that is yet to be awaited: the lock would be gone then."""
    if inspect.iscoroutine(result):
        result.close()
        msg = "fn must be a plain function here: the async service awaits coroutines"
        raise InvalidOptionError(msg)
    return result
