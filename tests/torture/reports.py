"""A report of a run that tried enough and broke nothing; tests spoil copies of it."""

import msgspec

from askeld.torture.report import FaultReport, Report

GOOD = Report(
    askel="0",
    server="redis 7",
    seed=1,
    mode="askel",
    durability="always",
    judged_by="the append-only file",
    workers=4,
    runs=10,
    steps=40,
    seconds=1.0,
    load_s=1.0,
    drained_s=0.1,
    runs_per_second=10.0,
    steps_per_second=40.0,
    deaths=9,
    restarts=0,
    faults={
        "kill9": FaultReport(5, 5),
        "failpoint": FaultReport(8, 4),
        "sigstop": FaultReport(2, 2),
        "proxy": FaultReport(3, 3),
        "redis-kill": FaultReport(1, 1),
    },
    skipped={},
    commands={"accepted": 20, "unknown": 1},
    runs_by_status={"completed": 10},
    lost=0,
    may_lose=False,
    duplicated=0,
    stuck=[],
    attempts={"lost": 3},
    executions=43,
    re_execution_ratio=1.075,
    refused_stale_writes={"turn_refused LOST": 1},
    points={"before_turn": 1, "after_turn": 1},
    points_planned={"before_turn": 2, "after_turn": 2},
    awaits=2,
    evaluated=1_000,
    violations=0,
    violations_by_kind={},
    told=[],
    first_violating_run=[],
    diagnosis=[],
    notes=[],
    mishaps=[],
    control={"runs": 5, "deaths": 2, "violations": 1, "told": ["one"]},
)


def without(**changed):
    """Return a copy of the good report with fields *changed*."""
    return msgspec.structs.replace(GOOD, **changed)
