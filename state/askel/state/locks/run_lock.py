"""The locks of a run and of its steps: taken with a fence, renewed while held, lost loudly.

A holder proves itself by its value, compared for equality inside every script that writes under
the run lock; the local deadline only saves it from working in vain. No write is compared with a
step lock: what fences a step is the state machine of its attempts.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

import anyio

from askel.errors import (
    LockLostError,
    LockNotAcquiredError,
    NestedLockError,
    RunNotFoundError,
    StepNotFoundError,
    StoreError,
    UnknownOutcomeError,
)

if TYPE_CHECKING:
    from askel.state.keys import Keys
    from askel.state.store.scripts import Scripts

#: The numbers of the original: lease, tries and pause between them.
DEFAULT_TTL_MS = 30_000
DEFAULT_WAIT_S = 1.0
_PAUSE_S = 0.1
_RELEASE_S = 1.0
# The local deadline stands this much before the lease's end, for clocks that run at unlike speed.
_MARGIN = 0.9

_held: ContextVar[dict[tuple[int, str], RunLock]] = ContextVar("askel_held_locks")


class RunLock:
    """A held lock of a run, or of one of its steps.

    Attributes:
        run_id: The run.
        step_name: The step whose lock it is; None for the lock of the run.
        fence: Strictly greater than that of every earlier holder of this lock. Pass it to other
            systems, and have them refuse a smaller one.
    """

    __slots__ = ("_lost", "_released", "fence", "holder", "run_id", "step_name")

    def __init__(self, run_id: str, holder: str, fence: int, step_name: str | None = None) -> None:
        """Describe the lock that *holder* was given."""
        self.run_id = run_id
        self.step_name = step_name
        self.holder = holder
        self.fence = fence
        self._lost = False
        self._released = False

    @property
    def released(self) -> bool:
        """Whether the body is over: a task that it started may take the lock anew."""
        return self._released

    def mark_released(self) -> None:
        """Remember that the body is over."""
        self._released = True

    @property
    def lost(self) -> bool:
        """Whether the lease ran out, or somebody removed the lock."""
        return self._lost

    def mark_lost(self) -> None:
        """Remember that the lock is gone."""
        self._lost = True


def holder_for(owner: object, run_id: str) -> str:
    """Return the value of the lock under which this task writes to the run; empty without one.

    Raises:
        LockLostError: The task's lock is known to be lost.
    """
    held = _held.get(None)
    lock = held and held.get((id(owner), run_id))
    if not lock:
        return ""
    if lock.lost or lock.released:
        raise LockLostError(run_id)
    return lock.holder


@asynccontextmanager
async def hold_run_lock(
    owner: object,
    scripts: Scripts,
    keys: Keys,
    run_id: str,
    holder: str,
    *,
    step_name: str | None = None,
    ttl_ms: int = DEFAULT_TTL_MS,
    wait_s: float = DEFAULT_WAIT_S,
) -> AsyncIterator[RunLock]:
    """Hold the lock of *run_id*, or of its step *step_name*, for the body, renewing it.

    Raises:
        RunNotFoundError, StepNotFoundError: There is nothing to be locked.
        NestedLockError: This task, or the one that started it, holds it already.
        LockNotAcquiredError: It was held by another for *wait_s*.
        LockLostError: It was lost while the body ran; the body was cancelled.
    """
    held = _held.get({})
    # A run id has no colon, so that the two kinds of locks, and all steps, are told apart.
    key = (id(owner), run_id if step_name is None else f"{run_id}:{step_name}")
    if key in held and not held[key].released:
        raise NestedLockError(run_id, step_name)
    lock = RunLock(run_id, holder, 0, step_name)
    names = _keys_of(keys, lock)
    sent_at = await _acquire(scripts, names, lock, ttl_ms, wait_s)
    reset = _held.set({**held, key: lock})
    failure: BaseException | None = None
    try:
        async with anyio.create_task_group() as tg:
            tg.start_soon(_keep, scripts, names[2], lock, ttl_ms, sent_at, tg.cancel_scope)
            try:
                yield lock
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # noqa: BLE001 - raised again below, outside the group
                failure = error
            tg.cancel_scope.cancel()
    finally:
        lock.mark_released()
        if not lock.lost:
            await _release(scripts, names, lock)
        with suppress(ValueError):  # left in another context than it was entered in
            _held.reset(reset)
    if failure is not None:
        raise failure
    if lock.lost:
        raise LockLostError(run_id, step_name)


def _keys_of(keys: Keys, lock: RunLock) -> list[str]:
    """Return what must exist for *lock*, the run's ctl hash, and the key of the lock."""
    run_id, step = lock.run_id, lock.step_name
    if step is None:
        return [keys.run(run_id), keys.ctl(run_id), keys.lock(run_id)]
    return [keys.step(run_id, step), keys.ctl(run_id), keys.step_lock(run_id, step)]


async def _acquire(
    scripts: Scripts, names: list[str], lock: RunLock, ttl_ms: int, wait_s: float
) -> float:
    """Acquire *lock*, give it its fence, and return when the call that got it was sent."""
    longest_ms = max(ttl_ms, DEFAULT_TTL_MS) * 2
    started = anyio.current_time()
    while True:
        sent_at = anyio.current_time()
        try:
            answer, _ = await scripts.insist(
                "acquire_lock", names, [lock.holder, ttl_ms, longest_ms], patience_s=wait_s
            )
        except (UnknownOutcomeError, anyio.get_cancelled_exc_class()):
            await _release(scripts, names, lock)  # it may have been taken, and nobody would hold it
            raise
        if answer[0] == b"OK":
            lock.fence = int(answer[1])
            return sent_at
        if answer[0] == b"NOTFOUND":
            if lock.step_name is None:
                raise RunNotFoundError(lock.run_id)
            raise StepNotFoundError(lock.run_id, lock.step_name)
        if answer[0] == b"RELEASED":
            raise LockLostError(lock.run_id, lock.step_name)
        waited = anyio.current_time() - started
        if waited >= wait_s:
            raise LockNotAcquiredError(lock.run_id, waited, lock.step_name)
        # A little apart from the other contenders; this is no secret.
        pause = min(_PAUSE_S, max(answer[1], 1) / 1_000) * random.uniform(0.8, 1.2)  # noqa: S311
        await anyio.sleep(min(pause, wait_s - waited + 0.001))


async def _keep(
    scripts: Scripts,
    key: str,
    lock: RunLock,
    ttl_ms: int,
    sent_at: float,
    scope: anyio.CancelScope,
) -> None:
    """Renew *lock* every third of its lease; at the local deadline cancel *scope*."""
    lease_s = ttl_ms / 1_000
    asked_at = sent_at
    while True:
        deadline = sent_at + lease_s * _MARGIN
        await anyio.sleep_until(min(asked_at + lease_s / 3, deadline))
        asked_at = anyio.current_time()
        kept = False
        with anyio.move_on_after(deadline - asked_at):
            try:
                answer, _ = await scripts.insist(
                    "renew_lock", [key], [lock.holder, ttl_ms], patience_s=None
                )
                kept = answer[0] == b"OK"
            except StoreError:
                if asked_at < deadline:
                    continue  # asked again until the deadline decides
        if not kept:
            lock.mark_lost()
            scope.cancel()
            return
        sent_at = asked_at


async def _release(scripts: Scripts, names: list[str], lock: RunLock) -> None:
    """Give the lock back; what goes wrong here never replaces the outcome of the body."""
    with anyio.move_on_after(_RELEASE_S, shield=True):
        try:
            await scripts.run("release_lock", [names[1], names[2]], [lock.holder])
        except StoreError:
            return  # it expires by itself
