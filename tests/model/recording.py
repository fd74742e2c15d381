"""The scripts that anybody calls: recording commands, steps of the stream, timers, deletion."""

from __future__ import annotations

from typing import Any

from tests.model.program import MANY
from tests.model.rules import (
    Answer,
    Broken,
    drive,
    end,
    is_from_before,
    is_held,
    tell_parent,
)
from tests.model.store import TERMINAL, Command, Event, Memory, RunState, Step, Store, require

#: The status a command asks for -> the statuses it may be left from.
SOURCES = {
    "suspended": ("running",),
    "running": ("suspended",),
    "cancelled": ("running", "suspended"),
}


def record(store: Store, broken: Broken, _: int, entry: int, command: Command) -> Answer:
    """Append a signal, the end of a timer or of a child, whoever read it."""
    kind, number, *words = command
    run = store.runs[number]
    internal = kind != "signal"
    name, command_id = (None, "") if internal else (words[1], words[2])
    is_of_another = kind == "timer" and words[2] != run.start and "ignores-birth" not in broken
    if internal and (not run.status or run.status in TERMINAL or is_of_another):
        store.drop(entry)
        return ("STALE",)
    if not run.status:
        return ("NOTFOUND",)
    if is_from_before(store, number, entry, name, broken):
        return ("GONE",)
    if command_id in run.ids and "forgets-ids" not in broken:
        if not store.drop(entry):
            return ("GONE",)
        store.settle(name, "known")
        return ("DUP",)
    if run.status in TERMINAL:
        return ("TERMINAL",)
    if is_held(run, None):
        return ("BUSY",)
    if "acks-apart" in broken:
        if entry not in store.pending:
            return ("GONE",)
    elif not store.drop(entry) and "ignores-xack" not in broken:
        return ("GONE",)
    require(entry >= run.since, "a command for the run before was applied")
    if not _record(store, number, kind, words):
        return ("STALE",)
    if command_id:
        run.ids |= {command_id}
    store.settle(name, "applied")
    if "no-wake" not in broken:
        drive(store, number)
    return ("ACK",) if "acks-apart" in broken else ("OK",)


def _record(store: Store, number: int, kind: str, words: list[Any]) -> bool:
    """Write the events of a command; False if nobody waits for it any more."""
    run = store.runs[number]
    if kind == "signal":
        require(
            not words[2] or ("id", words[2]) not in run.history, f"id {words[2]} was applied twice"
        )
        store.append(number, ("signal", words[0]), *([("id", words[2])] if words[2] else []))
        return True
    name = words[0]
    step = run.steps.get(name, Step("", 0))
    require(kind != "timer" or words[2] == run.start, "a timer of the run before fired")
    if kind == "timer" and step[:2] == ("pending", words[1]):
        store.append(number, ("fired", name, words[1]))
        return ("fired", name, words[1]) in run.history
    if step.status != "scheduled":
        return False
    run.steps[name] = Step("succeeded", 1)
    store.append(number, ("begin", name, 1, kind), ("done", name, 1, kind))
    return True


def settle(store: Store, broken: Broken, _: int, entry: int, command: Command) -> Answer:
    """Change the status of a run: cancel, suspend, resume."""
    target, number, name = command
    run = store.runs[number]
    if not run.status:
        return ("NOTFOUND",)
    if is_from_before(store, number, entry, name, broken):
        return ("GONE",)
    if run.status == target:
        if not store.drop(entry):
            return ("GONE",)
        store.settle(name, "known")
        return ("ALREADY",)
    if run.status not in SOURCES[target]:
        return ("ILLEGAL",)
    if is_held(run, None):
        return ("BUSY",)
    if not store.drop(entry):
        return ("GONE",)
    store.settle(name, "applied")
    if target in TERMINAL:
        end(store, number, target)
    else:
        store.append(number, ("run", target))
        run.status = target
        drive(store, number)
    return ("OK",)


def bury(store: Store, _: Broken, __: int, entry: int, name: str | None) -> Answer:
    """Move a refused command to the dead stream; whoever acknowledges it buries it."""
    if not store.drop(entry):
        return ("GONE",)
    store.settle(name, "dead")
    return ("OK",)


def acknowledge(store: Store, _: Broken, __: int, entry: int) -> Answer:
    """XACK by itself: what the broken variant does in a second step."""
    store.drop(entry)
    return ("OK",)


# Steps of the stream.


def begin(
    store: Store, broken: Broken, consumer: int, entry: int, nonce: Any, retries: int = MANY
) -> Answer:
    """Begin an attempt; one that another process left open is lost."""
    command = store.entries.get(entry)
    if "unchecked-pending" not in broken and not store.is_pending(entry, consumer):
        return ("LOST",)
    if command is None:
        return ("LOST",)
    _, number, name, born = command
    run = store.runs[number]
    if run.status and born != run.start and "ignores-birth" not in broken:
        store.drop(entry)
        return ("GONE",)
    if not run.status:
        return ("NOTFOUND",)
    step = run.steps.get(name)
    if step is None or run.status in TERMINAL or step.status in ("succeeded", "failed"):
        store.drop(entry)
        return ("GONE",)
    if step.status == "running" and step.nonce == nonce:
        return ("OK", step.attempt)
    if run.status != "running":
        return ("SUSPENDED",)
    if is_held(run, None):
        return ("BUSY",)
    attempt = step.attempt
    if step.status == "running":
        if step.lease != entry and step.lease in store.pending:
            store.drop(entry)
            return ("GONE",)
        robs = entry in store.pending and store.pending[entry][0] != consumer
        require(not robs, "a healthy attempt was robbed")
        is_spent = attempt > retries
        store.append(number, ("lost", name, attempt, is_spent))
        if is_spent:
            store.drop(entry)
            run.steps[name] = Step("failed", attempt)
            drive(store, number)
            return ("SPENT",)
        attempt += 1
    run.steps[name] = Step("running", attempt, nonce, entry)
    store.append(number, ("begin", name, attempt, nonce))
    return ("OK", attempt)


def complete(store: Store, broken: Broken, _: int, entry: int, number: int, event: Event) -> Answer:
    """Write the outcome of an attempt, and send its next one."""
    run = store.runs[number]
    if not run.status or run.status in TERMINAL:
        store.drop(entry)
        return ("GONE",)
    kind, name, attempt, nonce, *rest = event
    is_final = kind == "done" or rest[0]
    step = run.steps.get(name, Step("", 0))
    if "complete-without-nonce" not in broken:
        over = step.attempt == attempt and step.status in ("succeeded", "failed")
        again = step.status == "pending" and step.attempt == attempt + 1
        if step.nonce == nonce and (over or again):
            return ("ALREADY",)
        if step[:3] != ("running", attempt, nonce):
            return ("FENCED",)
    elif step.status != "running":
        return ("ALREADY",)
    if is_held(run, None):
        return ("BUSY",)
    store.drop(entry)
    store.append(number, event)
    if is_final:
        run.steps[name] = Step("succeeded" if kind == "done" else "failed", attempt, nonce)
        drive(store, number)
    else:
        run.steps[name] = Step("pending", attempt + 1, nonce)
        store.add(("execute", number, name, run.start))
    return ("OK",)


# Timers, handing back, deleting.


def fire(store: Store, _: Broken, timer: tuple[Any, ...]) -> Answer:
    """Send the command of a timer that is due."""
    if timer in store.timers:
        store.timers -= {timer}
        store.add(("timer", *timer))
    return ("OK",)


def put_back(store: Store, broken: Broken, _: int, entry: int, command: Command) -> Answer:
    """Send an entry that was not worked on again."""
    run = store.runs[command[1]]
    is_token = run.token == entry
    if not store.drop(entry) and "puts-back-blindly" not in broken:
        return ("GONE",)
    sends_start_again = "puts-back-starts" in broken
    again = store.add(("advance", command[1]) if is_token and not sends_start_again else command)
    if is_token:
        run.token = again
    return ("OK",)


def delete(store: Store, _: Broken, number: int) -> Answer:
    """Remove a run, by force; what was sent before does not bring it back."""
    run = store.runs[number]
    if not run.status:
        return ("ALREADY",) if number in store.deleted else ("NOTFOUND",)
    if run.token:
        store.drop(run.token)
    made_by = frozenset(one for one in (run.token, run.start) if one)
    if run.status not in TERMINAL:
        tell_parent(store, number)
    store.runs[number] = RunState()
    store.deleted[number] = Memory(store.next_entry, made_by)
    return ("OK",)
