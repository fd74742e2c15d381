"""Suspects: what may have killed its workers is worked on one at a time, but not for ever."""

from __future__ import annotations

from functools import partial

import anyio

from askeld.renewal import Held


class Suspects:
    """A place for one entry at work; those that wait for it come in their order.

    Whatever was at work beside the poison looks like it, so that only what kills its worker alone
    is to be counted on. What has been at work for so long without killing it gives up the place:
    a step may well take hours, and others wait.
    """

    def __init__(self, survived_s: float) -> None:
        """Take it that what has survived for *survived_s* kills nobody soon."""
        self._survived_s = survived_s
        self._next = anyio.Lock()
        self._at_work: Held | None = None
        self._since = 0.0
        self._changed = anyio.Event()

    async def admit(self, held: Held) -> None:
        """Return when *held* may be worked on; it gives up the place by its ``progress``."""
        async with self._next:
            while self._at_work is not None and (left_s := self._left_s()) > 0:
                with anyio.move_on_after(left_s):
                    await self._changed.wait()
            self._at_work, self._since = held, anyio.current_time()
        held.progress = partial(self._give_up_place, held)

    def _left_s(self) -> float:
        return self._since + self._survived_s - anyio.current_time()

    def _give_up_place(self, held: Held) -> None:
        held.progress = None
        if self._at_work is held:
            self._at_work = None
            changed, self._changed = self._changed, anyio.Event()
            changed.set()
