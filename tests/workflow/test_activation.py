"""What an activation decides, turn by turn, from hand-made histories."""

import json

import pytest
from tests.workflow.histories import (
    activation,
    begun,
    done,
    entry,
    failed,
    landed,
    names,
)

from askel import SerializedError
from askel.state import Turned, codec
from askel.wire import StepExecute, TimerFire, decode_command, decode_timer, encode_command
from askel.workflow import Outcome
from askel.workflow.activation import MAX_DECISIONS, MAX_RESULTS


def test_first_turn_begins_the_first_step():
    active = activation("pair")

    turn = active.next_turn()

    assert (turn.run_id, turn.owner, turn.number, turn.seen, turn.end) == ("r", "own", 0, 1, "")
    (decision,) = turn.decisions
    assert names(turn.decisions) == [("first", "running", 1)]
    assert (decision.expect, decision.expect_attempt) == ("", "")
    fields = dict(zip(decision.fields[::2], decision.fields[1::2], strict=True))
    assert fields.pop("stepId").startswith("r:first:")
    assert fields == {"data": b"1", "rpcName": "work", "retries": 1, "retryDelay": "5s"}
    assert decision.body == '"t":"step","name":"first","status":"running","rpc":"work","seen":1'


def test_attempts_are_executed_when_their_beginning_has_landed():
    active = activation("pair")
    turn = active.next_turn()
    assert not active.has_local_work

    (attempt,) = landed(active, turn)

    assert (attempt.key, attempt.attempt, attempt.data, attempt.nonce) == (
        "first",
        1,
        b"1",
        turn.decisions[0].nonce,
    )
    assert active.has_local_work
    assert active.next_turn() is None


def test_result_and_next_beginning_leave_in_one_turn():
    active = activation("pair")
    (attempt,) = landed(active, active.next_turn())
    active.finished(attempt, Outcome(b"5"))

    turn = active.next_turn()

    assert [(r.name, r.becomes, r.json, r.nonce, r.final) for r in turn.results] == [
        ("first", "succeeded", b"5", attempt.nonce, True)
    ]
    assert names(turn.decisions) == [("second", "running", 1)]
    assert turn.decisions[0].fields[3] == b"5"
    assert (
        dict(zip(turn.decisions[0].fields[::2], turn.decisions[0].fields[1::2], strict=True))[
            "fromStepName"
        ]
        == "first"
    )


def test_last_result_and_the_end_leave_in_one_turn():
    active = activation("pair", begun(), done(), begun("second", seen=3), turn=2)
    turn = active.next_turn()  # the attempt of the process that died is closed
    (attempt,) = landed(active, turn)
    active.finished(attempt, Outcome(b"7"))

    turn = active.next_turn()

    assert (turn.end, turn.outcome, turn.json) == ("completed", "output", b"12")
    assert [result.name for result in turn.results] == ["second"]


def test_turn_that_is_not_needed_is_not_sent_unless_asked_for():
    active = activation("pair")
    landed(active, active.next_turn())

    assert active.next_turn() is None
    assert active.next_turn(forced=True).decisions == []


def test_nonce_of_a_turn_belongs_to_its_content():
    active = activation("pair")
    nonces = {active.next_turn(forced=True).nonce for _ in range(5)}

    assert len(nonces) == 5


def test_attempt_of_a_process_that_died_is_lost_and_begun_again():
    active = activation("pair", begun())

    turn = active.next_turn()

    ((result,), (decision,)) = turn.results, turn.decisions
    assert (result.name, result.becomes, result.attempt, result.nonce, result.final) == (
        "first",
        "lost",
        1,
        "*",
        False,
    )
    assert json.loads(result.json)["name"] == "AttemptLost"
    assert (decision.name, decision.expect, decision.expect_attempt, decision.attempt) == (
        "first",
        "running",
        1,
        2,
    )


def test_lost_attempt_that_was_the_last_fails_the_step():
    history = [
        begun(),
        failed(),
        entry(status="pending", name="first", attempt=2, seen=2, due=9),
        entry("timer", name="first", attempt=2),
        begun("first", 2, seen=5),
    ]
    active = activation("pair", *history, turn=3)

    turn = active.next_turn()
    assert [(r.name, r.becomes, r.final) for r in turn.results] == [("first", "lost", True)]
    landed(active, turn)
    turn = active.next_turn()
    assert (turn.end, json.loads(turn.json)["name"]) == ("failed", "StepFailedError")


def test_failed_attempt_waits_for_its_delay_in_the_same_turn():
    active = activation("pair")
    (attempt,) = landed(active, active.next_turn())
    error = SerializedError("no")
    active.finished(attempt, Outcome(codec.encode(error), error))

    turn = active.next_turn()

    assert [(r.becomes, r.final) for r in turn.results] == [("failed", False)]
    (decision,) = turn.decisions
    assert names(turn.decisions) == [("first", "pending", 2)]
    assert (decision.expect, decision.expect_attempt, decision.delay_ms) == ("running", 1, 5_000)
    queue, words = decode_timer(decision.timer)
    assert (queue, words) == (
        "",
        encode_command(TimerFire(run_id="r", step_name="first", attempt=2, born="1000")),
    )
    assert landed(active, turn) == []
    assert active.next_turn() is None


def test_timer_lets_the_next_attempt_begin():
    pending = entry(status="pending", name="first", attempt=2, seen=2, due=6_000)
    waiting = activation("pair", begun(), failed(), pending, turn=2)
    assert waiting.next_turn() is None

    fired = activation(
        "pair", begun(), failed(), pending, entry("timer", name="first", attempt=2), turn=2
    )
    assert names(fired.next_turn().decisions) == [("first", "running", 2)]


@pytest.mark.parametrize(
    "late", [entry("timer", name="first", attempt=1), entry("timer", name="another", attempt=2)]
)
def test_timer_of_something_else_begins_nothing(late):
    pending = entry(status="pending", name="first", attempt=2, seen=2, due=6_000)

    assert activation("pair", begun(), failed(), pending, late, turn=2).next_turn() is None


def test_permanent_failure_is_final_whatever_the_policy():
    active = activation("pair")
    (attempt,) = landed(active, active.next_turn())
    error = SerializedError("no")
    active.finished(attempt, Outcome(codec.encode(error), error, permanent=True))

    turn = active.next_turn()

    assert [result.final for result in turn.results] == [True]
    assert (turn.decisions, turn.end) == ([], "failed")


def test_steps_side_by_side_begin_in_one_turn():
    turn = activation("forked").next_turn()

    assert names(turn.decisions) == [
        ("left", "running", 1),
        ("right", "running", 1),
        ("nap", "scheduled", 1),
    ]
    assert turn.decisions[2].delay_ms == 2_000


def test_wide_fan_out_takes_several_turns():
    width = 2 * MAX_DECISIONS + 7
    active = activation("wide", input=str(width).encode())
    begun_in = []
    while turn := active.next_turn():
        begun_in.append(len(landed(active, turn)))

    assert begun_in == [MAX_DECISIONS, MAX_DECISIONS, 7]


def test_many_outcomes_take_several_turns_and_each_failure_keeps_its_successor():
    width = 2 * MAX_RESULTS + 100
    active = activation("wide", input=str(width).encode())
    attempts = []
    while turn := active.next_turn():
        attempts += landed(active, turn)
    error = SerializedError("no")
    for attempt in attempts:
        active.finished(attempt, Outcome(codec.encode(error), error))

    sizes = []
    while turn := active.next_turn():
        assert {r.name for r in turn.results if not r.final} == {d.name for d in turn.decisions}
        sizes.append(len(turn.results))
        landed(active, turn)
    assert sizes == [MAX_RESULTS, MAX_RESULTS, 100]


def test_last_outcomes_leave_before_the_end():
    width = MAX_RESULTS + 1
    active = activation("wide", input=str(width).encode())
    attempts = []
    while turn := active.next_turn():
        attempts += landed(active, turn)
    for attempt in attempts:
        active.finished(attempt, Outcome(b"1"))

    first = active.next_turn()
    landed(active, first)
    last = active.next_turn()

    assert (len(first.results), first.end, len(last.results), last.end) == (
        MAX_RESULTS,
        "",
        1,
        "completed",
    )


def test_step_for_a_queue_is_sent_and_left_alone():
    active = activation("sent")
    turn = active.next_turn()

    (decision,) = turn.decisions
    assert (decision.becomes, decision.nonce, decision.queue) == (
        "scheduled",
        "",
        "p:commands:warehouse",
    )
    assert decode_command([word.encode() for word in decision.command]) == StepExecute(
        run_id="r",
        step_name="far",
        rpc_name="packOrder",
        data='{"id":1}',
        retries=2,
        retry_delay="3s",
        timeout="1min",
        born="1000",
    )
    assert landed(active, turn) == []
    assert active.next_turn() is None
    assert (
        activation(
            "sent", entry(status="scheduled", name="far", rpc="packOrder", seen=1), turn=1
        ).next_turn()
        is None
    )


def test_nothing_is_begun_while_the_run_is_suspended():
    active = activation("pair", entry("run", status="suspended"), status="suspended")
    assert active.next_turn() is None

    turn = active.next_turn(forced=True)
    landed(active, turn, tail=[entry("run", status="running")])
    assert names(active.next_turn().decisions) == [("first", "running", 1)]


def test_nothing_is_begun_while_told_to_hold():
    active = activation("pair")

    assert active.next_turn(hold=True) is None
    assert active.next_turn() is not None


def test_held_failure_is_recorded_with_its_wait():
    active = activation("pair")
    (attempt,) = landed(active, active.next_turn())
    error = SerializedError("no")
    active.finished(attempt, Outcome(codec.encode(error), error))

    turn = active.next_turn(hold=True)
    assert names(turn.decisions) == [("first", "pending", 2)]
    assert len(turn.results) == 1


def test_turn_that_was_behind_is_decided_again_with_the_tail():
    active = activation("pair", begun(), done(), begun("second", seen=3), turn=2)
    (attempt,) = landed(active, active.next_turn())
    active.finished(attempt, Outcome(b"7"))
    ending = active.next_turn()
    assert ending.end == "completed"

    active.behind(
        Turned("BEHIND", ending.number, ending.seen + 1, 1_000, [entry("signal", name="x")])
    )

    again = active.next_turn()
    assert (again.end, again.results, again.seen) == ("completed", ending.results, ending.seen + 1)
    assert again.nonce != ending.nonce


def test_run_is_given_up_only_when_nothing_of_it_is_worked_on():
    active = activation(
        "forked",
        begun("left"),
        entry(name="right", rpc="once", seen=1),
        entry(status="scheduled", name="nap", seen=1, due=3_000),
        turn=1,
    )
    assert active.next_turn(passivate=True).end == ""

    waiting = activation(
        "sent", entry(status="scheduled", name="far", rpc="packOrder", seen=1), turn=1
    )
    assert waiting.next_turn(passivate=True).end == "passivate"


def test_inline_timers_are_kept_in_memory():
    active = activation("forked", inline=True)
    turn = active.next_turn()
    assert turn.decisions[2].timer == b""
    landed(active, turn, at=10_000)

    assert active.next_due() == 12_000
    active.timers_due(11_999)
    assert active.next_turn() is None
    active.timers_due(12_000)
    assert [(r.name, r.becomes) for r in active.next_turn().results] == [("nap", "succeeded")]
    assert active.next_due() is None
