"""Lies to be planted in a legal file, each with what it is to be found as."""

import json

from tests.torture.transcripts import (
    AT,
    BASE_ONE,
    TIMER,
    ack,
    add,
    claim,
    eid,
    entry,
    history,
    key,
    step,
    turn,
)

from askeld.torture.invariants import Invariant

PLANTS = {}


def plant(invariant, kind):
    """Register a lie that is to be found as *kind* of *invariant*."""

    def register(tell):
        PLANTS[tell.__name__] = (invariant, kind, tell)
        return tell

    return register


def command(transition, *beginning):
    """Return the one command of a transition that begins so."""
    found = [c for c in transition if tuple(map(str, c[: len(beginning)])) == beginning]
    assert len(found) == 1, beginning
    return found[0]


def without(transition, *beginning):
    """Take that command out."""
    transition.remove(command(transition, *beginning))


def put(story, after, name, transition):
    """Put a transition behind another."""
    items = list(story.items())
    place = [n for n, _ in items].index(after) + 1
    items.insert(place, (name, transition))
    story.clear()
    story.update(items)


# S1, S17: commands.


@plant(Invariant.COMMAND, "applied_twice")
def _a_command_is_sent_and_applied_again(story):
    again = [*ack(12), history(entry("signal", 13, name="n", data=None))]
    put(story, "b done", "again", [add(12, type="run.signal", run_id="r", id="sig-1", name="n")])
    put(story, "again", "twice", [*again, ["HSET", key("ctl", "r"), "nudged", "1"]])


@plant(Invariant.DEDUPE, "command_twice")
def _one_command_stands_twice_in_the_history(story):
    command(story["signalled"], "RPUSH").append(
        entry("signal", 6, name="n", data=None, command="sig-1")
    )


@plant(Invariant.COMMAND, "applied_and_dead")
def _an_applied_command_is_buried_too(story):
    put(story, "b done", "again", [add(12, type="run.signal", run_id="r", id="sig-1", name="n")])
    letter = ["XADD", key("dead"), eid(13), "reason", "run_ended", "entry", eid(12)]
    put(story, "again", "buried", [*ack(12), letter])


@plant(Invariant.COMMAND, "dropped")
def _a_command_is_acknowledged_and_has_no_effect(story):
    put(story, "signal read", "dropped", ack(5))
    del story["signalled"]
    for name in ("rests", "ended"):  # what follows has seen one entry less
        words = command(story[name], "RPUSH")
        words[2:] = [word.replace('"seen":9', '"seen":8') for word in words[2:]]


@plant(Invariant.ENTRY, "vanished")
def _an_entry_is_deleted_and_nobody_settled_it(story):
    put(story, "signal read", "gone", [["XDEL", key("commands"), eid(5)]])
    del story["signalled"]


@plant(Invariant.ENTRY, "vanished")
def _a_stream_of_commands_is_trimmed(story):
    put(story, "signal sent", "trimmed", [["XTRIM", key("commands"), "MAXLEN", "=", "1"]])


# S2, S3, S5: the path.


@plant(Invariant.ONCE, "duplicate")
def _a_success_is_recorded_twice(story):
    words = command(story["done"], "RPUSH")
    words.insert(3, words[2])


@plant(Invariant.ONCE, "duplicate")
def _a_run_begins_twice(story):
    words = command(story["started"], "RPUSH")
    words.append(entry("run", 2, status="running", workflow="w"))


@plant(Invariant.PATH, "run_path")
def _a_run_that_was_stalled_completes(story):
    words = command(story["ended"], "RPUSH")
    words.insert(2, entry("run", 503, status="stalled", seen=9))


@plant(Invariant.PATH, "run_path")
def _the_history_begins_with_a_signal(story):
    command(story["started"], "RPUSH").insert(2, entry("signal", 2, name="n"))


@plant(Invariant.PATH, "step_path")
def _a_step_fails_after_it_succeeded(story):
    words = command(story["done"], "RPUSH")
    failed = {"name": "a", "status": "failed", "attempt": 1, "error": {"message": "no"}, "seen": 2}
    words.insert(3, entry("step", 4, **failed))


@plant(Invariant.PATH, "history_rewritten")
def _an_entry_of_the_history_is_replaced(story):
    put(story, "done", "rewritten", [["LSET", key("history", "r"), "1", "{}"]])


@plant(Invariant.PATH, "history_rewritten")
def _the_history_is_removed_and_its_run_is_not(story):
    put(story, "done", "removed", [["DEL", key("history", "r")]])


@plant(Invariant.PATH, "no_entry")
def _an_entry_is_no_json(story):
    command(story["signalled"], "RPUSH").append("}{")


@plant(Invariant.ATTEMPTS, "attempt_gap")
def _attempts_begin_with_the_third(story):
    words = command(story["b begun"], "RPUSH")
    words[2] = entry("step", 7, name="b", status="running", attempt=3)


@plant(Invariant.ATTEMPTS, "two_open")
def _a_second_attempt_begins_beside_the_first(story):
    second = {"name": "b", "status": "running", "attempt": 2}
    put(
        story,
        "b begun",
        "second",
        [
            step("b", status="running", attemptCount="2", nonce="fresh-2"),
            history(entry("step", 7, **second)),
        ],
    )


# S4: hash and history.


@plant(Invariant.FOLD, "step_hash")
def _the_hash_of_a_step_says_something_else(story):
    words = command(story["b begun"], "HSET", "p:step:r:b")
    words[words.index("running")] = "scheduled"


@plant(Invariant.FOLD, "step_hash")
def _the_attempt_in_the_hash_is_another(story):
    words = command(story["b begun"], "HSET", "p:step:r:b")
    words[words.index("1")] = "2"


@plant(Invariant.FOLD, "step_hash")
def _the_result_in_the_hash_is_another(story):
    words = command(story["b done"], "HSET", "p:step:r:b")
    words[-1] = '{"value":9}'


@plant(Invariant.FOLD, "step_hash")
def _a_result_is_overwritten_later(story):
    put(story, "b done", "overwritten", [step("a", result="8")])


@plant(Invariant.FOLD, "run_hash")
def _a_run_has_ended_in_its_history_alone(story):
    words = command(story["ended"], "HSET", "p:run:r")
    words[3] = "running"


@plant(Invariant.FOLD, "run_hash")
def _a_run_has_another_output(story):
    command(story["ended"], "HSET", "p:run:r")[-1] = "16"


@plant(Invariant.FOLD, "step_hash")
def _history_and_hash_change_one_after_the_other(story):
    words = command(story["b begun"], "HSET", "p:step:r:b")
    story["b begun"].remove(words)
    put(story, "b begun", "b begun too", [words])


# S6: who is no longer the owner.


@plant(Invariant.STALE, "turn_number")
def _a_turn_is_taken_again(story):
    words = command(story["rests"], "HSET", "p:ctl:r")
    words[words.index("3")] = "2"


@plant(Invariant.STALE, "stale_turn")
def _a_former_owner_takes_a_turn(story):
    story["ended"][-4] = turn(5, BASE_ONE)


@plant(Invariant.STALE, "no_owner")
def _a_turn_is_taken_where_nobody_owns_the_run(story):
    del story["taken over"]


@plant(Invariant.STALE, "no_turn")
def _decisions_are_written_outside_of_a_turn(story):
    without(story["begun"], "HSET", "p:ctl:r")
    words = command(story["done"], "HSET", "p:ctl:r")
    words[words.index("2")] = "1"


@plant(Invariant.STALE, "stale_result")
def _the_result_of_an_earlier_attempt_lands(story):
    late = {"value": 8, "attempt": 7, "pid": 20}
    command(story["b done"], "HSET", "p:step:r:b")[-1] = json.dumps(late, separators=(",", ":"))
    words = command(story["b done"], "RPUSH")
    words[2] = words[2].replace('"attempt":1,"pid":20', '"attempt":7,"pid":20')


@plant(Invariant.STALE, "stale_result")
def _the_result_of_another_process_lands(story):
    for words in (
        command(story["b done"], "HSET", "p:step:r:b"),
        command(story["b done"], "RPUSH"),
    ):
        words[-1] = words[-1].replace('"pid":20', '"pid":10')


@plant(Invariant.STALE, "nonce_again")
def _an_attempt_begins_with_the_nonce_of_the_one_before(story):
    lost = {"name": "b", "status": "lost", "attempt": 1, "error": {"message": "gone"}}
    again = {"name": "b", "status": "running", "attempt": 2}
    put(
        story,
        "b begun",
        "again",
        [
            step("b", status="running", attemptCount="2", nonce="fresh-1"),
            history(entry("step", 7, **lost), entry("step", 7, **again)),
        ],
    )


@plant(Invariant.STALE, "under_foreign_lock")
def _a_turn_lands_while_somebody_else_holds_the_lock(story):
    locked = [
        ["HINCRBY", key("ctl", "r"), "fence", "1"],
        ["SET", key("lock", "r"), "embedded", "PXAT", AT + 60_000],
    ]
    put(story, "b done", "locked", locked)


@plant(Invariant.STALE, "under_foreign_lock")
def _a_signal_is_recorded_while_somebody_else_holds_the_lock(story):
    locked = [
        ["HINCRBY", key("ctl", "r"), "fence", "1"],
        ["SET", key("lock", "r"), "embedded", "PXAT", AT + 60_000],
    ]
    put(story, "signal read", "locked", locked)
    put(story, "signalled", "released", [["DEL", key("lock", "r")]])


@plant(Invariant.STALE, "lock_taken")
def _a_lock_is_taken_from_its_holder(story):
    for holder in ("one", "two"):
        put(
            story,
            "passive",
            holder,
            [
                ["HINCRBY", key("ctl", "r"), "fence", "1"],
                ["SET", key("lock", "r"), holder, "PXAT", AT + 60_000],
            ],
        )
    put(story, "one", "free", [["DEL", key("lock", "r")]])


@plant(Invariant.STALE, "seen")
def _a_turn_has_seen_less_than_the_one_before(story):
    words = command(story["rests"], "RPUSH")
    words[2] = words[2].replace('"seen":7', '"seen":1')


@plant(Invariant.STALE, "ended_unseen")
def _a_run_ends_without_having_seen_its_last_event(story):
    words = command(story["ended"], "RPUSH")
    words[2] = words[2].replace('"seen":9', '"seen":8')


# S7: fences.


@plant(Invariant.FENCE, "no_fence")
def _a_lock_is_given_without_a_fence(story):
    without(story["taken over"], "HINCRBY")


@plant(Invariant.FENCE, "fence_back")
def _a_fence_goes_back(story):
    command(story["taken over"], "HINCRBY")[-1] = "-1"


@plant(Invariant.FENCE, "fence_back")
def _a_fence_is_set_back(story):
    story["taken over"].append(["HSET", key("ctl", "r"), "fence", "1"])


# S8, S16: the end.


@plant(Invariant.FINAL, "after_end")
def _a_signal_is_recorded_after_the_end(story):
    put(story, "ended", "late", [history(entry("signal", 600, name="n", data=None))])


@plant(Invariant.FINAL, "after_end")
def _a_step_is_written_after_the_end(story):
    put(story, "ended", "late", [step("a", result="8")])


@plant(Invariant.FINAL, "after_end")
def _the_output_changes_after_the_end(story):
    put(story, "ended", "late", [["HSET", key("run", "r"), "output", "16"]])


@plant(Invariant.CANCEL, "begun_after_cancel")
def _an_attempt_begins_after_the_cancel(story):
    for name in list(story)[list(story).index("b read") :]:
        del story[name]
    story["cancelled"] = [
        history(entry("run", 7, status="cancelled")),
        ["HSET", key("run", "r"), "status", "cancelled"],
        ["HSET", key("ctl", "r"), "nudged", "1"],
    ]
    story["begun late"] = [
        step("b", status="running", attemptCount="1", nonce="fresh-1", lease=eid(4)),
        history(entry("step", 8, name="b", status="running")),
    ]


# S9: what belongs together.


@plant(Invariant.OUTBOX, "not_acknowledged")
def _a_signal_is_recorded_and_acknowledged_afterwards(story):
    put(story, "signalled", "settled", story["signalled"][:2])
    del story["signalled"][:2]


@plant(Invariant.OUTBOX, "not_acknowledged")
def _a_result_is_recorded_and_acknowledged_afterwards(story):
    put(story, "b done", "settled", story["b done"][:2])
    del story["b done"][:2]


@plant(Invariant.OUTBOX, "no_timer")
def _a_step_waits_and_no_timer_was_armed(story):
    without(story["rests"], "ZADD")


# S11: timers.


@plant(Invariant.TIMER, "timer_early")
def _a_timer_fires_before_it_is_due(story):
    command(story["fired"], "XADD")[2] = eid(499)


@plant(Invariant.TIMER, "timer_early")
def _a_sleep_ends_before_it_is_due(story):
    """Nothing in the file says that it was that late by then."""
    words = command(story["rests"], "RPUSH")
    words[2] = words[2].replace(str(AT + 500), str(AT + 900))


@plant(Invariant.TIMER, "timer_lost")
def _a_timer_is_removed_and_nothing_sent(story):
    story["fired"] = [["ZREM", key("timers"), TIMER]]


@plant(Invariant.TIMER, "timer_twice")
def _a_timer_is_applied_twice(story):
    command(story["rested"], "RPUSH").append(entry("timer", 502, name="rest", attempt=1))


@plant(Invariant.TIMER, "timer_unknown")
def _a_timer_fires_that_nobody_armed(story):
    command(story["signalled"], "RPUSH").append(entry("timer", 6, name="b", attempt=1))


# S12, S13: bounds.


@plant(Invariant.BUDGET, "budget")
def _there_are_more_attempts_than_allowed(story):
    words = command(story["b done"], "RPUSH")
    words[2] = words[2].replace('"retries":2', '"retries":-1')


@plant(Invariant.POISON, "delivered_on")
def _an_entry_is_delivered_for_ever(story):
    put(story, "b read", "once more", [claim(4, "host-20-bbbb", "q", count=6)])


# S15: whose keys.


@plant(Invariant.TENANT, "foreign_key")
def _a_transition_touches_another_prefix(story):
    story["signalled"].append(["HSET", "other:run:r", "status", "running"])


@plant(Invariant.TENANT, "crosses_runs")
def _a_transition_writes_two_histories(story):
    other = ["RPUSH", key("history", "x"), entry("run", 6, status="running", workflow="w")]
    story["signalled"] += [other, ["HSET", key("run", "x"), "status", "running"]]


@plant(Invariant.TENANT, "wrong_run")
def _a_command_changes_a_run_that_it_does_not_name(story):
    words = command(story["signal sent"], "XADD")
    words[words.index("r")] = "x"


# S18: the token.


@plant(Invariant.TOKEN, "token_gone")
def _a_token_is_acknowledged_while_it_is_needed(story):
    put(story, "b done", "gone", ack(1))


@plant(Invariant.TOKEN, "no_token")
def _an_event_is_recorded_and_nobody_is_woken(story):
    del story["rested"][-2:]
    del story["token read"]


@plant(Invariant.TOKEN, "no_token")
def _a_run_is_passivated_while_an_attempt_is_open(story):
    put(story, "begun", "too soon", [*ack(1), turn(2, BASE_ONE), *story["passive"][-1:]])


@plant(Invariant.TOKEN, "no_token")
def _a_run_has_an_owner_and_no_token(story):
    put(story, "b done", "left", [["HDEL", key("ctl", "r"), "token"]])
