"""Time and chance for workflow code: whatever it is given, it is given again when it is replayed.

Chance is made of the run itself. Time is that of the last event which the code was told of; where
that is the end of a step in the deciding process, the time is recorded with it, if code asked.
"""

from __future__ import annotations

import random
from uuid import UUID


class Sources:
    """What one run draws from. ``born_ms`` is when it was created, by the server's clock."""

    def __init__(self, run_id: str, born_ms: int) -> None:
        """Begin where the run began."""
        self._now_ms = born_ms
        self._was_asked = False
        self._dice = random.Random(f"{run_id} {born_ms}")  # noqa: S311 - repeatable, not secret

    def now_ms(self) -> int:
        """Return the time of the last event, in ms of the server's clock; it never goes back."""
        self._was_asked = True
        return self._now_ms

    def number(self) -> float:
        """Return the next random number from 0 to 1, 1 excluded."""
        return self._dice.random()

    def uuid(self) -> UUID:
        """Return the next random UUID (version 4)."""
        return UUID(int=self._dice.getrandbits(128), version=4)

    def reach(self, at_ms: int) -> None:
        """Take it that an event which the history dates *at_ms* is told to the code now."""
        self._now_ms = max(self._now_ms, at_ms)

    def guess(self, at_ms: int) -> int:
        """Take it that it is *at_ms*, which stands in no history yet; return the time before.

        What `settle` returns afterwards has to be recorded.
        """
        before, self._was_asked = self._now_ms, False
        self.reach(at_ms)
        return before

    def settle(self, before: int) -> int | None:
        """Return the time that code was told since `guess`; None if it did not ask.

        Then it is *before* again: replay would not know of the guess.
        """
        if not self._was_asked:
            self._now_ms = before
            return None
        return self._now_ms
