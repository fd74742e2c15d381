"""What a run under torture is to be, and when each fault strikes: all of it from one seed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec

from askel import InvalidOptionError

#: Fault -> strikes a second, where no count is given.
RATES = {
    "kill9": 5.0,
    "failpoint": 5.0,
    "sigstop": 1.0,
    "drain": 1.0,
    "proxy": 2.0,
    "redis-kill": 0.1,
    "power-loss": 0.05,
    "clock": 0.1,
    "evict": 2.0,
    "oom": 0.1,
}
#: Faults that need a C compiler.
NEED_SHIMS = ("power-loss", "clock")
#: Faults that are done to the server, which has to be ours.
OF_SERVER = ("redis-kill", "power-loss", "clock", "oom")
MODES = ("askel", "naive")
DURABILITIES = ("always", "everysec")
#: Leases that run out soon, so that there is much to survive in little time.
SETTINGS: dict[str, Any] = {
    "queues": ("", "warehouse"),
    "lease_ms": 200,
    "claim_idle_ms": 300,
    "sweep_ms": 40,
    "linger_ms": 60,
    "max_deliveries": 1_000,
    "block_ms": 500,
    "drain_ms": 250,
}


class TortureConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One run under torture.

    Args:
        runs: How many runs are started.
        steps: How many steps each has.
        workers: How many worker processes are at work.
        seconds: Over how long runs are started and faults strike.
        seed: Of all dice. The same seed makes the same runs and the same faults; what meets what
            is up to the machine.
        faults: Fault -> how often it strikes.
        mode: ``askel``, or ``naive`` for the control.
        durability: ``appendfsync`` of a server of ours.
        url: A Redis of the user's; empty: a server of ours.
        prefix: The key prefix.
        directory: Where the logs are kept.
        stuck_s: So long without any progress, and what is left is stuck.
        settings: Fields of the workers' configuration, beside and over `SETTINGS`.
        title: What the run is called while it lasts; empty where there is one only.
    """

    runs: int = 1_000
    steps: int = 4
    workers: int = 4
    seconds: float = 60.0
    seed: int = 1
    faults: dict[str, int] = {}
    mode: str = "askel"
    durability: str = "always"
    url: str = ""
    prefix: str = "askel-torture"
    directory: Path
    stuck_s: float = 30.0
    settings: dict[str, Any] = {}
    title: str = ""

    @property
    def may_lose(self) -> bool:
        """Whether the server may lose what it acknowledged: then that is counted, and allowed."""
        return "power-loss" in self.faults and self.durability != "always"

    def dice(self, purpose: str) -> random.Random:
        """Return dice of their own for *purpose*, by the seed."""
        return random.Random(f"{self.seed} {purpose}")  # noqa: S311 - repeatable, not secret

    def strikes(self) -> list[tuple[float, str]]:
        """Return when which fault strikes, in seconds from the beginning, in order."""
        planned = []
        for name, count in sorted(self.faults.items()):
            dice = self.dice(f"times of {name}")
            planned += [(self.seconds * (n + dice.random()) / count, name) for n in range(count)]
        return sorted(planned)


def parse_faults(text: str, seconds: float, url: str) -> dict[str, int]:
    """Return how often each fault of *text* strikes: ``kill9,sigstop:50``; ``all`` of them.

    Raises:
        InvalidOptionError: One is unknown, or needs a server of ours and *url* names another.
    """
    found: dict[str, int] = {}
    names = [n for n in RATES if not (url and n in OF_SERVER)]
    for part in names if text == "all" else filter(None, text.split(",")):
        name, _, count = part.strip().partition(":")
        if name not in RATES:
            raise InvalidOptionError(f"--faults {name!r:.40}: know {', '.join(RATES)}")
        if url and name in OF_SERVER:
            msg = (
                f"--faults {name} is done to the server itself, which must be ours: leave out "
                f"{name}, or leave out --redis and have one started"
            )
            raise InvalidOptionError(msg)
        if count and not (count.isascii() and count.isdigit() and int(count)):
            raise InvalidOptionError(f"--faults {part!r:.40}: write a count as {name}:50")
        found[name] = int(count) if count else max(round(RATES[name] * seconds), 1)
    return found
