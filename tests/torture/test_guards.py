"""A run that has shown less than it claims fails, and says in what."""

import msgspec
import pytest
from tests.torture.reports import GOOD, without

from askeld.torture.report import FaultReport, guards, spread


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
        (without(commands={"accepted": 9}), "no command's outcome was unknown"),
        (without(points={"before_turn": 1, "after_turn": 0}), "failpoint after_turn was reached 0"),
        (without(runs_by_status={"cancelled": 10}), "no run completed"),
        (without(control={"violations": 0}), "the naive control broke nothing"),
    ],
)
def test_whatever_was_not_shown_is_said(report, sentence):
    (said,) = guards(report)

    assert sentence in said


@pytest.mark.parametrize(("planned", "wanted"), [(1, 1), (2, 1), (3, 1), (12, 6)])
def test_each_point_that_was_planned_is_asked_for(planned, wanted):
    """Half of the times are enough, but once at least."""
    report = without(points_planned={"before_turn": planned}, points={"before_turn": wanted})

    assert list(guards(report)) == []
    assert list(guards(msgspec.structs.replace(report, points={"before_turn": wanted - 1}))) == [
        f"failpoint before_turn was reached {wanted - 1} times, not {wanted}"
    ]


def test_a_judge_that_saw_nothing_is_no_judge():
    assert list(guards(without(evaluated=0))) == ["the judge evaluated nothing"]
    unheard = {**GOOD.commands, "accepted": 0}
    assert list(guards(without(commands=unheard))) == ["no command was accepted"]


def test_what_is_rare_in_a_round_is_not_asked_of_it():
    report = without(
        faults={"kill9": FaultReport(20, 0), "oom": FaultReport(1, 0)}, points={"before_turn": 0}
    )
    report = msgspec.structs.replace(report, points_planned={"before_turn": 1})

    assert list(guards(report, least=20)) == ["kill9 never bit"]
    assert list(guards(report)) == [
        "kill9 never bit",
        "oom never bit",
        "failpoint before_turn was reached 0 times, not 1",
    ]


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
