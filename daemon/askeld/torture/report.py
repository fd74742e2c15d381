"""What a run under torture has shown, and what must be in it for it to be worth anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import msgspec

GOOD, BROKEN, TOO_LITTLE = "nothing broke", "promises were broken", "too little was tried"
#: Answers that refuse what a former owner of a run, or of an attempt, still sends. They count only
#: of workers that have just been woken: others are refused for other reasons, too, as when the
#: reply to what they had sent was lost.
STALE = ("turn_refused LOST", "turn_refused CONFLICT", "result_refused FENCED")


class FaultReport(msgspec.Struct, omit_defaults=True):
    """One kind of fault: how often it was planned and bit, and how long it took to get over it."""

    planned: int
    bites: int
    recovery_s: Spread | None = None


class Spread(msgspec.Struct, frozen=True):
    """How long something took, in seconds, over *count* times."""

    count: int
    min: float
    median: float
    max: float


class Round(msgspec.Struct):
    """One of several rounds, by which it can be told, and tried again by its seed alone."""

    seed: int
    seconds: float
    runs: int
    deaths: int
    verdict: str


class Report(msgspec.Struct, kw_only=True):
    """All figures of a run, or the sums over several rounds, which are then named.

    ``points`` and ``points_planned`` tell how often workers died at each named point, and how often
    they were to. ``failures`` are the guards that were not passed. ``kept`` says
    what is left on a Redis of the user's, and how to remove it.
    """

    askel: str
    server: str
    seed: int
    mode: str
    durability: str
    judged_by: str
    workers: int
    runs: int
    steps: int
    seconds: float
    load_s: float
    drained_s: float
    runs_per_second: float
    steps_per_second: float
    deaths: int
    restarts: int
    faults: dict[str, FaultReport]
    skipped: dict[str, str]
    commands: dict[str, int]
    runs_by_status: dict[str, int]
    lost: int
    may_lose: bool
    duplicated: int
    stuck: list[str]
    attempts: dict[str, int]
    executions: int
    re_execution_ratio: float
    refused_stale_writes: dict[str, int]
    points: dict[str, int]
    points_planned: dict[str, int]
    awaits: int
    evaluated: int
    violations: int
    violations_by_kind: dict[str, int]
    told: list[str]
    first_violating_run: list[str]
    diagnosis: list[str]
    notes: list[str]
    mishaps: list[str]
    control: dict[str, Any] | None = None
    failures: list[str] = []
    kept: list[str] = []
    rounds: list[Round] = []

    @property
    def is_good(self) -> bool:
        """Whether nothing was broken, and enough was tried to say so."""
        return not (self.is_broken or self.failures)

    @property
    def is_broken(self) -> bool:
        """Whether a promise was."""
        lost = self.lost and not self.may_lose
        return bool(self.violations or self.stuck or lost or self.duplicated)

    @property
    def verdict(self) -> str:
        """What is to be thought of it, in a few words."""
        if self.is_broken:
            return BROKEN
        return TOO_LITTLE if self.failures else GOOD


def spread(seconds: Sequence[float]) -> Spread | None:
    """Return least, median and most of *seconds*; None where there are none."""
    if not seconds:
        return None
    shown = [round(s, 3) for s in (min(seconds), median(seconds), max(seconds))]
    return Spread(len(seconds), *shown)


def guards(report: Report, *, least: int = 0) -> Iterator[str]:
    """Yield one sentence for each way in which the run has shown less than it claims.

    Args:
        report: All figures.
        least: What was planned less often than this is not asked for: one of several rounds need
            not show by itself what is rare in each.
    """
    yield from _unseen(report)
    faults = {name: fault for name, fault in report.faults.items() if fault.planned >= least}
    for name, fault in faults.items():
        if not fault.bites:
            yield f"{name} never bit"
    if "sigstop" in faults and not sum(report.refused_stale_writes.values()):
        yield "no stale write was refused, although workers were stopped"
    if {"kill9", "failpoint"} & set(faults) and not report.attempts.get("lost"):
        yield "no attempt was lost, although workers died"
    if "proxy" in faults and not report.commands.get("unknown"):
        yield "no command's outcome was unknown, although replies were lost"
    for point, planned in report.points_planned.items():
        count, wanted = report.points.get(point, 0), max(planned // 2, 1)
        if planned >= least and count < wanted:
            yield f"failpoint {point} was reached {count} times, not {wanted}"
    if not report.runs_by_status.get("completed"):
        yield "no run completed"
    if report.control is not None and not report.control["violations"]:
        yield "the naive control broke nothing: these faults would not show a mistake"


def _unseen(report: Report) -> Iterator[str]:
    """Yield what there was nothing to judge of."""
    if not report.evaluated:
        yield "the judge evaluated nothing"
    if not report.commands.get("accepted"):
        yield "no command was accepted"
