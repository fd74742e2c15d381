"""What a worker has in hand, what it asks the store next, and what an answer makes of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.model.program import Do, Program, Queue, decide, operation
from tests.model.store import Command, Event, Store

#: Answers after which the same is asked again later.
WAITS = ("BUSY", "SUSPENDED")


class Taken(NamedTuple):
    """An entry that was read or claimed: its command is to be applied, with a nonce of its own."""

    entry: int
    nonce: Any
    command: Command


class Driven(NamedTuple):
    """A run this worker owns: its token, its activation, what was seen, the handlers at work.

    handlers: (step, attempt, nonce, what became of it: runs, done or failed).
    """

    entry: int
    nonce: Any
    number: int
    turn: int
    seen: int
    handlers: frozenset[tuple[Any, ...]] = frozenset()


class Attempt(NamedTuple):
    """An attempt of a step of the stream: its handler runs, has done, has failed or hangs."""

    entry: int
    nonce: Any
    number: int
    name: str
    attempt: int
    handler: str = "runs"


class Refused(NamedTuple):
    """A command that is to be buried."""

    entry: int
    name: str | None


class Unacknowledged(NamedTuple):
    """A command that was applied and is to be acknowledged: only where that is broken apart."""

    entry: int


class HandedBack(NamedTuple):
    """What a draining worker gives back: the token of a run, or an entry not worked on."""

    entry: int
    nonce: Any
    number: int
    command: Command | None = None


Task = Taken | Driven | Attempt | Refused | Unacknowledged | HandedBack
Request = tuple[Any, ...]


def name_of(command: Command) -> str | None:
    """Return the name of an accepted command; internal ones have none."""
    kind = command[0]
    if kind == "signal":
        return str(command[3])
    if kind in {"start", "suspended", "running", "cancelled"} and command[2] is not None:
        return str(command[2])
    return None


def request(
    task: Task, store: Store, consumer: int, programs: tuple[Program, ...]
) -> Request | None:
    """Return what the task asks now (a script and its arguments), or None while it only waits."""
    if isinstance(task, Refused):
        return ("bury", consumer, task.entry, task.name)
    if isinstance(task, Unacknowledged):
        return ("acknowledge", consumer, task.entry)
    if isinstance(task, HandedBack):
        if task.command is not None:
            return ("put_back", consumer, task.entry, task.command)
        return ("requeue", consumer, task.entry, task.number, task.nonce)
    if isinstance(task, Taken):
        return _first_request(task, consumer, programs)
    if isinstance(task, Attempt):
        if task.handler in {"runs", "hangs"}:
            return None
        return ("complete", consumer, task.entry, task.number, _outcome(task, programs))
    return _turn(task, store, programs)


def _first_request(task: Taken, consumer: int, programs: tuple[Program, ...]) -> Request:
    entry, nonce, command = task
    kind = command[0]
    if kind == "start":
        return ("start", consumer, entry, nonce)
    if kind == "advance":
        return ("activate", consumer, entry, nonce)
    if kind == "execute":
        return ("begin", consumer, entry, nonce, _step(programs, command[1], command[2]).retries)
    if kind in {"signal", "timer", "child-ended"}:
        return ("record", consumer, entry, command)
    return ("settle", consumer, entry, command)


def _step(programs: tuple[Program, ...], number: int, name: str) -> Any:
    return operation(programs[number], name) or Queue(name)


def _outcome(task: Attempt, programs: tuple[Program, ...]) -> Event:
    if task.handler == "done":
        return ("done", task.name, task.attempt, task.nonce)
    is_final = task.attempt > _step(programs, task.number, task.name).retries
    return ("failed", task.name, task.attempt, task.nonce, is_final)


def handler_ends(programs: tuple[Program, ...], number: int, name: str, attempt: int) -> str:
    """Return what becomes of a handler: it fails in the first attempts of its step."""
    return "failed" if attempt <= _step(programs, number, name).failures else "done"


def _turn(task: Driven, store: Store, programs: tuple[Program, ...]) -> Request | None:
    """Return the turn that answers what was seen; None when there is nothing to say."""
    history = store.runs[task.number].history[: task.seen]
    if not history:
        return (
            "turn",
            task.number,
            task.entry,
            task.nonce,
            task.turn,
            task.seen,
            (),
            (),
            "passivate",
        )
    results = []
    for name, attempt, nonce, became in sorted(task.handlers):
        if became == "done":
            results.append(("done", name, attempt, nonce))
        elif became == "failed":
            one = operation(programs[task.number], name)
            assert isinstance(one, Do)
            results.append(("failed", name, attempt, nonce, attempt > one.retries))
    decisions, stands = decide(programs[task.number], history + tuple(results), task.nonce)
    is_working = any(handler[3] == "runs" for handler in task.handlers)
    if stands == "open" or decisions:
        end = "" if results or decisions or is_working else "passivate"
    else:
        end = "completed" if stands == "done" else "failed"
    if not (results or decisions or end):
        return None
    return (
        "turn",
        task.number,
        task.entry,
        task.nonce,
        task.turn,
        task.seen,
        tuple(results),
        decisions,
        end,
    )


def answered(task: Task, asked: Request, answer: tuple[Any, ...], store: Store) -> Task | None:
    """Return what becomes of the task, None when it has nothing more to do."""
    word = answer[0]
    if word in WAITS or (word == "NOTFOUND" and isinstance(task, Taken)):
        return task
    if isinstance(task, Taken):
        return _taken(task, asked, answer)
    if isinstance(task, Driven):
        return _driven(task, asked, answer, store)
    return None


def _taken(task: Taken, asked: Request, answer: tuple[Any, ...]) -> Task | None:
    word, number = answer[0], task.command[1]
    if word == "OK" and asked[0] in {"start", "activate"}:
        return Driven(task.entry, task.nonce, number, answer[1], answer[2])
    if word == "OK" and asked[0] == "begin":
        return Attempt(task.entry, task.nonce, number, task.command[2], answer[1])
    if word in {"EXISTS", "TERMINAL", "ILLEGAL"}:
        return Refused(task.entry, name_of(task.command))
    if word == "ACK":
        return Unacknowledged(task.entry)
    return None


def _driven(task: Driven, asked: Request, answer: tuple[Any, ...], store: Store) -> Task | None:
    word = answer[0]
    if word == "OK":
        results, decisions = asked[6], asked[7]
        sent = {event[1:4] for event in results}
        begun = {(*event[1:], "runs") for event in decisions if event[0] == "begin"}
        left = {handler for handler in task.handlers if handler[:3] not in sent}
        return task._replace(turn=answer[1], seen=answer[2], handlers=frozenset(left | begun))
    if word == "BEHIND":
        return task._replace(seen=answer[1])
    if word == "CONFLICT":  # an own late copy won: the memory is dropped, the run loaded anew
        return Taken(task.entry, store.nonce(), ("advance", task.number))
    return None
