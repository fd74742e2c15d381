"""The confirming loop: runs of a higher durability lose their mark when Redis has confirmed them.

Whoever starts such a run, or awaits its end, is answered after a confirmation of its own. The mark
is for everybody else: it says what a failover now could undo.
"""

from __future__ import annotations

import anyio

from askel import StoreError
from askel.state import Confirmed, Unconfirmed
from askeld.health import Pulse
from askeld.observability import Logger

#: How often marks are looked for, where some are expected and where none are, in seconds.
BUSY_S, IDLE_S = 1.0, 5.0
# One pass holds still for as long as Redis is waited for, once for each durability.
_LONGEST_S = 10.0


class ConfirmingLoop:
    """Confirms what is marked. Every worker does so; what two of them confirm is confirmed."""

    def __init__(self, unconfirmed: Unconfirmed, log: Logger, pulse: Pulse, *, busy: bool) -> None:
        """Work off *unconfirmed*; *busy*: workflows of this app leave marks."""
        self._unconfirmed = unconfirmed
        self._log = log
        self._pulse = pulse
        self._busy = busy
        self._why = ""
        self._stopping = anyio.Event()

    def stop(self) -> None:
        """Confirm nothing more."""
        self._stopping.set()

    async def run(self) -> None:
        """Confirm until stopped; trouble with Redis is left to the next time."""
        while not self._stopping.is_set():
            found = Confirmed()
            try:
                found = await self.run_once()
            except StoreError as error:
                self._log.debug("confirming_interrupted", error=str(error))
            pause_s = BUSY_S if self._busy or found.done or found.left else IDLE_S
            self._pulse.beat(pause_s)
            with anyio.move_on_after(pause_s):
                await self._stopping.wait()

    async def run_once(self) -> Confirmed:
        """Confirm one page of runs; say so once when some cannot be, and once when all are."""
        self._pulse.beat(_LONGEST_S)
        found = await self._unconfirmed.run_once()
        if found.why and not self._why:
            self._log.warning("runs_not_confirmed", count=found.left, error=found.why)
        elif self._why and not found.why and found.done:
            self._log.info("runs_confirmed", count=found.done)
        if found.why or found.done:
            self._why = found.why
        return found
