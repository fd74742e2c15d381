"""The retention loop: what nobody needs any more goes: expired runs, timers of runs that ended."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from askel import StoreError, StoreReplyError
from askel.state import Retention, TimerSweep
from askeld.health import Pulse
from askeld.observability import Logger

_LIMIT = 1_000


class RetentionLoop:
    """Applies the policies that lie in Redis, and removes timers that would do nothing.

    There are no policies until somebody sets one. Every worker does so. What two of them delete at
    once is deleted once.
    """

    def __init__(
        self,
        retention: Retention,
        timers: TimerSweep,
        log: Logger,
        every_ms: int,
        pulse: Pulse,
    ) -> None:
        """Look every *every_ms*; where more is to go than one call takes, at once again."""
        self._retention = retention
        self._timers = timers
        self._log = log
        self._every_s = every_ms / 1_000
        self._pulse = pulse
        self._damaged: Sequence[str] = ()
        self._stopping = anyio.Event()

    def stop(self) -> None:
        """Delete nothing more."""
        self._stopping.set()

    async def run(self) -> None:
        """Apply the policies until stopped; trouble with Redis is left to the next time."""
        while not self._stopping.is_set():
            removed = 0
            self._pulse.beat()
            try:
                removed = await self.run_once()
            except StoreReplyError as error:  # not allowed to, for one: nobody else will tell
                self._log.warning("retention_refused", error=error.code)
            except StoreError as error:
                self._log.debug("retention_interrupted", error=str(error))
            if removed < _LIMIT:
                self._pulse.beat(self._every_s)
                with anyio.move_on_after(self._every_s):
                    await self._stopping.wait()

    async def run_once(self) -> int:
        """Apply the policies and sweep timers once; return how many runs were deleted."""
        if swept := await self._timers.run_once():
            self._log.debug("timers_swept", count=swept)
        removed = await self._retention.apply(_LIMIT)
        damaged, self._damaged = self._damaged, self._retention.damaged
        if self._damaged and self._damaged != damaged:
            self._log.warning("retention_policy_damaged", policies=self._damaged)
        if removed:
            self._log.info("runs_expired", count=removed)
        return removed
