"""Whatever crashes and delays there are: the same result and steps, a legal history."""

import json
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.helpers.stubs import CountedIds
from tests.workflow.simulation import (
    Do,
    FailedError,
    Gather,
    Simulation,
    Sleep,
    Wait,
    app_of,
    expected,
)

from askel.state import Activated, Keys
from askel.workflow import Activation
from askel.workflow.context import StepCall

NAMES = st.sampled_from("abc")
DOES = st.builds(
    Do,
    name=NAMES,
    number=st.integers(0, 9),
    failures=st.integers(0, 2),
    for_good=st.sampled_from([False] * 4 + [True]),
    queued=st.sampled_from([False, False, True]),
    delayed=st.booleans(),
    caught=st.booleans(),
    asks=st.booleans(),
)
LEAVES = DOES | st.builds(Sleep, NAMES) | st.builds(Wait, NAMES, st.booleans())


def sequences(operations, longest=3):
    return st.lists(operations, min_size=1, max_size=longest).map(tuple)


LIMITS = st.sampled_from([None, 1, 2])
GATHERS = st.builds(Gather, st.lists(sequences(LEAVES), min_size=1, max_size=3).map(tuple), LIMITS)
NESTED = st.builds(
    Gather, st.lists(sequences(LEAVES | GATHERS, 2), min_size=1, max_size=3).map(tuple), LIMITS
)
PROGRAMS = sequences(LEAVES | GATHERS | NESTED, 4)


@pytest.fixture(autouse=True, scope="module")
def small_turns():
    """Let fan-outs of three take several turns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("askel.workflow.activation.MAX_DECISIONS", 2)
        patch.setattr("askel.workflow.activation.MAX_RESULTS", 2)
        yield


def outcome(program):
    """The status and the value, or the number of the step that fails the run."""
    try:
        return "completed", expected(program)
    except FailedError as failure:
        return "failed", str(failure.args[0])


def reached(simulation):
    """The status and the value that the run ended with."""
    server = simulation.server
    value = json.loads(server.result)
    return server.status, value if server.status == "completed" else value["message"].rpartition(
        ": "
    )[2]


def check_history(server):
    """Attempts are gapless and end once, no timer is early, a step that has ended stays so."""
    attempts: dict[str, int] = {}
    open_attempts: set[str] = set()
    due: dict[tuple[str, int], int] = {}
    ended: set[str] = set()
    seen = 0
    for position, text in enumerate(server.history):
        entry = json.loads(text)
        if "seen" in entry:
            assert seen <= entry["seen"] <= position
            seen = entry["seen"]
        if entry["t"] != "step":
            continue
        name, status = entry["name"], entry["status"]
        entry.setdefault("attempt", 1)
        is_over = due.pop((name, entry["attempt"]), 0)
        is_heard = status == "succeeded" and "seen" in entry and "rpc" not in entry
        assert is_heard or entry["at"] >= is_over, f"{name} is early"
        if "due" in entry:
            due[name, entry["attempt"]] = entry["due"]
        assert name not in ended, f"{name} goes on after its end"
        if entry["attempt"] != attempts.get(name, 0):
            assert entry["attempt"] == attempts.get(name, 0) + 1
            assert name not in open_attempts
            attempts[name] = entry["attempt"]
        closes = status in {"succeeded", "failed", "lost"}
        (open_attempts.discard if closes else open_attempts.add)(name)
        if status == "succeeded" or entry.get("final"):
            ended.add(name)
    if server.status in {"completed", "failed"}:
        assert not open_attempts


def check_every_prefix(simulation):
    """A process that finds the history as it was at any moment reaches what is recorded next."""
    server = simulation.server
    for boundary in server.boundaries:
        loaded = Activated(0, "program", "running", b"null", server.history[:boundary])
        activation = Activation(
            simulation.app, Keys("p"), CountedIds(), run_id="r", owner="o", loaded=loaded
        )
        assert activation._stalled is None, f"{activation._stalled} at {boundary}"
        # What is not recorded yet may be another step when it is: of what happens side by side.
        recorded = activation._replay.open.keys() & activation._replay.steps.keys()
        for key in recorded:
            call = activation._replay.open[key].call
            if isinstance(call, StepCall):
                assert call.data == server.steps[key].data, f"{key} at {boundary}"
        activation.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PROGRAMS, st.integers(0, 2**32), st.integers(0, 120))
def test_run_ends_as_if_nothing_had_happened(program, seed, steps):
    simulation = Simulation(program, random.Random(seed))

    simulation.run(steps)

    assert reached(simulation) == outcome(program)
    check_history(simulation.server)
    check_every_prefix(simulation)


def bases(program):
    """How often each name is reached, whichever way the program goes."""
    names: Counter[str] = Counter()
    for op in program:
        if isinstance(op, Gather):
            for part in op.parts:
                names += bases(part)
        else:
            names[op.name] += 1
    return names


def waits(program):
    """How many waits for signals there are."""
    parts = [part for op in program if isinstance(op, Gather) for part in op.parts]
    return sum(isinstance(op, Wait) for op in program) + sum(map(waits, parts))


@settings(max_examples=40, deadline=None)
@given(PROGRAMS.filter(lambda program: outcome(program)[0] == "completed"), st.integers(0, 2**32))
def test_steps_have_the_keys_of_their_names_and_reaches(program, seed):
    simulation = Simulation(program, random.Random(seed))
    simulation.run(60)

    keys = {
        f"{name}#{number}" if number else name
        for name, count in bases(program).items()
        for number in range(count)
    }
    found = set(simulation.server.steps)
    assert found <= keys
    assert len(keys - found) <= waits(program)  # one whose signal was there already is no step


@settings(max_examples=40, deadline=None)
@given(PROGRAMS, st.integers(0, 2**32))
def test_without_crashes_no_attempt_is_lost_or_repeated(program, seed):
    simulation = Simulation(program, random.Random(seed))
    simulation.run(0)

    assert simulation.crashes == 0
    statuses = Counter(json.loads(text).get("status") for text in simulation.server.history)
    assert statuses["lost"] == 0


def changed(program):
    """Variants of a program whose first step is another one."""
    first, *rest = program
    yield "renamed", (Do("new", first.number), *rest)
    yield "removed", tuple(rest)
    yield "replaced by a sleep", (Sleep(first.name), *rest)


ORDINARY = st.builds(Do, name=st.sampled_from("abc"), number=st.integers(0, 9))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(ORDINARY, min_size=2, max_size=4, unique_by=lambda op: op.name), st.integers(0, 2**32)
)
def test_code_that_no_longer_matches_is_always_noticed(program, seed):
    simulation = Simulation(tuple(program), random.Random(seed))
    simulation.run(30)
    assert simulation.server.status == "completed"

    for how, other in changed(tuple(program)):
        loaded = Activated(0, "program", "running", b"null", simulation.server.history)
        activation = Activation(
            app_of(other), Keys("p"), CountedIds(), run_id="r", owner="o", loaded=loaded
        )
        assert activation._stalled is not None, how
        assert repr(program[0].name) in str(activation._stalled)
        activation.close()
