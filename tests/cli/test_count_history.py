"""The demonstration counts for itself: what it must find when something was lost or doubled."""

import pytest

from askel.state import HistoryEntry
from askeld.demo import count_history, example_folder, read_customers


def run(status):
    return HistoryEntry("run", 0, status)


def step(name, *statuses, attempt=1):
    return [HistoryEntry("step", 0, status, name, attempt) for status in statuses]


def timer(name, attempt=1):
    return HistoryEntry("timer", 0, "", name, attempt)


GOOD = [
    run("running"),
    *step("a", "running", "succeeded"),
    *step("b", "running", "failed"),
    *step("b", "pending", attempt=2),
    timer("b", 2),
    *step("b", "running", "lost", attempt=2),
    *step("b", "running", "succeeded", attempt=3),
    *step("rest", "scheduled", "succeeded"),
    run("completed"),
]
ALL_IS_WELL = {
    "completed": 1,
    "steps": 3,
    "attempts": 4,
    "retried": 1,
    "re_executed": 1,
    "lost": 0,
    "duplicated": 0,
}


def counted(entries):
    return {name: count_history(entries)[name] for name in ALL_IS_WELL}


def without(entries, *gone):
    return [entry for at, entry in enumerate(entries) if at not in gone]


def test_a_good_history_counts_what_is_there():
    assert counted(GOOD) == ALL_IS_WELL


@pytest.mark.parametrize(
    ("entries", "changes"),
    [
        pytest.param(without(GOOD, 2), {"lost": 1, "steps": 2}, id="a step without result"),
        pytest.param(
            without(GOOD, 2, 10, 12), {"lost": 3, "steps": 0}, id="three steps without result"
        ),
        pytest.param([*GOOD, *step("a", "succeeded")], {"duplicated": 1}, id="two results"),
        pytest.param(
            [*GOOD, *step("a", "succeeded", "succeeded")], {"duplicated": 2}, id="three results"
        ),
        pytest.param(
            [*GOOD, *step("a", "succeeded", attempt=2)],
            {"duplicated": 1},
            id="results of two attempts",
        ),
        pytest.param(
            [*GOOD, *step("rest", "succeeded")], {"duplicated": 1}, id="a sleep that ended twice"
        ),
        pytest.param(
            [*GOOD, *step("a", "running")],
            {"duplicated": 1, "attempts": 5},
            id="one attempt begun twice",
        ),
        pytest.param([*GOOD, run("completed")], {"duplicated": 1}, id="completed twice"),
        pytest.param(
            [*GOOD, run("failed")], {"duplicated": 1, "lost": 1}, id="completed, then failed"
        ),
        pytest.param(without(GOOD, 13), {"lost": 1, "completed": 0}, id="no end"),
        pytest.param([*without(GOOD, 13), run("failed")], {"lost": 1, "completed": 0}, id="failed"),
        pytest.param(
            [*without(GOOD, 13), run("cancelled")], {"lost": 1, "completed": 0}, id="cancelled"
        ),
    ],
)
def test_what_was_planted_is_counted(entries, changes):
    assert counted(entries) == ALL_IS_WELL | changes


def test_a_run_without_history_is_lost():
    assert counted([]) == dict.fromkeys(ALL_IS_WELL, 0) | {"lost": 1}


def test_an_attempt_that_is_tried_again_is_no_duplicate():
    again = [run("running"), *step("a", "running", "lost"), *step("a", "running", attempt=2)]
    assert counted(again)["duplicated"] == 0
    assert counted(again)["lost"] == 2  # No result, and no end.


def test_the_customers_are_realistic_and_repeat_when_they_end():
    customers = read_customers(example_folder() / "customers.csv", 301)
    assert customers[300] == customers[0]
    assert len({customer["email"] for customer in customers}) == 300
    assert all(isinstance(customer["seats"], int) for customer in customers)
