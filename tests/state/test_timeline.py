"""The timeline of a run, and the run as it stood at any moment of it."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from askel import (
    ApprovalAt,
    InvalidOptionError,
    RunStatus,
    SerializedError,
    SignalAt,
    StepAt,
    StepStatus,
    build_timeline,
    reconstruct_state_at,
)
from askel.state import decode_entries, fold_attempts


def entry(kind, at=0, **members):
    return {"t": kind, "at": at, **members}


def step(name, status, attempt=1, at=0, **members):
    return entry("step", at, name=name, status=status, attempt=attempt, **members)


def timeline(*entries):
    decoded = decode_entries(msgspec.json.encode(one) for one in entries)
    return build_timeline("r", decoded, fold_attempts("r", decoded))


def moment(at):
    return datetime.fromtimestamp(at / 1_000, UTC)


STORY = timeline(
    entry("run", 10, status="running", workflow="w"),
    step("a", "pending", at=11, rpc="f"),
    step("a", "running", at=12),
    entry("state", 13, name="x", value=1),
    step("a", "failed", at=14, error={"message": "no"}, **{"from": "z", "id": "i"}),
    step("a", "pending", 2, at=15),
    entry("timer", 16, name="a", attempt=2),
    entry("signal", 17, name="paid", data={"sum": 3}),
    entry("run", 18, status="suspended"),
    entry("approval", 19, name="ok?", status="waiting"),
    step("a", "succeeded", 2, at=20, result=[None], branch="left", child="kid"),
    step("b", "running", at=20),
    entry("approval", 21, name="ok?", status="decided", data=True, by="ann"),
    entry("state", 22, name="x", value=None),
    entry("from the future", 23, anything=1),
    step("b", "lost", at=24, error={"message": "gone"}),
    entry("run", 25, status="failed", error={"message": "no"}),
)


def test_events_are_numbered_by_their_place_and_carry_what_was_recorded():
    events = STORY.events

    assert [event.seq for event in events] == list(range(17))
    assert [event.at for event in events[:4]] == [moment(at) for at in (10, 11, 12, 13)]
    assert (events[0].kind, events[0].status, events[0].workflow) == ("run", "running", "w")
    assert (events[1].name, events[1].attempt, events[1].from_step_name) == ("a", 1, "z")
    assert events[4].error == SerializedError("no")
    assert (events[6].kind, events[6].name, events[6].attempt) == ("timer", "a", 2)
    assert (events[7].name, events[7].data, events[7].from_step_name) == ("paid", {"sum": 3}, None)
    assert (events[10].result, events[10].branch, events[10].child_run_id) == (
        [None],
        "left",
        "kid",
    )
    assert (events[12].decided_by, events[12].data) == ("ann", True)
    assert events[14].kind == "from the future"


def test_before_the_first_event_the_run_is_pending():
    for at in (-1, -7, moment(9)):
        state = reconstruct_state_at(STORY, at)
        assert (state.seq, state.at, state.phase, state.status) == (-1, None, "pending", None)
        assert (state.steps, state.results, state.variables, state.path) == ({}, {}, {}, [])
        assert (state.signals, state.approvals, state.branches) == ([], {}, {})


@pytest.mark.parametrize(
    ("seq", "phase", "a"),
    [
        (0, "pending", None),
        (1, "running", StepAt(StepStatus.PENDING, 1, from_step_name="z")),
        (2, "running", StepAt(StepStatus.RUNNING, 1, from_step_name="z")),
        (
            4,
            "failed",
            StepAt(StepStatus.FAILED, 1, error=SerializedError("no"), from_step_name="z"),
        ),
        (5, "running", StepAt(StepStatus.PENDING, 2, from_step_name="z")),
        (9, "running", StepAt(StepStatus.PENDING, 2, from_step_name="z")),
        (
            10,
            "idle",
            StepAt(
                StepStatus.SUCCEEDED,
                2,
                [None],
                from_step_name="z",
                branch="left",
                child_run_id="kid",
            ),
        ),
        (11, "running", None),
        (15, "failed", None),
    ],
)
def test_steps_are_as_they_were_at_the_event_inclusive(seq, phase, a):
    state = reconstruct_state_at(STORY, seq)

    assert (state.seq, state.phase) == (seq, phase)
    if a is not None:
        assert state.steps["a"] == a
    assert state.results == ({"a": [None]} if seq >= 10 else {})
    assert state.path == ["a", "b"][: len(state.steps)]


def test_variables_signals_approvals_and_status_are_as_they_were():
    early, late = reconstruct_state_at(STORY, 9), reconstruct_state_at(STORY)

    assert early.status is RunStatus.SUSPENDED
    assert early.variables == {"x": 1}
    assert early.signals == late.signals == [SignalAt(7, moment(17), "paid", {"sum": 3})]
    assert early.approvals == {"ok?": ApprovalAt(9, moment(19), "ok?", "waiting")}
    assert late.approvals == {"ok?": ApprovalAt(12, moment(21), "ok?", "decided", True, "ann")}
    assert (late.status, late.variables) == (RunStatus.FAILED, {"x": None})
    assert (late.branches, late.seq, late.at) == ({"a": "left"}, 16, moment(25))


def test_a_note_changes_nothing_but_what_it_notes():
    told = timeline(
        step("a", "succeeded", result=1),
        step("a", "succeeded", branch="left"),
        step("a", "succeeded", child="kid"),
    )

    assert reconstruct_state_at(told).steps["a"] == StepAt(
        StepStatus.SUCCEEDED, 1, 1, branch="left", child_run_id="kid"
    )


def test_a_new_attempt_that_begins_running_has_no_outcome_of_the_last():
    told = timeline(
        step("a", "lost", error={"message": "gone"}, branch="left"), step("a", "running", 2)
    )

    assert reconstruct_state_at(told).steps["a"] == StepAt(StepStatus.RUNNING, 2)
    assert reconstruct_state_at(told).branches == {}


def test_a_time_reaches_up_to_the_last_event_at_or_before_it():
    assert reconstruct_state_at(STORY, moment(20)).seq == 11
    assert reconstruct_state_at(STORY, moment(20) - timedelta(microseconds=1)).seq == 9
    assert reconstruct_state_at(STORY, moment(10_000)).seq == 16


def test_order_is_that_of_the_list_although_the_clock_was_set_back():
    told = timeline(
        step("a", "running", at=100), step("a", "succeeded", at=50, result=1), entry("x", 60)
    )

    assert reconstruct_state_at(told, moment(55)).seq == 1
    assert reconstruct_state_at(told, 1).results == {"a": 1}
    assert reconstruct_state_at(told, moment(49)).seq == -1


@pytest.mark.parametrize("at", ["1", 1.5, True, datetime(2026, 1, 1)])  # noqa: DTZ001 - refused
def test_what_is_neither_a_place_nor_a_time_is_refused(at):
    with pytest.raises(InvalidOptionError, match="time zone"):
        reconstruct_state_at(STORY, at)


def test_nothing_told_is_a_run_before_it_began():
    assert reconstruct_state_at(timeline()) == reconstruct_state_at(STORY, -1)


NAMES = st.sampled_from(["a", "b", "a#1", "step", "x:step:y", "höl*?[z]"])
TIMES = st.integers(0, 5)
VALUES = st.sampled_from([None, 0, False, "", [], {}, 1.5, "ü"])
ENTRIES = st.lists(
    st.one_of(
        st.builds(entry, st.just("run"), TIMES, status=st.sampled_from([*RunStatus])),
        st.builds(step, NAMES, st.sampled_from(["pending", "running"]), st.integers(1, 3), TIMES),
        st.builds(step, NAMES, st.just("succeeded"), st.integers(1, 3), TIMES, result=VALUES),
        st.builds(
            step,
            NAMES,
            st.sampled_from(["failed", "lost"]),
            st.integers(1, 3),
            TIMES,
            error=st.just({"message": "m"}),
        ),
        st.builds(entry, st.just("state"), TIMES, name=NAMES, value=VALUES),
        st.builds(entry, st.just("signal"), TIMES, name=NAMES, data=VALUES),
        st.builds(entry, st.sampled_from(["timer", "approval", "new"]), TIMES, name=NAMES),
    ),
    max_size=30,
)


@given(ENTRIES, st.integers(-2, 31))
def test_a_moment_is_the_end_of_the_timeline_cut_there(entries, seq):
    whole = timeline(*entries)

    state = reconstruct_state_at(whole, seq)

    assert state == reconstruct_state_at(timeline(*entries[: max(seq + 1, 0)]))
    assert state.seq == max(min(seq, len(entries) - 1), -1)


@given(ENTRIES)
def test_every_moment_agrees_with_what_was_recorded_last(entries):
    whole = timeline(*entries)
    for seq, one in enumerate(entries):
        state, before = reconstruct_state_at(whole, seq), reconstruct_state_at(whole, seq - 1)
        assert list(state.steps) == state.path
        assert state.path[: len(before.path)] == before.path
        assert set(state.results) == {
            name for name, at in state.steps.items() if at.status is StepStatus.SUCCEEDED
        }
        match one["t"]:
            case "run":
                assert state.status == one["status"]
            case "state":
                assert state.variables[one["name"]] == one["value"]
            case "signal":
                assert state.signals == [
                    *before.signals,
                    SignalAt(seq, moment(one["at"]), one["name"], one["data"]),
                ]
            case "step":
                assert state.steps[one["name"]].status == one["status"]
        if one["t"] != "step":
            assert state.steps == before.steps


@given(ENTRIES, TIMES)
def test_a_time_finds_the_last_event_that_was_not_later(entries, at):
    state = reconstruct_state_at(timeline(*entries), moment(at))

    assert all(one["at"] > at for one in entries[state.seq + 1 :])
    assert state.seq == -1 or entries[state.seq]["at"] <= at
