"""The stuck loop: finds what nothing would ever move, says why, mends what can be mended."""

from __future__ import annotations

import anyio

from askel import StoreError, StoreReplyError
from askel.state import Keys, RunFacts, Scripts, Watching
from askel.wire import explain, timer_of, with_timers
from askeld.health import Pulse
from askeld.observability import Logger

#: From how many dead letters on there is a warning, and again each time they have doubled.
_MANY_LETTERS = 1_000


class StuckLoop:
    """Looks at a page of runs, and of entries, every *every_ms*: one worker of all does so.

    By the protocol no run is stuck. Where entries were deleted, consumers removed or keys evicted,
    what only drives runs is made again; what was said in what is gone cannot be.
    """

    def __init__(
        self,
        watching: Watching,
        scripts: Scripts,
        streams: list[str],
        log: Logger,
        pulse: Pulse,
        *,
        every_ms: int,
        idle_ms: int,
    ) -> None:
        """Look by *watching*; entries on *streams* count as left by the dead after *idle_ms*."""
        self._watching = watching
        self._scripts = scripts
        self._keys: Keys = watching.keys
        self._streams = streams
        self._log = log
        self._pulse = pulse
        self._every_ms = every_ms
        self._idle_ms = idle_ms
        self._warn_at = _MANY_LETTERS
        self._stopping = anyio.Event()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()

    async def run(self) -> None:
        """Look until stopped; trouble with Redis is left to the next time."""
        while not self._stopping.is_set():
            wait_ms = self._every_ms
            try:
                wait_ms = await self.run_once()
            except StoreReplyError as error:
                self._log.warning("watch_refused", error=error.code)
            except StoreError as error:
                self._log.debug("watch_interrupted", error=str(error))
            self._pulse.beat(wait_ms / 1_000)
            with anyio.move_on_after(wait_ms / 1_000):
                await self._stopping.wait()

    async def run_once(self) -> int:
        """Look at one page of each, if it is time; return for how long to wait, in ms."""
        for stream in self._streams:
            taken = await self._watching.take_up(stream, every_ms=self._every_ms)
            for entry_id in taken:
                self._log.warning("entry_orphaned", stream=stream, entry_id=entry_id)
        found, wait_ms = await self._watching.quiet_runs(every_ms=self._every_ms)
        if found is None:
            return wait_ms
        for run_id in found:
            self._pulse.beat()
            await self._look_at(run_id)
        await self._count_letters()
        return wait_ms

    async def _look_at(self, run_id: str) -> None:
        facts = await self._watching.facts(run_id)
        if facts is None:
            return
        facts = await with_timers(self._scripts, self._keys, facts)
        told = explain(facts, claim_idle_ms=self._idle_ms)
        if not told.stuck or facts.token:
            return
        mended = await self._mend(facts, told.state)
        log = self._log.warning if mended else self._log.error
        log("run_stuck", run_id=run_id, state=told.state, why=told.text, mended=mended)

    async def _mend(self, facts: RunFacts, state: str) -> bool:
        if state == "no_token":
            return await self._watching.revive(facts)
        mended = False
        for step in facts.steps if state == "timer_gone" else ():
            timer = timer_of(facts, step)
            if timer is not None and step.due is None:
                mended = await self._watching.rearm(facts, step, timer) or mended
        return mended

    async def _count_letters(self) -> None:
        """Warn of many dead letters: they are not bounded, so that none is lost silently."""
        count = int(await self._scripts.fetch("XLEN", self._keys.dead, patience_s=0))
        if count >= self._warn_at:
            self._log.warning("dead_letters_many", count=count)
        self._warn_at = max(_MANY_LETTERS, self._warn_at // 2 if count < self._warn_at // 4 else 0)
        while self._warn_at <= count:
            self._warn_at *= 2
