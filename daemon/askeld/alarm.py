"""Waking the timer loop when this process arms a timer that is due sooner than it expects."""

from __future__ import annotations

import anyio


class TimerAlarm:
    """Holds the moment at which the timer loop should look again."""

    def __init__(self) -> None:
        """Nothing is expected yet."""
        self._due = float("inf")
        self._sooner = anyio.Event()

    def set(self, delay_ms: int) -> None:
        """Expect a timer in *delay_ms*."""
        due = anyio.current_time() + delay_ms / 1_000
        if due < self._due:
            self._due = due
            self._sooner.set()

    async def wait(self, longest_s: float) -> None:
        """Return when a timer may be due, at the latest after *longest_s*."""
        end = anyio.current_time() + longest_s
        while (left := min(self._due, end) - anyio.current_time()) > 0:
            self._sooner = anyio.Event()
            with anyio.move_on_after(left):
                await self._sooner.wait()
        self._due = float("inf")
