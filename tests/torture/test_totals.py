"""Reports of rounds, added up: nothing of a round is lost in the sum, and nothing is hidden."""

import msgspec
import pytest
from tests.torture.reports import GOOD, without

from askeld.torture.report import FaultReport, Round, Spread
from askeld.torture.totals import add_up, read_reports

PLENTY = {"kill9": FaultReport(30, 30), "failpoint": FaultReport(8, 4)}


def faults(**changed):
    return {**PLENTY, **{name.replace("_", "-"): fault for name, fault in changed.items()}}


def test_counts_are_summed_and_ratios_are_of_the_sums():
    total = add_up([GOOD, without(seed=2, runs=30, steps=60, executions=120, control=None)])

    assert (total.seed, total.runs, total.steps, total.deaths) == (1, 40, 100, 18)
    assert (total.evaluated, total.executions, total.re_execution_ratio) == (2_000, 163, 1.63)
    assert (total.seconds, total.load_s, total.runs_per_second) == (2.0, 2.0, 18.2)
    assert total.commands == {"accepted": 40, "unknown": 2}
    assert total.attempts == {"lost": 6}
    assert total.points == {"before_turn": 2, "after_turn": 2}
    assert (total.faults["kill9"].planned, total.faults["kill9"].bites) == (10, 10)
    assert total.control == {
        "runs": 5,
        "deaths": 2,
        "violations": 1,
        "rounds": 1,
        "told": ["seed 1: one"],
    }
    assert total.rounds == [
        Round(1, 1.1, 10, 9, "nothing broke"),
        Round(2, 1.1, 30, 9, "nothing broke"),
    ]
    assert total.is_good


def test_times_to_recover_are_of_all_rounds():
    times = [Spread(1, 0.1, 9.0, 9.5), Spread(5, 0.2, 0.5, 2.0), Spread(4, 0.3, 0.7, 3.0), None]
    reports = [
        without(seed=seed, faults=faults(kill9=FaultReport(30, 30, spread)))
        for seed, spread in enumerate(times)
    ]

    assert add_up(reports).faults["kill9"].recovery_s == Spread(10, 0.1, 0.5, 9.5)


@pytest.mark.parametrize(
    "broken",
    [{"violations": 1, "told": ["S4: r7"]}, {"lost": 1}, {"duplicated": 1}, {"stuck": ["r7"]}],
)
def test_what_broke_in_one_round_breaks_the_whole_and_names_its_seed(broken):
    total = add_up([GOOD, without(seed=2, **broken), without(seed=3)])

    assert total.is_broken
    assert [one.verdict for one in total.rounds] == [
        "nothing broke",
        "promises were broken",
        "nothing broke",
    ]
    told = [f"seed 2: {line}" for name in ("told", "stuck") for line in broken.get(name, [])]
    assert [*total.told, *total.stuck] == told


def test_the_story_is_that_of_the_first_round_that_has_one():
    stories = [[], ["r7: began"], ["r9: began"]]
    reports = [without(seed=n, first_violating_run=story) for n, story in enumerate(stories)]

    assert add_up(reports).first_violating_run == ["of seed 1:", "r7: began"]


def test_a_rare_fault_is_asked_of_all_rounds_together():
    never, once = FaultReport(1, 0), FaultReport(1, 1)
    calm, hit = without(faults=faults(oom=never)), without(seed=2, faults=faults(oom=once))

    assert add_up([calm, hit]).failures == []
    assert add_up([calm, without(seed=2, faults=faults(oom=never))]).failures == ["oom never bit"]


def test_a_frequent_fault_is_asked_of_each_round():
    calm = without(seed=2, faults=faults(kill9=FaultReport(30, 0)))

    total = add_up([GOOD, calm])

    assert total.failures == ["seed 2: kill9 never bit"]
    assert [one.verdict for one in total.rounds] == ["nothing broke", "too little was tried"]
    assert not total.is_good


def test_points_are_asked_for_by_what_all_rounds_planned():
    """Each of two points is planned 15 times a round: too few to ask one round for 7."""
    rounds = [
        without(
            seed=n,
            faults=faults(failpoint=FaultReport(60, 60)),
            points={"before_turn": 15 * n, "after_turn": 8},
            points_planned=dict.fromkeys(("before_turn", "after_turn"), 15),
        )
        for n in range(2)
    ]

    assert add_up(rounds).failures == []
    points = {"before_turn": 0, "after_turn": 0}
    none = msgspec.structs.replace(rounds[0], seed=2, points=points)
    total = add_up([*rounds, none])
    assert total.failures == [
        "failpoint before_turn was reached 15 times, not 22",
        "failpoint after_turn was reached 16 times, not 22",
    ]


def test_a_control_that_broke_nothing_fails_the_whole():
    control = {"runs": 5, "deaths": 2, "violations": 0, "told": []}

    assert len(add_up([without(control=control), without(seed=2, control=None)]).failures) == 2


@pytest.mark.parametrize(
    ("reports", "said"),
    [
        ([], "no round has a report"),
        ([GOOD, GOOD], "two rounds have the same seed"),
        ([add_up([GOOD]), without(seed=2)], "a sum over rounds already"),
        ([GOOD, without(seed=2, mode="naive")], "different mode"),
        ([GOOD, without(seed=2, may_lose=True)], "different may_lose"),
    ],
)
def test_sums_that_would_mean_nothing_are_refused(reports, said):
    with pytest.raises(ValueError, match=said):
        add_up(reports)


def test_reports_are_read_from_files_in_the_order_of_their_seeds(tmp_path):
    for seed in (10, 9):
        (tmp_path / f"{seed}.json").write_bytes(msgspec.json.encode(without(seed=seed)))

    reports = read_reports(sorted(tmp_path.iterdir()))

    assert reports == [without(seed=9), without(seed=10)]
