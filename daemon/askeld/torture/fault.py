"""What every kind of fault has in common."""

from __future__ import annotations

import random
import time
from typing import Protocol


def now_ms() -> int:
    """Return the time of this machine in milliseconds."""
    return time.time_ns() // 1_000_000


class Fault(Protocol):
    """One kind of fault, which strikes as often as the plan says.

    ``bites`` counts how often it really did harm: the run is worth nothing where that is 0.
    ``over_at`` holds a time (ms of this machine's clock) for each strike from which things can get
    better again: the death of a worker, the first answer of a server that came back. The time to
    recover is counted from there.
    """

    name: str
    over_at: list[int]

    @property
    def bites(self) -> int:
        """How often it really did harm."""

    async def strike(self, dice: random.Random) -> None:
        """Do harm once, and return when it is over; *dice* decide where and how."""
