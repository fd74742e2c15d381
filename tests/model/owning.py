"""The scripts of who drives a run: owning it, deciding, handing it back."""

from __future__ import annotations

from typing import Any

from tests.model.rules import Answer, Broken, disown, end, is_held, unlock
from tests.model.store import TERMINAL, Event, RunState, Step, Store, require


def start(store: Store, broken: Broken, consumer: int, entry: int, me: Any) -> Answer:
    """Create the run of a start and own it; after a crash, own it again."""
    _, number, name = store.entries.get(entry, ("start", 0, None))
    if "unchecked-pending" not in broken and not store.is_pending(entry, consumer):
        return ("LOST",)
    run = store.runs[number]
    if run.status and run.token != entry:
        if run.start != entry:
            return ("EXISTS",)
        store.drop(entry)
        return ("GONE",)
    if run.status in TERMINAL:
        store.drop(entry)
        disown(run)
        return ("GONE",)
    memory = store.deleted.get(number)
    if memory and (entry in memory.made_by or entry < memory.before) and "forgets" not in broken:
        if store.drop(entry) and entry not in memory.made_by:
            store.settle(name, "known")
        return ("GONE",)
    if is_held(run, me):
        return ("BUSY",)
    if not run.status:
        require(not memory or entry >= memory.before, "a deleted run was made again")
        run.status, run.start, run.token = "running", entry, entry
        run.since = entry if memory else 0
        store.append(number, ("run", "running"), inside_lock=True)
        store.settle(name, "applied")
        if "no-token" in broken:
            store.drop(entry)
            run.token = 0
    return _activated(store, number, consumer, entry, me)


def activate(store: Store, broken: Broken, consumer: int, entry: int, me: Any) -> Answer:
    """Own a run whose token this consumer holds."""
    number = store.entries.get(entry, ("advance", 0))[1]
    run = store.runs[number]
    if "unchecked-pending" not in broken and not store.is_pending(entry, consumer):
        return ("LOST",)
    if not run.status or run.token != entry:
        store.drop(entry)
        return ("GONE",)
    if run.status in TERMINAL:
        store.drop(entry)
        disown(run)
        return ("GONE",)
    if is_held(run, me):
        return ("BUSY",)
    return _activated(store, number, consumer, entry, me)


def _activated(store: Store, number: int, consumer: int, entry: int, me: Any) -> Answer:
    run = store.runs[number]
    if run.owner not in (None, me):
        robs = entry in store.pending and store.pending[entry][0] != consumer
        require(not robs, "a healthy owner was robbed")
    run.owner = run.lock = me
    return ("OK", run.turn, len(run.history))


def turn(
    store: Store,
    broken: Broken,
    number: int,
    entry: int,
    me: Any,
    count: int,
    seen: int,
    results: tuple[Event, ...],
    decisions: tuple[Event, ...],
    end_word: str,
) -> Answer:
    """Write an owner's results and decisions, and perhaps the end of its activation."""
    nonce = (me, count, seen, results, decisions, end_word)
    run = store.runs[number]
    if not run.status:
        return ("GONE",)
    if run.status in TERMINAL:
        if run.last == nonce:
            return ("END",)
        if run.token == entry:
            store.drop(entry)
            disown(run)
        return ("TERMINAL",)
    if run.owner != me and "turn-without-owner" not in broken:
        return ("END",) if run.last == nonce else ("LOST",)
    if run.turn != count and "turn-without-number" not in broken:
        return ("OK", run.turn, len(run.history)) if run.last == nonce else ("CONFLICT",)
    if is_held(run, me):
        return ("BUSY",)
    if not _fits(run, results, decisions):
        return ("CONFLICT",)
    ends = end_word not in ("", "passivate")
    begins = any(event[0] in {"begin", "schedule"} for event in decisions)
    halted = run.status != "running" and (begins or ends) and "begins-while-suspended" not in broken
    is_behind = len(run.history) != seen and "passivates-blindly" not in broken
    if halted or (end_word and is_behind):
        return ("BEHIND", len(run.history))
    require(run.owner == me, "an activation that is not the owner wrote")
    run.turn, run.last = run.turn + 1, nonce
    for event in results:
        _write_result(store, number, event)
    for event in decisions:
        _write_decision(store, number, event)
    if ends:
        end(store, number, end_word)
    if end_word:
        store.drop(entry)
        disown(run)
        return ("END",)
    unlock(run, me, broken)
    return ("OK", run.turn, len(run.history))


def _fits(run: RunState, results: tuple[Event, ...], decisions: tuple[Event, ...]) -> bool:
    """Tell whether every step stands as the turn supposes."""
    for _, step, attempt, nonce, *_ in results:
        if run.steps.get(step, Step("", 0))[:3] != ("running", attempt, nonce):
            return False
    lost = {event[1] for event in decisions if event[0] == "lost"}
    finished = {event[1] for event in results}
    for event in decisions:
        kind, name, *_ = event
        step = run.steps.get(name)
        if kind == "schedule" and step is not None:
            return False
        if kind == "lost" and (step is None or step[:2] != ("running", event[2])):
            return False
        if kind == "begin" and name not in lost:
            expected = None if event[2] == 1 else ("pending", event[2])
            if (step and step[:2]) != expected:
                return False
        stands = step is not None and step[:2] == ("failed", event[2] - 1)
        if kind == "retry" and name not in finished and not stands:
            return False
    return True


def _write_result(store: Store, number: int, event: Event) -> None:
    kind, name, attempt, nonce, *rest = event
    store.append(number, event)
    status = "succeeded" if kind == "done" else "failed"
    store.runs[number].steps[name] = Step(status, attempt, nonce)
    assert kind == "done" or rest


def _write_decision(store: Store, number: int, event: Event) -> None:
    steps = store.runs[number].steps
    kind, name, *_ = event
    if kind == "schedule":
        steps[name] = Step("scheduled", 1)
        store.append(number, ("scheduled", name))
        if event[2] == "Sleep":
            store.timers |= {(number, name, 1, store.runs[number].start)}
        elif event[2] == "Child":
            store.add(("start", 1, None))
        else:
            store.add(("execute", number, name, store.runs[number].start))
        return
    store.append(number, event)
    if kind == "begin":
        steps[name] = Step("running", event[2], event[3])
    elif kind == "lost":
        steps[name] = Step("failed", event[2])
    elif kind == "retry":
        steps[name] = Step("pending", event[2])
        store.timers |= {(number, name, event[2], store.runs[number].start)}


def requeue(store: Store, broken: Broken, _: int, entry: int, number: int, me: Any) -> Answer:
    """Hand an activation back: another token in place of this one."""
    run = store.runs[number]
    if (run.token != entry or run.owner != me) and "requeues-blindly" not in broken:
        return ("LOST",)
    require(run.owner in (None, me), "a healthy owner was robbed")
    store.drop(entry)
    disown(run)
    run.token = store.add(("advance", number))
    return ("OK",)
