"""An event loop whose time passes when nothing is left to do now; several processes live in it.

What a process does carries its name in a context variable, which tasks, callbacks and timers
inherit. A frozen process keeps what is ready for it until it goes on, as after SIGSTOP; what is
ready for a killed one is thrown away. Within a process the order of callbacks is asyncio's; which
process is next is decided by dice.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import defaultdict, deque
from contextvars import ContextVar
from typing import Any

#: The process that the current task or callback belongs to; the world outside has no name.
PROCESS: ContextVar[str] = ContextVar("process", default="")
#: Callbacks after which a world that stands still is taken for one that spins.
_MOST_IN_ONE_INSTANT = 200_000


class StandstillError(Exception):
    """Nothing will ever happen again, or what happens takes no time."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module. It uses private parts of asyncio's base loop, unchanged for years."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._now = 0.0
        self._dice = dice
        self._frozen: dict[str, deque[Any]] = {}
        self._dead: set[str] = set()
        self._in_this_instant = 0
        self._ready: Any
        self._scheduled: Any

    def time(self) -> float:
        """Return the virtual time, in seconds from the beginning."""
        return self._now

    def freeze(self, process: str) -> None:
        """SIGSTOP."""
        self._frozen.setdefault(process, deque())

    def thaw(self, process: str) -> None:
        """SIGCONT: all that became ready meanwhile is done now."""
        self._ready.extend(self._frozen.pop(process, ()))

    def kill(self, process: str) -> None:
        """SIGKILL: nothing of it is done any more."""
        self._frozen.pop(process, None)
        self._dead.add(process)

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        """There are no threads."""
        return self.call_soon(callback, *args, context=context)

    def _run_once(self) -> None:
        self._let_time_pass()
        lanes: dict[str, deque[Any]] = defaultdict(deque)
        while self._ready:
            handle = self._ready.popleft()
            lanes[handle._context.get(PROCESS, "")].append(handle)
        self._in_this_instant += sum(map(len, lanes.values()))
        if self._in_this_instant > _MOST_IN_ONE_INSTANT:
            raise StandstillError(f"callbacks without end at {self._now:.3f} s")
        while lanes:
            process = self._dice.choice(list(lanes))
            handle = lanes[process].popleft()
            if not lanes[process]:
                del lanes[process]
            if process in self._dead or handle._cancelled:
                continue
            if process in self._frozen:
                self._frozen[process].append(handle)
                continue
            handle._run()
            if self._stopping:
                self._ready.extendleft(reversed([left for lane in lanes.values() for left in lane]))
                return

    def _let_time_pass(self) -> None:
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not self._ready and not self._stopping:
            if not scheduled:
                raise StandstillError("nothing is left that could happen")
            if scheduled[0]._when > self._now:
                self._now = scheduled[0]._when
                self._in_this_instant = 0
        while scheduled and scheduled[0]._when <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            self._ready.append(handle)
