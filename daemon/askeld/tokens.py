"""The token loop: runs whose token somebody deleted with its stream are driven again."""

from __future__ import annotations

import anyio

from askel import StoreError
from askel.state import TokenSweep
from askeld.health import Pulse
from askeld.observability import Logger


class TokenLoop:
    """Looks for runs that nobody would drive any more. Every worker does so."""

    def __init__(
        self,
        sweep: TokenSweep,
        log: Logger,
        pulse: Pulse,
        *,
        every_ms: int,
        silent_ms: int,
    ) -> None:
        """Look at a page every *every_ms*, with *sweep*.

        After something was lost, all runs are looked at twice, *silent_ms* apart.
        """
        self._sweep = sweep
        self._log = log
        self._pulse = pulse
        self._every_s = every_ms / 1_000
        self._silent_ms = silent_ms
        self._lost = anyio.Event()
        self._stopping = anyio.Event()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._lost.set()

    def hurry(self) -> None:
        """Look at all runs soon: entries of a stream were lost."""
        self._lost.set()

    async def run(self) -> None:
        """Look until stopped; trouble with Redis is left to the next time."""
        while not self._stopping.is_set():
            self._pulse.beat(self._every_s)
            with anyio.move_on_after(self._every_s):
                await self._lost.wait()
            look_at_all = self._lost.is_set()
            if look_at_all:
                self._lost = anyio.Event()
            try:
                await self._look(look_at_all=look_at_all)
            except StoreError as error:
                self._log.debug("tokens_interrupted", error=str(error))
                if look_at_all:
                    self._lost.set()
                await self._pause(1.0)

    async def _look(self, *, look_at_all: bool) -> None:
        if not look_at_all:
            await self.run_once()
            return
        await self._look_at_all()
        await self._pause(self._silent_ms / 1_000)
        await self._look_at_all()

    async def _look_at_all(self) -> None:
        self._sweep.rewind()
        while not self._stopping.is_set() and not await self.run_once():
            self._pulse.beat()

    async def _pause(self, seconds: float) -> None:
        self._pulse.beat(seconds)
        with anyio.move_on_after(seconds):
            await self._stopping.wait()

    async def run_once(self) -> bool:
        """Look at one page; return whether it was the last."""
        remade, is_last = await self._sweep.run_once(silent_ms=self._silent_ms)
        for run_id in remade:
            self._log.warning("token_remade", run_id=run_id)
        return is_last
