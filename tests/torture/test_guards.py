"""A run that has shown less than it claims fails, and says in what."""

import msgspec
import pytest

from askeld.torture.report import FaultReport, Report, guards, spread

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
    commands={"unknown": 1},
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
    awaits=2,
    evaluated=1_000,
    violations=0,
    violations_by_kind={},
    told=[],
    first_violating_run=[],
    diagnosis=[],
    notes=[],
    mishaps=[],
    control={"violations": 1},
)


def without(**changed):
    return msgspec.structs.replace(GOOD, **changed)


def never_bit(name):
    return without(faults={**GOOD.faults, name: FaultReport(3, 0)})


def test_a_run_that_tried_enough_passes():
    assert list(guards(GOOD)) == []
    assert GOOD.is_good


@pytest.mark.parametrize("name", GOOD.faults)
def test_a_fault_that_never_bit(name):
    assert list(guards(never_bit(name))) == [f"{name} never bit"]


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (without(refused_stale_writes={"turn_refused LOST": 0}), "no stale write was refused"),
        (without(attempts={"succeeded": 40}), "no attempt was lost"),
        (without(commands={"sent": 9}), "no command's outcome was unknown"),
        (without(points={"before_turn": 1, "after_turn": 0}), "failpoint after_turn was reached 0"),
        (without(runs_by_status={"cancelled": 10}), "no run completed"),
        (without(control={"violations": 0}), "the naive control broke nothing"),
    ],
)
def test_whatever_was_not_shown_is_said(report, sentence):
    (said,) = guards(report)

    assert sentence in said


def test_points_are_asked_for_only_where_there_were_deaths_enough():
    faults = {**GOOD.faults, "failpoint": FaultReport(7, 7)}

    assert list(guards(without(faults=faults, points={"before_turn": 0, "after_turn": 0}))) == []


@pytest.mark.parametrize(
    "broken",
    [{"violations": 1}, {"lost": 1}, {"duplicated": 1}, {"stuck": ["a run"]}, {"failures": ["x"]}],
)
def test_a_run_is_good_only_if_nothing_at_all_is_wrong(broken):
    assert not without(**broken).is_good


def test_a_loss_that_is_allowed_is_no_breach():
    assert without(lost=3, may_lose=True).is_good


def test_a_spread_tells_least_median_and_most():
    assert spread([]) is None
    shown = spread([3.0, 1.0, 2.0])
    assert (shown.count, shown.min, shown.median, shown.max) == (3, 1.0, 2.0, 3.0)
