"""What a workflow decides: a pure function of its program and of the history it has seen.

A program is a sequence of operations:

* `Do(name)` runs a step in the owner's process, `Queue(name)` in whichever reads its command;
  both fail in their first `failures` attempts and are tried again at most `retries` times,
* `Sleep(name)` waits for a timer, `Wait(signal)` for a signal,
* `Child(name)` starts run 1 and waits for its end,
* `Together(branches)` does sequences side by side.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.model.store import Event, of_step

MANY = 99


class Do(NamedTuple):
    """A step in the process of the run's owner."""

    name: str
    failures: int = 0
    retries: int = MANY


class Queue(NamedTuple):
    """A step for whichever process reads its command."""

    name: str
    failures: int = 0
    retries: int = MANY


class Sleep(NamedTuple):
    """A timer."""

    name: str


class Wait(NamedTuple):
    """A signal."""

    signal: str


class Child(NamedTuple):
    """Another run, by a name that is a step's."""

    name: str


class Together(NamedTuple):
    """Sequences side by side."""

    branches: tuple[tuple[Any, ...], ...]


Program = tuple[Any, ...]


class Decided(NamedTuple):
    """What is to be begun, and how the program stands: open, done or failed."""

    decisions: tuple[Event, ...]
    stands: str


def status_of(history: tuple[Event, ...]) -> str:
    """Return the status that a history ends with."""
    return [event[1] for event in history if event[0] == "run"][-1]


def decide(program: Program, history: tuple[Event, ...], me: Any) -> Decided:
    """Return what the activation *me* decides on having seen *history*; nothing while suspended."""
    decided = _sequence(program, history, me)
    if status_of(history) != "running":
        return Decided((), "open")
    return decided


def operation(program: Program, name: str) -> Any:
    """Return the operation of the step called *name*."""
    for one in program:
        if isinstance(one, Together):
            for branch in one.branches:
                found = operation(branch, name)
                if found:
                    return found
        elif isinstance(one, Do | Queue | Sleep | Child) and one.name == name:
            return one
    return None


def _sequence(program: Program, history: tuple[Event, ...], me: Any) -> Decided:
    for one in program:
        decided = _one(one, history, me)
        if decided.stands != "done" or decided.decisions:
            return decided
    return Decided((), "done")


def _one(one: Any, history: tuple[Event, ...], me: Any) -> Decided:
    if isinstance(one, Together):
        return _together([_sequence(branch, history, me) for branch in one.branches])
    if isinstance(one, Wait):
        return Decided((), "done" if ("signal", one.signal) in history else "open")
    if of_step(history, "done", one.name):
        return Decided((), "done")
    if isinstance(one, Do):
        return _local(one, history, me)
    if any(event[-1] is True for event in history if event[0] in {"failed", "lost"}
           and event[1] == one.name):  # fmt: skip
        return Decided((), "failed")
    known = of_step(history, "scheduled", one.name)
    return Decided(() if known else (("schedule", one.name, type(one).__name__),), "open")


def _local(one: Do, history: tuple[Event, ...], me: Any) -> Decided:
    """Begin the next attempt of a step when its time has come; close one that nobody runs."""
    begun = of_step(history, "begin", one.name)
    if not begun:
        return Decided((("begin", one.name, 1, (me, one.name, 1)),), "open")
    attempt, (owner, *_) = begun[-1][2:]
    closed = {
        event[2]: event
        for event in history
        if event[0] in {"failed", "lost"} and event[1] == one.name
    }
    if attempt not in closed:
        if owner == me:
            return Decided((), "open")  # it runs here
        last = attempt > one.retries
        lost = ("lost", one.name, attempt, last)
        again = ("begin", one.name, attempt + 1, (me, one.name, attempt + 1))
        return Decided((lost,) if last else (lost, again), "open")
    if closed[attempt][-1] is True:
        return Decided((), "failed")
    if closed[attempt][0] == "failed":
        if ("retry", one.name, attempt + 1) not in history:
            return Decided((("retry", one.name, attempt + 1),), "open")
        if ("fired", one.name, attempt + 1) not in history:
            return Decided((), "open")
    again = ("begin", one.name, attempt + 1, (me, one.name, attempt + 1))
    return Decided((again,), "open")


def _together(parts: list[Decided]) -> Decided:
    decisions = tuple(event for part in parts for event in part.decisions)
    stands = {part.stands for part in parts}
    for word in ("open", "failed"):
        if word in stands:
            return Decided(decisions, word)
    return Decided(decisions, "done")
