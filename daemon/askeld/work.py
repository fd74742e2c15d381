"""The work in hand: a task for each entry, bounded in number."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio
from anyio.abc import TaskGroup

from askel.state import Entry
from askeld.renewal import Held, Leases

#: How many entries may wait without counting: a bound on what one process remembers.
MOST_WAITING = 10_000


class Work:
    """Begins a task for each entry, and holds the entry until the task has ended."""

    def __init__(self, leases: Leases, limit: int) -> None:
        """Work on at most *limit* entries at a time, not counting runs that only wait."""
        self._leases = leases
        self._limit = limit
        self._idle = 0
        self._paused = False
        self._group: TaskGroup | None = None
        self._handle: Callable[[Held], Awaitable[None]] | None = None
        self._changed = anyio.Event()

    def open(self, group: TaskGroup, handle: Callable[[Held], Awaitable[None]]) -> None:
        """From now on begin tasks in *group* that *handle* entries."""
        self._group = group
        self._handle = handle

    @property
    def room(self) -> int:
        """How many more entries may be begun."""
        if self._paused:
            return 0
        return self._limit - len(self._leases) + min(self._idle, MOST_WAITING)

    @property
    def is_paused(self) -> bool:
        """Whether nothing more is begun because the store is in trouble."""
        return self._paused

    def pause(self, is_paused: bool) -> None:  # noqa: FBT001 - what it is called with, is told
        """Begin nothing more while *is_paused*; what is in work goes on."""
        self._paused = is_paused
        self._tell()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Do not count the entry that only waits inside."""
        self.idle(is_idle=True)
        try:
            yield
        finally:
            self.idle(is_idle=False)

    def idle(self, *, is_idle: bool) -> None:
        """Take it that a run in hand began (or ceased) to wait without work of its own."""
        self._idle += 1 if is_idle else -1
        self._tell()

    def is_new(self, entry: Entry) -> bool:
        """Tell whether *entry* is not being worked on here."""
        return entry not in self._leases

    def begin(self, entry: Entry, admit: Callable[[Held], Awaitable[bool]] | None = None) -> None:
        """Begin work on *entry*, if and when *admit* says so; it is held from now on."""
        assert self._group is not None
        self._group.start_soon(self._work_on, self._leases.hold(entry), admit)

    async def wait_for_room(self) -> None:
        """Return when at least one more entry may be begun."""
        while self.room <= 0:
            await self._wait_for_change()

    async def wait_until_done(self) -> None:
        """Return when no entry is being worked on."""
        while len(self._leases):
            await self._wait_for_change()

    async def _wait_for_change(self) -> None:
        await self._changed.wait()

    def _tell(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def _work_on(self, held: Held, admit: Callable[[Held], Awaitable[bool]] | None) -> None:
        assert self._handle is not None
        try:
            if admit is None or await admit(held):
                await self._handle(held)
        finally:
            if held.progress is not None:
                held.progress()
            self._leases.release(held)
            self._tell()
