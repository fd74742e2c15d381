"""Replay from hand-made histories: what is recorded is not done again, and must match."""

import json

import pytest
from tests.workflow.histories import (
    activation,
    app,
    begun,
    done,
    entry,
    landed,
    names,
    work,
)

from askel import Run, StepFailedError


def test_recorded_results_are_returned_and_never_asked_for_again():
    active = activation(
        "pair", begun(), done(result=5), begun("second", seen=3), done("second", 7, seen=4), turn=3
    )

    turn = active.next_turn()

    assert (turn.results, turn.decisions, turn.end, turn.json) == ([], [], "completed", b"12")


def test_result_of_a_queued_step_arrives_as_a_tail():
    active = activation("sent")
    turn = active.next_turn()
    landed(active, turn)
    turn = active.next_turn(forced=True)
    theirs = [entry(name="far"), entry(status="succeeded", name="far", result="packed", id="x")]
    landed(active, turn, tail=theirs)

    assert (active.next_turn().end, active._replay.value) == ("completed", "packed")


def test_order_of_the_first_time_is_the_order_of_replay():
    """The right step ended first; its result stands later in the history, but was seen earlier."""
    for first, second in (("left", "right"), ("right", "left")):
        history = [
            begun("left"),
            begun("right"),
            done(first, 0, seen=3),
            begun("same name", seen=3),
            done(second, 0, seen=5),
            begun("same name#1", seen=5),
        ]
        active = activation("racing", *history, turn=3)
        assert active._stalled is None
        data = {key: json.loads(reached.call.data) for key, reached in active._replay.open.items()}
        assert data == {"same name": 1, "same name#1": 2}


def test_foreign_entries_are_fed_where_the_deciding_code_saw_them():
    """A result that was recorded before a turn, but that this turn had not seen, comes after it."""
    foreign = entry(status="succeeded", name="right", result=0, id="x")
    history = [
        begun("left"),
        begun("right"),
        foreign,
        done("left", 0, seen=3),
        begun("same name", seen=3),
    ]
    active = activation("racing", *history, turn=2)

    assert active._stalled is None
    assert json.loads(active._replay.open["same name"].call.data) == 1
    assert json.loads(active._replay.open["same name#1"].call.data) == 2


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ([begun("renamed")], ["'renamed'", "'first'"]),
        ([begun("first", rpc="another")], ["'first'", "another", "work"]),
        ([entry(status="scheduled", name="first", seen=1, due=5)], ["'first'", "a sleep", "work"]),
        ([begun("second", seen=1)], ["'second'", "'first'"]),
        (
            [
                begun(),
                done(),
                begun("second", seen=3),
                done("second", 7, seen=4),
                begun("third", seen=5),
            ],
            ["'third'", "nothing"],
        ),
    ],
)
def test_history_that_the_code_does_not_match_stalls_the_run_and_names_both(history, said):
    turn = activation("pair", *history, turn=1).next_turn()

    assert (turn.end, turn.outcome, turn.decisions) == ("stalled", "error", [])
    error = json.loads(turn.json)
    assert error["name"] == "NonDeterminismError"
    for words in said:
        assert words in error["message"]
    assert "put the recorded" in error["message"]


def test_code_is_closed_with_its_activation():
    closed = []

    @app.workflow(name="closing")
    async def closing(run: Run) -> None:
        try:
            await run.do("first", work, 1)
        except StepFailedError:
            pytest.fail("nothing failed")
        finally:
            closed.append(True)
            await run.do("too late", work, 1)

    active = activation("closing")
    active.next_turn()
    active.close()

    assert closed == [True]
    del app.workflows["closing"]


def test_steps_that_another_program_inserted_are_no_contradiction():
    """An embedding program may add steps of its own; the code does not know them."""
    foreign = entry(status="pending", name="their own", rpc="theirs")

    assert names(activation("pair", foreign).next_turn().decisions) == [("first", "running", 1)]
