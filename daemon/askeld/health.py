"""Health that tells the truth: each loop says when it will be back, and is believed that long."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

_STARTING = "starting"


class Pulse:
    """The sign of life of one loop. Beaten by the loop, read by any thread."""

    def __init__(self, name: str, grace_s: float, clock: Callable[[], float]) -> None:
        """Expect nothing yet: from the first beat on, none is later than *grace_s*."""
        self.name = name
        self._grace_s = grace_s
        self._clock = clock
        self._at = clock()
        self._due = float("inf")

    def beat(self, within_s: float = 0.0) -> None:
        """Say that the loop moves, and that it will be back within *within_s* and the grace."""
        self._at = self._clock()
        self._due = self._at + within_s + self._grace_s

    @property
    def silent_s(self) -> float:
        """For how long nothing was heard, in seconds."""
        return self._clock() - self._at

    @property
    def is_overdue(self) -> bool:
        """Whether the loop has been silent for longer than it said."""
        return self._clock() > self._due


class LoopState(msgspec.Struct, frozen=True):
    """What is known of one loop."""

    ok: bool
    silent_s: float


class Liveness(msgspec.Struct, frozen=True):
    """The answer of ``/healthz``: ``ok``, or ``stuck`` and what does not move."""

    status: str
    worker: str
    stuck: list[str]
    loops: dict[str, LoopState]


class Readiness(msgspec.Struct, frozen=True):
    """The answer of ``/readyz``: ``ready``, or ``not_ready`` and why."""

    status: str
    worker: str
    reasons: list[str]


class Health:
    """What one worker process knows of itself; asked from any thread.

    It is live while each loop keeps its word. Waiting for a Redis that is away is moving: that is
    for readiness to say, because to restart the worker would mend nothing.

    Attributes:
        address: Where it is told by HTTP; empty: nowhere.
    """

    address = ""

    def __init__(
        self, worker: str, grace_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Let each loop be late by *grace_s*."""
        self.worker = worker
        self._grace_s = grace_s
        self._clock = clock
        self._pulses: dict[str, Pulse] = {}
        self._checks: dict[str, Callable[[], bool]] = {}
        self._obstacles: dict[str, None] = {_STARTING: None}

    def pulse(self, name: str) -> Pulse:
        """Return the pulse of the loop *name*, which has to beat once that is `started`."""
        self._pulses[name] = pulse = Pulse(name, self._grace_s, self._clock)
        return pulse

    def started(self) -> None:
        """Expect each loop to move from now on; before, the worker may wait for Redis."""
        for pulse in list(self._pulses.values()):
            pulse.beat()
        self.clear(_STARTING)

    @property
    def is_starting(self) -> bool:
        """Whether the worker has not begun to work yet."""
        return _STARTING in self._obstacles

    def ended(self, name: str) -> None:
        """Expect nothing more of the loop *name*: it ended as it should."""
        self._pulses.pop(name, None)

    def check(self, name: str, is_stuck: Callable[[], bool]) -> None:
        """Count *name* as stuck whenever *is_stuck* says so."""
        self._checks[name] = is_stuck

    def hinder(self, reason: str) -> None:
        """Be not ready because of *reason*, until `clear`."""
        self._obstacles[reason] = None

    def clear(self, reason: str) -> None:
        """Take it that *reason* has passed."""
        self._obstacles.pop(reason, None)

    @property
    def is_live(self) -> bool:
        """Whether everything moves."""
        return not self._stuck()

    def liveness(self) -> Liveness:
        """Return whether everything moves, and what does not."""
        loops = {
            name: LoopState(not pulse.is_overdue, round(pulse.silent_s, 3))
            for name, pulse in list(self._pulses.items())
        }
        stuck = self._stuck()
        return Liveness("stuck" if stuck else "ok", self.worker, stuck, loops)

    def obstacles(self) -> list[str]:
        """Return why the worker takes no work, or not as it should; empty when it does."""
        return [*self._obstacles, *(f"stuck: {name}" for name in self._stuck())]

    def _stuck(self) -> list[str]:
        late = [pulse.name for pulse in list(self._pulses.values()) if pulse.is_overdue]
        return late + [name for name, is_stuck in self._checks.items() if is_stuck()]
