"""Locks of single steps: one executor of a step at a time, whatever the rest of its run does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from askel.durations import Duration, duration_ms
from askel.names import check_name, check_run_id
from askel.state.ids import IdSource
from askel.state.keys import Keys
from askel.state.locks.run_lock import DEFAULT_TTL_MS, DEFAULT_WAIT_S, RunLock, hold_run_lock
from askel.state.store.scripts import Scripts

T = TypeVar("T")


class StepLocks:
    """The step lock of the service, with the protocol of the run lock.

    It excludes other holders of the same step's lock, the Node service's among them, and nothing
    else. Writes made inside are not compared with it: that a step does not move twice is held by
    the state machine of its attempts. It may be taken inside a run lock or around one; take both
    in one order everywhere, or two callers wait for each other until one gives up.
    """

    keys: Keys
    ids: IdSource
    scripts: Scripts

    def step_lock(
        self,
        run_id: str,
        step_name: str,
        *,
        ttl: Duration | None = None,
        wait: Duration | None = None,
    ) -> AbstractAsyncContextManager[RunLock]:
        """Hold the lock of one step for an ``async with`` body.

        Args:
            run_id: The run.
            step_name: The step, which must exist.
            ttl: The lease, renewed while the body runs; 30 s by default.
            wait: How long to wait for another holder; 1 s (10 tries) by default.

        Raises:
            StepNotFoundError, NestedLockError, LockNotAcquiredError: On entering.
            LockLostError: The lock was lost while the body ran; the body was cancelled.
        """
        return hold_run_lock(
            self,
            self.scripts,
            self.keys,
            check_run_id(run_id),
            self.ids.nonce(),
            step_name=check_name(step_name),
            ttl_ms=DEFAULT_TTL_MS if ttl is None else max(duration_ms(ttl), 1),
            wait_s=DEFAULT_WAIT_S if wait is None else duration_ms(wait) / 1_000,
        )

    async def with_step_lock(
        self, run_id: str, step_name: str, fn: Callable[[], Awaitable[T]]
    ) -> T:
        """Await ``fn()`` under the step's lock and return its result; see ``step_lock``."""
        async with self.step_lock(run_id, step_name):
            return await fn()
