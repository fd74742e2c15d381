"""Faults of worker processes: killed, killed at a point, stopped for longer than their leases."""

from __future__ import annotations

import random
import signal
from collections import Counter

import anyio

from askeld.torture.workers import Worker, Workers

_PAUSE_S = 0.005
_AWAIT = "await"
#: How long a doomed worker may take to come by its point.
_DOOM_S = 2.0
_MOST_TRIES = 6
#: At a named point: some are rare, as those of timers.
_MOST_TRIES_NAMED = 20
#: After how many awaits doomed workers die: powers of ten. A start takes about a hundred.
_MAGNITUDES = (1.3, 3.0)
#: Just before a worker sends what its runs and handlers have done.
_WRITES = ("before_turn", "before_complete")
#: How long a worker that woke up is left alone, so that it can say what it has to say.
_TALK_S = 0.3


class Kill9:
    """SIGKILL at any moment; another worker is hired in its place."""

    name = "kill9"

    def __init__(self, workers: Workers) -> None:
        """Kill *workers*."""
        self._workers = workers
        self.bites = 0
        self.over_at: list[int] = []

    async def strike(self, dice: random.Random) -> None:
        """Kill one that is at work."""
        while True:
            worker = await take_victim(self._workers, dice)
            if await self._workers.kill(worker, self.name):
                break
        self.bites += 1
        assert worker.killed_at is not None
        self.over_at.append(worker.killed_at)
        await self._workers.balance()


class Failpoint:
    """Death at a chosen point: before or after a script, or at any await whatever.

    Half of the strikes name one of *points*, each in its turn; half count awaits. ``planned`` is
    how often each was named.
    """

    name = "failpoint"

    def __init__(self, workers: Workers, points: tuple[str, ...]) -> None:
        """Hire *workers* that are doomed to die at one of *points*, or at an await."""
        self._workers = workers
        self._points = points
        self._turn = 0
        self._first: int | None = None
        self.planned: Counter[str] = Counter()
        self.bites = 0
        self.over_at: list[int] = []

    async def strike(self, dice: random.Random) -> None:
        """Hire one worker more, and see it die at its point."""
        point, nth = self._next(dice)
        for _ in range(_MOST_TRIES if point == _AWAIT else _MOST_TRIES_NAMED):
            worker = await self._workers.hire(f"{point}:{nth}")
            with anyio.move_on_after(_DOOM_S):
                await worker.dead.wait()
            if worker.dead.is_set() and worker.killed_at is not None:
                self.bites += 1
                self.over_at.append(worker.killed_at)
                return
            await self._workers.kill(worker)  # it did not come by
            nth = max(nth // 3, 1)

    def _next(self, dice: random.Random) -> tuple[str, int]:
        self._turn += 1
        if self._turn % 2:
            return _AWAIT, round(10 ** dice.uniform(*_MAGNITUDES))
        if self._first is None:  # runs of few strikes take up others by other seeds
            self._first = dice.randrange(len(self._points))
        point = self._points[(self._first + self._turn // 2) % len(self._points)]
        self.planned[point] += 1
        return point, dice.randint(1, 3)


class SigStop:
    """SIGSTOP for longer than the lease, SIGCONT, and time to speak for who has been robbed.

    Half of the strikes stop one that is at work, wherever it is; half stop one at the moment in
    which it sends what it has done, so that it does send it when it wakes.
    """

    name = "sigstop"

    def __init__(self, workers: Workers, lease_s: float) -> None:
        """Stop *workers* for two to four times *lease_s*."""
        self._workers = workers
        self._lease_s = lease_s
        self._turn = 0
        self.bites = 0
        self.over_at: list[int] = []

    async def strike(self, dice: random.Random) -> None:
        """Stop one, and let it live to wake; another, if it ended before (Redis may be away)."""
        for _ in range(_MOST_TRIES):
            if await self._stop_one(dice):
                break

    async def _stop_one(self, dice: random.Random) -> bool:
        self._turn += 1
        worker = await (self._stop_any(dice) if self._turn % 2 else self._stop_at_a_write(dice))
        stopped_at = self._workers.silence(worker, self.name)
        await self._workers.balance()
        await anyio.sleep(self._lease_s * dice.uniform(2, 4))
        self._workers.wake(worker)
        await anyio.sleep(_TALK_S)
        has_woken = not worker.dead.is_set()
        if has_woken:
            self.bites += 1
            self.over_at.append(stopped_at)
        worker.is_stopped = worker.is_spared = False
        worker.failpoint = ""
        await self._workers.balance()
        return has_woken

    async def _stop_any(self, dice: random.Random) -> Worker:
        worker = await take_victim(self._workers, dice)
        worker.is_stopped = True
        worker.signal(signal.SIGSTOP)
        return worker

    async def _stop_at_a_write(self, dice: random.Random) -> Worker:
        """Hire one that stops itself; one that comes by no write is stopped where it is."""
        worker = await self._workers.hire(f"{dice.choice(_WRITES)}:{dice.randint(1, 3)}:stop")
        with anyio.move_on_after(_DOOM_S):
            await worker.stopped_itself.wait()
        worker.is_stopped = True
        worker.signal(signal.SIGSTOP)
        return worker


async def take_victim(workers: Workers, dice: random.Random) -> Worker:
    """Return a worker that may be harmed, as soon as there is one; it is the caller's alone."""
    while True:
        victims = workers.victims()
        if victims:
            victim = dice.choice(victims)
            victim.is_spared = True
            return victim
        await anyio.sleep(_PAUSE_S)
