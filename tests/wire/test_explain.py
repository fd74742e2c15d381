"""The words for what Redis says of a run: every state, from facts alone."""

import re
from datetime import UTC, datetime

import pytest
from msgspec import structs
from tests.helpers.workers import ROOT

from askel.state import OpenStep, Place, RunFacts, StreamFacts
from askel.wire import DeadLetter, explain

NOW = 1_795_376_760_000
STREAM = StreamFacts("", 3, 1, has_group=True, idle_ms={"w1": 50, "gone": 90_000})
QUEUE = StreamFacts("q", 1, 0, has_group=True, idle_ms={"w2": 50})
RUN = RunFacts(
    run_id="r", now=NOW, workflow="w", status="running", created_at=NOW - 9_000,
    updated_at=NOW - 5_000, token="5-1", owner="w1/1", start="4-0",
    place=Place("pending", consumer="w1", idle_ms=40, deliveries=1),
    streams={"": STREAM, "q": QUEUE},
)  # fmt: skip
STEP = OpenStep("s", "running", "f", 1, 5, "exponential", "", NOW - 3_000)
SENT = structs.replace(STEP, status="scheduled", queue="q")
BEGUN = structs.replace(
    STEP, queue="q", lease_entry="6-0", lease=Place("pending", consumer="w2", idle_ms=60)
)
SLEEP = structs.replace(STEP, name="nap", status="scheduled", rpc_name="", retries=None)
WAIT = structs.replace(SLEEP, name="ok", signal="ok")
PASSIVE = {"place": None, "token": "", "owner": ""}


def leased(**changed):
    return structs.replace(BEGUN, lease=Place(**changed))


def of(step, **changed):
    return {"steps": (step,), "open_count": 1, **changed}


TABLE = [
    ("ended", {"status": "completed"}, "has completed at 2026-11-22 19:45:55 UTC; nothing is"),
    ("ended", {"status": "cancelled"}, "was cancelled at"),
    ("ended", {"status": "failed", "error": b'{"message":"no"}'}, "has failed at"),
    ("ended", {"status": "failed", "error": b'"askel:sealed"'}, "its error is sealed"),
    ("suspended", {"status": "suspended"}, "was suspended at"),
    ("stalled", {"status": "stalled", "error": b'{"message":"code"}'}, "UTC (code)."),
    ("inline", {"inline": True, "lock_holder": "x", "lock_pttl": 900}, "for at most 900 ms"),
    ("inline_abandoned", {"inline": True}, "a program that is gone"),
    ("driven_by_program", {"start": "", **PASSIVE}, "by the program that created it"),
    ("driven_by_program", {"start": "", **PASSIVE, **of(STEP)}, "of which 's' is open"),
    ("executed_elsewhere", {"start": "", **PASSIVE, **of(BEGUN)}, "worker w2 executes it since"),
    ("driven_by_program", of(structs.replace(STEP, status="pending"), **PASSIVE), "inserted"),
    ("undelivered", {"place": Place("waiting")}, "one of 2 commands. The next of the 1 worker"),
    ("no_reader", {"place": Place("waiting", "q"), "streams": {
        "q": structs.replace(QUEUE, idle_ms={})}}, "on queue 'q' to be read"),
    ("no_reader", {"place": Place("waiting", "q"), "streams": {
        "q": structs.replace(QUEUE, idle_ms={"w2": 90_000}, swept_ms=90_000)}}, "no worker reads"),
    ("undelivered", {"place": Place("waiting", "q"), "streams": {
        "q": structs.replace(QUEUE, idle_ms={"w2": 90_000}, swept_ms=900)}}, "the 1 worker(s)"),
    ("queued", of(SENT, **PASSIVE, streams={
        "q": structs.replace(QUEUE, idle_ms={"w2": 90_000}, swept_ms=900)}), "1 worker(s) there"),
    ("queue_without_worker", of(SENT, **PASSIVE, streams={
        "q": structs.replace(QUEUE, idle_ms={}, swept_ms=900)}), "no worker reads that queue"),
    ("unknown_workflow", {"place": Place("waiting"), "told": {
        "unknown_since": str(NOW - 60_000), "tries": "7"}}, "(7 times so far)"),
    ("unknown_workflow", {"told": {"unknown_since": "x"}}, "none has its workflow"),
    ("token_orphaned", {"place": Place("orphaned")}, "pending for nobody"),
    ("token_gone", {"place": Place("gone"), "owner": "gone/1"}, "deleted from the stream"),
    ("deciding", {"place": Place("gone")}, "in the hands of worker w1"),
    ("deciding", {}, "decides on its next step"),
    ("dead_worker", {"place": Place("pending", consumer="x", idle_ms=75_000)}, "for 75 s"),
    ("locked", {"lock_holder": "x", "lock_pttl": 30_000}, "holds it for at most 30 s"),
    ("locked", {"lock_holder": "x", "lock_pttl": -1}, "without an end (it never expires)"),
    ("running", of(STEP), "worker w1 executes step 's' since 2026-11-22 19:45:57 UTC"),
    ("running", of(structs.replace(STEP, attempt=3)), "(attempt 3 of 6)"),
    ("no_token", PASSIVE, "waits for nothing that could come"),
    ("no_token", of(STEP, **PASSIVE), "waits for nothing that could come"),
    ("sleeping", of(structs.replace(SLEEP, due=NOW + 60_000), **PASSIVE), "due at 2026"),
    ("sleeping", of(structs.replace(SLEEP, due=NOW - 60_000), **PASSIVE), "does one run?"),
    ("sleeping", of(structs.replace(SLEEP, due=NOW + 5)), "worker w1 keeps it in memory"),
    ("sleeping", of(structs.replace(SLEEP, due=NOW, fired=True), **PASSIVE), "that is over, and"),
    ("retrying", of(structs.replace(STEP, status="pending", attempt=2, due=NOW), **PASSIVE),
        "tries step 's' again (attempt 2 of 6)"),
    ("retrying", of(structs.replace(BEGUN, status="pending", attempt=2), **PASSIVE),
        "after a pause of its own"),
    ("waiting_for_signal", of(WAIT, **PASSIVE), "waits for signal 'ok' since 2026-11-22 19:45:57"),
    ("waiting_for_signal", of(structs.replace(WAIT, is_limited=True, due=NOW), **PASSIVE),
        "at the latest. It goes on when that is sent, or its time is over."),
    ("waiting_for_signal", of(WAIT), "worker w1 keeps it in memory"),
    ("timer_gone", of(structs.replace(WAIT, is_limited=True), **PASSIVE), "a timer that is gone"),
    ("timer_gone", of(SLEEP, **PASSIVE), "for a timer that is gone"),
    ("queued", of(SENT, **PASSIVE), "1 worker(s) there, 1 commands unread"),
    ("queue_without_worker", of(structs.replace(SENT, queue="x"), **PASSIVE), "on queue 'x'"),
    ("executed_elsewhere", of(BEGUN, **PASSIVE), "worker w2 executes it since"),
    ("dead_worker", of(leased(word="pending", consumer="x", idle_ms=400_000), **PASSIVE), "6 min"),
    ("step_entry_orphaned", of(leased(word="orphaned"), **PASSIVE), "pending for nobody"),
    ("step_entry_gone", of(leased(word="gone"), **PASSIVE), "was deleted"),
]  # fmt: skip
STUCK = {"inline_abandoned", "no_token", "timer_gone"} | {
    f"{what}_{how}" for what in ("token", "step_entry") for how in ("orphaned", "gone")
}


@pytest.mark.parametrize(("state", "changed", "words"), TABLE)
def test_every_state_has_its_words(state, changed, words):
    told = explain(structs.replace(RUN, **changed))

    assert told.state == state
    assert told.text.startswith("Run r of w ")
    assert words in told.text
    assert told.stuck is (state in STUCK)
    assert ("To unstick it: " in told.text) == bool(told.stuck and told.command)
    assert "  " not in told.text
    assert state == "ended" or told.next


def test_table_has_every_state():
    source = "".join(
        (ROOT / "state/askel/wire" / name).read_text()
        for name in ("explain.py", "explain_steps.py")
    )
    named = re.findall(r'state="(\w+)"(?: if \w+ else "(\w+)")?', source)

    assert {state for pair in named for state in pair if state} == {
        "step_dead_lettered",  # see below
        *(row[0] for row in TABLE),
    }


def letter(number=1, **changed):
    names = {"step_name": "s", "rpc_name": "f"}
    given = DeadLetter(
        f"{NOW}-{number}", "unknown_step", "why", "workflows:commands:q", f"{NOW - 3_000}-0", 1,
        datetime.fromtimestamp((NOW - 1_000) / 1_000, UTC), "step.execute", "r", names,
    )  # fmt: skip
    return structs.replace(given, **changed)


@pytest.mark.parametrize("kept", [PASSIVE, {}, {"start": "", **PASSIVE}])
def test_a_step_whose_command_is_a_dead_letter_is_stuck(kept):
    """Whether a worker has the run in memory, nobody has it, or a program drives it."""
    told = explain(structs.replace(RUN, **of(SENT), **kept), [letter(2), letter(1)])

    assert (told.state, told.stuck) == ("step_dead_lettered", True)
    assert told.command == f"askel dead redrive {NOW}-2"
    assert "waits for step 's', whose command is a dead letter (unknown_step)" in told.text


def test_a_stalled_run_is_resumed_when_its_letters_are_redriven():
    other = structs.replace(SENT, name="t")
    stalled = structs.replace(RUN, status="stalled", steps=(SENT, other), open_count=2)
    names = {"step_name": "t", "rpc_name": "f"}

    told = explain(stalled, [letter(2, names=names), letter(1)])

    assert told.state == "stalled"
    assert told.command == (f"askel dead redrive {NOW}-1 {NOW}-2 && askel send run.resume run_id r")
    assert "what its steps wait for is redriven" in told.text
    assert explain(stalled).command == "askel send run.resume run_id r"


@pytest.mark.parametrize(
    "changed",
    [
        {"reason": "poison"},
        {"type": "step.complete"},
        {"names": {"step_name": "t", "rpc_name": "f"}},
        {"names": {"step_name": "s", "rpc_name": "g"}},
        {"entry": f"{NOW - 10_000}-0"},
        {"entry": "of another program"},
        {"at": datetime.fromtimestamp((NOW - 4_000) / 1_000, UTC)},
    ],
)
def test_letters_of_other_steps_attempts_and_runs_hold_nothing_back(changed):
    told = explain(structs.replace(RUN, **of(SENT), **PASSIVE), [letter(**changed)])

    assert told.state == "queued"
    assert "1 dead letter is about it" in told.text


def test_a_step_that_is_executed_is_not_held_back_by_a_letter():
    told = explain(structs.replace(RUN, **of(BEGUN), **PASSIVE), [letter()])

    assert told.state == "executed_elsewhere"


@pytest.mark.parametrize(("idle_ms", "command"), [(40, ""), (20_000, "askel worker MODULE:APP")])
def test_what_was_pending_for_nobody_is_in_no_workers_hands(idle_ms, command):
    """The consumer that has it meanwhile is none: nobody executes anything under its name."""
    given = {"consumer": "-nobody", "idle_ms": idle_ms}
    run = structs.replace(RUN, place=Place("pending", **given))
    step = structs.replace(RUN, **of(leased(word="pending", **given)), **PASSIVE)

    for facts, state, queue in (
        (run, "token_orphaned", ""),
        (step, "step_entry_orphaned", " --queue q"),
    ):
        told = explain(facts)
        assert (told.state, told.stuck, told.holder) == (state, False, "")
        assert "pending for nobody" in told.text
        assert "-nobody" not in told.text
        assert told.command == (command and command + queue)


def test_a_step_that_is_on_no_queue_is_sent_again():
    """Its command was deleted before anybody read it: a worker alone does not help."""
    empty = structs.replace(QUEUE, length=0, idle_ms={})

    told = explain(structs.replace(RUN, **of(SENT), **PASSIVE, streams={"q": empty}))

    assert told.state == "queue_without_worker"
    assert "no worker reads that queue, and nothing is on it" in told.text
    assert told.command == "askel send step.execute run_id r step_name s rpc_name f --queue q"


def test_what_nothing_will_move_is_told_before_what_moves_by_itself():
    steps = (structs.replace(SLEEP, due=NOW + 5), leased(word="gone"))

    told = explain(structs.replace(RUN, steps=steps, open_count=25, **PASSIVE))

    assert (told.state, told.stuck) == ("step_entry_gone", True)
    assert "and 24 other step(s) are open" in told.text


def test_dead_letters_and_a_foreign_lock_are_told_beside():
    letter = DeadLetter("1-0", "poison", "", "", "", 5, datetime.now(UTC), "step.execute", "r")
    facts = structs.replace(RUN, lock_holder="x", lock_pttl=5_000, **of(SENT, **PASSIVE))

    text = explain(facts, [letter]).text

    assert "Its lock is held by another program for at most 5 s." in text
    assert "1 dead letter is about it, the newest poison (step.execute): askel dead ls" in text


def test_shell_words_are_quoted():
    step = structs.replace(leased(word="gone"), name="pack; rm -rf *")

    told = explain(structs.replace(RUN, **of(step, **PASSIVE)))

    assert "step_name 'pack; rm -rf *' rpc_name f --queue q" in told.command


def test_a_claim_idle_of_ones_own_is_believed():
    place = Place("pending", consumer="w1", idle_ms=3_000)

    assert explain(structs.replace(RUN, place=place)).state == "deciding"
    assert explain(structs.replace(RUN, place=place), claim_idle_ms=2_000).state == "dead_worker"
