"""Deploys: workers are told to end and hand back what they have, some while Redis stands still."""

from __future__ import annotations

import random
import signal

import anyio

from askeld.torture.fault import now_ms
from askeld.torture.faults.workers import take_victim
from askeld.torture.server import TortureServer
from askeld.torture.workers import Workers

#: Long enough for commands to be on their way that nobody answers.
_SILENCE_S = 0.05
#: Longer than a worker under torture takes to give up waiting for its work.
_SHORTEST_STILL_S, _LONGEST_STILL_S = 0.3, 0.9
_ENDS_S = 10.0


class Drain:
    """SIGTERM, as at a deploy; every other time Redis stands still meanwhile, as it fails over.

    Then what the worker has sent was executed or not, and it does not know: nothing that it hands
    back may be done twice, or be lost.
    """

    name = "drain"

    def __init__(self, workers: Workers, server: TortureServer | None) -> None:
        """Dismiss *workers*; let *server* stand still, if it is ours."""
        self._workers = workers
        self._server = server
        self._turn = 0
        self.bites = 0
        self.over_at: list[int] = []

    async def strike(self, dice: random.Random) -> None:
        """Dismiss one that is at work, and see it end."""
        self._turn += 1
        if self._server is None or self._turn % 2:
            await self._dismiss(dice)
        else:
            async with self._server.turn:
                await self._dismiss(dice, self._server)
        self.over_at.append(now_ms())
        await self._workers.balance()

    async def _dismiss(self, dice: random.Random, server: TortureServer | None = None) -> None:
        worker = await take_victim(self._workers, dice)
        if server is None:
            self._workers.dismiss(worker)
        else:
            with server.standing_still():
                await anyio.sleep(_SILENCE_S)
                self._workers.dismiss(worker)
                await anyio.sleep(dice.uniform(_SHORTEST_STILL_S, _LONGEST_STILL_S))
        with anyio.move_on_after(_ENDS_S):
            await worker.dead.wait()
            self.bites += 1
        worker.signal(signal.SIGKILL)  # if it has not ended: it should have
        await worker.dead.wait()
