"""What a soak is to be: how long, how much load, how often something goes wrong."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec

from askeld.config import PROFILES, WorkerConfig
from askeld.torture.config import TortureConfig

#: What goes wrong, one at a time, each before any comes again.
FAULTS = ("kill9", "sigstop", "proxy", "redis-kill", "evict", "disconnect")
#: Those that `askeld.torture.runner` brings.
OF_TORTURE = tuple(name for name in FAULTS if name != "disconnect")
#: How many commands the load sends for a run: some are started twice, signalled, suspended and
#: resumed. One in twenty is driven by commands: to create it, for each step, to complete it.
_COMMANDS_OF_RUN = 4 / 3 + 11 / 24 + 1 / 16
_DRIVEN = 1 / 20
#: What torture sets otherwise.
_OTHERS = ("linger_ms", "max_deliveries", "block_ms")
#: The product's own settings, with the faster of its two sets of leases.
SETTINGS: dict[str, Any] = {
    **{name: getattr(WorkerConfig(), name) for name in _OTHERS},
    **PROFILES["fast"],
    "vitals_ms": 5_000,
    "threads": 8,  # so that the pool is full when the judgement begins
}


class SoakConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One soak.

    Args:
        seconds: For how long there are load and faults.
        rate: Commands that the client sends each second.
        every_s: How often something goes wrong.
        workers: Worker processes. All live from beginning to end but the second, which dies.
        steps: Steps of each run.
        seed: Of all dice.
        keep_s: How long ended runs are kept, by a retention policy.
        sample_s: How often everything is measured.
        warm_up_s: What is measured before is not judged: caches fill, the first runs are kept.
        compact_s: How often the append-only file is rewritten, so that a restart stays short.
        mode: ``askel``, or ``leaky`` for the control.
        settings: Fields of the workers' configuration.
        directory: Where the logs are kept.
        stuck_s: So long without any progress, and what is left is stuck.
    """

    seconds: float = 1_800.0
    rate: float = 200.0
    every_s: float = 30.0
    workers: int = 3
    steps: int = 2
    seed: int = 1
    keep_s: float = 60.0
    sample_s: float = 5.0
    warm_up_s: float = 300.0
    compact_s: float = 120.0
    mode: str = "askel"
    settings: dict[str, Any] = msgspec.field(default_factory=SETTINGS.copy)
    directory: Path
    stuck_s: float = 60.0

    @property
    def torture(self) -> TortureConfig:
        """The same, as the runner of torture takes it."""
        commands = (1 - _DRIVEN) * _COMMANDS_OF_RUN + _DRIVEN * (2 + self.steps)
        return TortureConfig(
            runs=round(self.rate * self.seconds / commands),
            steps=self.steps,
            workers=self.workers,
            seconds=self.seconds,
            seed=self.seed,
            faults=dict.fromkeys(OF_TORTURE, 1),
            mode=self.mode,
            durability="everysec",
            prefix="askel-soak",
            directory=self.directory,
            stuck_s=self.stuck_s,
            settings=self.settings,
        )

    def strikes(self) -> list[str]:
        """Return what strikes, in order: in each round every fault once, shuffled."""
        dice = random.Random(f"{self.seed} soak")  # noqa: S311 - repeatable, not secret
        count, planned = int(self.seconds / self.every_s), list[str]()
        while len(planned) < count:
            planned += dice.sample(FAULTS, len(FAULTS))
        return planned[:count]
