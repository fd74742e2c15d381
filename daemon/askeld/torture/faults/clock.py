"""The wall clock of the server's host jumps: an hour on, two hours back."""

from __future__ import annotations

import random
import time

import anyio

from askeld.torture.server import TortureServer

#: Where the clock may be, in seconds from the true time. From one to another it jumps.
PLACES_S = (0, 3_600, -3_600)
_LONGEST_S = 1.5
_CLOSE_S = 60.0


class ClockJump:
    """Moves the server's clock by an hour or two, and leaves it there for a moment.

    ``at_s`` is where it is. At the end of a run `end` takes it to the latest time that it ever
    showed: timers that were set in the future then become due, instead of in an hour.
    """

    name = "clock"

    def __init__(self, server: TortureServer) -> None:
        """Move the clock of *server*."""
        self._server = server
        self.at_s = 0
        self._latest_s = 0
        self.bites = 0
        self.over_at: list[int] = []

    async def strike(self, dice: random.Random) -> None:
        """Jump somewhere else; bites if the server then says another time.

        Raises:
            ShimError: That cannot be simulated on this machine.
        """
        to_s = dice.choice([place for place in PLACES_S if place != self.at_s])
        stay_s = dice.random() * _LONGEST_S
        async with self._server.turn:
            await self._jump(to_s)
            self.bites += 1
            self.over_at.append(time.time_ns() // 1_000_000)
            await anyio.sleep(stay_s)

    async def end(self) -> None:
        """Go to the latest time that was ever shown, and stay there."""
        async with self._server.turn:
            await self._jump(self._latest_s)

    async def _jump(self, to_s: int) -> None:
        self._server.move_clock(to_s)
        self.at_s, self._latest_s = to_s, max(self._latest_s, to_s)
        drift_s = await anyio.to_thread.run_sync(self._server.clock_drift)
        if abs(drift_s - to_s) > _CLOSE_S:
            msg = f"the server's clock is off by {drift_s:.0f} s, not by {to_s}"
            raise RuntimeError(msg)
