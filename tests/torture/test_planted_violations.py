"""Whatever breaks a promise is found: one lie after the other is planted in a legal file."""

import pytest
from tests.torture.plants import PLANTS, command, put, without
from tests.torture.transcripts import (
    AT,
    BASE_ONE,
    TIMER,
    ack,
    add,
    claim,
    encoded,
    entry,
    history,
    key,
    legal,
    step,
    took_over,
    turn,
)

from askeld.torture.aof import Aof
from askeld.torture.invariants import Invariant
from askeld.torture.replay import Replay


def judged(tmp_path, story, **options):
    path = tmp_path / "appendonly.aof"
    path.write_bytes(encoded(*story.values()))
    replay = Replay("p", **options)
    replay.play(Aof(path).transitions())
    replay.finish()
    return replay


def test_the_legal_file_is_legal(tmp_path):
    replay = judged(tmp_path, legal(), max_deliveries=5)
    assert replay.violations == []
    assert replay.evaluated > 100
    assert {name: (f.applied, f.dead) for name, f in replay.world.streams.fates.items()} == {
        b"start-1": (1, 0),
        b"r sig-1": (1, 0),
    }


@pytest.mark.parametrize("name", PLANTS, ids=lambda name: name.strip("_"))
def test_what_is_planted_is_found(tmp_path, name):
    invariant, kind, tell = PLANTS[name]
    story = legal()
    tell(story)
    replay = judged(tmp_path, story, max_deliveries=5)
    letter = invariant.value.partition(":")[0]
    found = {(v.invariant, v.kind) for v in replay.violations}
    assert (letter, kind) in found, replay.violations


def test_every_invariant_that_is_judged_by_transition_has_a_plant():
    planted = {invariant for invariant, _, _ in PLANTS.values()}
    # A result that is lost later shows at the end: `test_judge.py`.
    assert planted == set(Invariant) - {Invariant.RESULT}


def test_the_place_and_the_run_are_named(tmp_path):
    story = legal()
    PLANTS["_a_success_is_recorded_twice"][2](story)
    first = judged(tmp_path, story).violations[0]
    assert (first.run_id, first.transition) == ("r", 1 + list(story).index("done"))
    assert str(first).startswith("S2 duplicate: run 'r' at transition 6: 'a': succeeded 1")


def test_the_owner_may_be_replaced_and_its_lock_with_it(tmp_path):
    """No violation: the lock of a former owner, and one that would last beyond any lease."""
    story = legal()
    without(story["begun"], "DEL")  # the former owner died before it gave the lock back
    put(story, "begun", "taken", took_over("host-30-cccc/1", 5))
    story["done"].append(["DEL", key("lock", "r")])
    for name in ("done", "rests", "passive"):
        words = command(story[name], "HSET", "p:ctl:r")
        words[words.index("last") + 1] = "CCCCCCCC9.1"
    put(story, "token read", "held", [
        ["HINCRBY", key("ctl", "r"), "fence", "1"],
        ["SET", key("lock", "r"), "the dead", "PXAT", AT + 7_200_000],
    ])  # fmt: skip
    assert judged(tmp_path, story).violations == []


def test_entries_of_two_streams_may_have_the_same_id(tmp_path):
    """No violation: each stream gives out its ids by itself."""
    story = legal()
    put(story, "done", "twin", [add(4, type="run.signal", run_id="r", id="other", name="n")])
    put(story, "twin", "twin read", [claim(4, "host-99-zzzz")])
    assert judged(tmp_path, story).violations == []
    # Nor does a twin stand in for a token that is gone.
    put(story, "b done", "gone", ack(1))
    put(story, "started", "token's twin", [add(1, "q", type="step.execute", run_id="x")])
    assert judged(tmp_path, story).kinds["token_gone"] >= 1


def test_a_transition_that_is_several_commands_is_compared_at_the_end(tmp_path):
    """The control's: wrong for a moment is no finding, wrong at the end is one."""
    story = legal()
    words = command(story["b begun"], "HSET", "p:step:r:b")
    story["b begun"].remove(words)
    put(story, "b begun", "b begun too", [words])
    assert not judged(tmp_path, story, is_atomic=False).kinds["step_hash"]
    command(story["ended"], "HSET", "p:run:r")[-1] = "16"
    assert judged(tmp_path, story, is_atomic=False).kinds["run_hash"] == 1


def _heard(story, waits=True, **more):
    """Make the sleep a wait with a timeout, which a signal ends: its timer goes with it."""
    if waits:
        words = command(story["rests"], "RPUSH")
        words[2] = words[2].replace('"due"', '"waits":true,"due"')
    for name in ("passive", "fired", "timer read", "rested", "token read", "taken over"):
        del story[name]
    heard = entry("step", 10, name="rest", status="succeeded", attempt=1, result=None, **more)
    put(story, "rests", "heard", [
        step("rest", status="succeeded", result="null"),
        ["ZREM", key("timers"), TIMER],
        history(heard),
        turn(4, BASE_ONE),
    ])  # fmt: skip
    story["ended"] = [
        *ack(1),
        history(entry("run", 11, status="completed", output=15, seen=9)),
        turn(5, BASE_ONE),
        *story["ended"][-3:],
    ]


def test_a_wait_that_a_signal_ended_takes_its_timer_along(tmp_path):
    """No violation: nothing is left that could be late. Yet only a turn, only of such a wait."""
    story = legal()
    _heard(story, seen=8)
    assert judged(tmp_path, story).violations == []
    story = legal()
    _heard(story)
    assert judged(tmp_path, story).kinds["timer_lost"] == 1
    story = legal()
    _heard(story, waits=False, seen=8)
    found = judged(tmp_path, story).kinds
    assert (found["timer_lost"], found["timer_early"]) == (1, 1), "a turn ended a sleep"
