"""The token loop: runs whose token somebody deleted with its stream are driven again."""

from __future__ import annotations

import anyio

from askel import StoreError
from askel.state import TokenSweep, trouble_of
from askeld.health import Pulse
from askeld.observability import Logger


class TokenLoop:
    """Looks for runs that nobody would drive any more. Every worker does so."""

    def __init__(
        self,
        sweep: TokenSweep,
        streams: list[str],
        log: Logger,
        pulse: Pulse,
        *,
        every_ms: int,
        silent_ms: int,
    ) -> None:
        """Look at a page every *every_ms*, with *sweep* on *streams*.

        An owner that has been silent for *silent_ms* no longer counts. As long is waited, after
        something was lost, before all runs are looked at: whoever lives says so meanwhile.
        """
        self._sweep = sweep
        self._streams = streams
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
                self._pulse.beat(self._silent_ms / 1_000)
                with anyio.move_on_after(self._silent_ms / 1_000):
                    await self._stopping.wait()
            try:
                while not await self.run_once() and look_at_all and not self._stopping.is_set():
                    self._pulse.beat()
            except StoreError as error:
                self._log.debug("tokens_interrupted", error=str(error), trouble=trouble_of(error))
                if look_at_all:
                    self._lost.set()
                    await anyio.sleep(min(self._every_s, 1.0))

    async def run_once(self) -> bool:
        """Look at one page; return whether it was the last."""
        remade, is_last = await self._sweep.run_once(self._streams, silent_ms=self._silent_ms)
        for run_id in remade:
            self._log.warning("token_remade", run_id=run_id)
        return is_last
