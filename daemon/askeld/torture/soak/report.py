"""What a soak has shown: what grew, what was broken, and whether enough was tried to say so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from askeld.torture.run_rules import TERMINAL
from askeld.torture.soak.trend import Trend

#: The load may fall short of what was asked for by a tenth.
_LEAST_OF_RATE = 0.9


class FaultCount(msgspec.Struct, frozen=True):
    """How often a fault was let loose, and how often it did harm."""

    struck: int
    bites: int


class SoakReport(msgspec.Struct, kw_only=True):
    """All figures of a soak; ``failures`` say why it is worth less than it claims."""

    askel: str
    server: str
    seed: int
    mode: str
    seconds: float
    rate: float
    every_s: float
    workers: int
    long_lived: list[str]
    keep_s: float
    warm_up_s: float
    sample_s: float
    settings: dict[str, Any]
    load_s: float
    drained_s: float
    commands_per_second: float
    runs: int
    faults: dict[str, FaultCount]
    compactions: int
    samples: int
    samples_missed: int
    trends: list[Trend]
    errors: dict[str, int]
    commands: dict[str, int]
    runs_left_by_status: dict[str, int]
    runs_deleted: dict[str, int]
    attempts: int
    attempts_lost: int
    lost: int
    duplicated: int
    stuck: list[str]
    evaluated: int
    violations: int
    violations_by_kind: dict[str, int]
    told: list[str]
    first_violating_run: list[str]
    diagnosis: list[str]
    notes: list[str]
    mishaps: list[str]
    deaths: list[str]
    failures: list[str] = []

    @property
    def growing(self) -> list[Trend]:
        """What grows and must not."""
        return [one for one in self.trends if one.verdict == "growing"]

    @property
    def is_broken(self) -> bool:
        """Whether a promise was broken."""
        return bool(self.violations or self.stuck or self.lost or self.duplicated)

    @property
    def is_good(self) -> bool:
        """Whether nothing grew, nothing was broken, and enough was tried to say so."""
        return not (self.growing or self.is_broken or self.failures)


def guards(report: SoakReport) -> Iterator[str]:
    """Yield one sentence for each way in which the soak has shown less than it claims."""
    for name, fault in report.faults.items():
        if fault.struck and not fault.bites:
            yield f"{name} never bit"
    if not any(fault.struck for fault in report.faults.values()):
        yield "no fault struck"
    if report.commands_per_second < _LEAST_OF_RATE * report.rate:
        held = f"{report.commands_per_second:.0f} commands a second instead of {report.rate:.0f}"
        yield f"the load was {held}"
    for one in report.trends:
        if one.verdict == "unknown":
            yield f"{one.name}: too few samples to say anything"
    if not report.trends:
        yield "nothing was measured"
    yield from report.deaths
    for status in set(report.runs_deleted).difference(TERMINAL):
        yield f"{report.runs_deleted[status]} runs were deleted while they were {status}"
    if not report.runs_deleted:
        yield "no run was deleted: that the number of keys levels off was not shown"
