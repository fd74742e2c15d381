"""What Redis holds of the runs in the model, and the few commands that the scripts need of it.

`Store` is a working copy that one script changes; `freeze` makes of it a value that can be compared
and kept. Every history entry passes `append`, which is where the promises about histories are held.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

TERMINAL = ("completed", "failed", "cancelled")
#: Who holds a run's lock without being an activation: a program that embeds the library.
WRITER = "writer"

Event = tuple[Any, ...]
Command = tuple[Any, ...]


class BrokenPromiseError(Exception):
    """A script wrote what must never be written."""


class Step(NamedTuple):
    """The hash of a step."""

    status: str
    attempt: int
    nonce: Any = None
    lease: int = 0


@dataclass
class RunState:
    """The hash of a run, its control hash, history, steps and lock."""

    status: str = ""
    history: tuple[Event, ...] = ()
    token: int = 0
    owner: Any = None
    turn: int = 0
    last: Any = None
    start: int = 0
    ids: frozenset[str] = frozenset()
    steps: dict[str, Step] = field(default_factory=dict)
    lock: Any = None
    since: int = 0

    def freeze(self) -> tuple[Any, ...]:
        """Return it as a value."""
        return (
            self.status,
            self.history,
            self.token,
            self.owner,
            self.turn,
            self.last,
            self.start,
            self.ids,
            tuple(sorted(self.steps.items())),
            self.lock,
            self.since,
        )

    @classmethod
    def thaw(cls, value: tuple[Any, ...]) -> RunState:
        """Return a copy of what `freeze` returned."""
        run = cls(*value)
        run.steps = dict(value[8])
        return run


class Memory(NamedTuple):
    """What is remembered of a run that was deleted: when, and by which entries it was made."""

    before: int
    made_by: frozenset[int]


class Store:
    """A working copy of everything."""

    __slots__ = (
        "dead",
        "deleted",
        "entries",
        "fates",
        "fresh",
        "next_entry",
        "next_nonce",
        "pending",
        "runs",
        "timers",
    )

    def __init__(self, frozen: tuple[Any, ...]) -> None:
        """Copy what `freeze` returned."""
        entries, self.fresh, pending, self.next_entry, self.next_nonce, runs, *rest = frozen
        self.timers, deleted, fates = rest
        self.entries: dict[int, Command] = dict(entries)
        #: entry -> (consumer, whether its lease has run out)
        self.pending: dict[int, tuple[int, bool]] = dict(pending)
        self.runs = [RunState.thaw(run) for run in runs]
        self.deleted: dict[int, Memory] = dict(deleted)
        #: name of an accepted command -> what became of it
        self.fates: dict[str, str] = dict(fates)

    @classmethod
    def empty(cls, runs: int) -> Store:
        """Return a store in which nothing has happened to so many runs."""
        none = RunState().freeze()
        return cls(((), (), (), 1, 1, (none,) * runs, frozenset(), (), ()))

    def freeze(self) -> tuple[Any, ...]:
        """Return it as a value."""
        return (
            tuple(sorted(self.entries.items())),
            self.fresh,
            tuple(sorted(self.pending.items())),
            self.next_entry,
            self.next_nonce,
            tuple(run.freeze() for run in self.runs),
            self.timers,
            tuple(sorted(self.deleted.items())),
            tuple(sorted(self.fates.items())),
        )

    # What Redis does.

    def add(self, command: Command) -> int:
        """XADD."""
        entry, self.next_entry = self.next_entry, self.next_entry + 1
        self.entries[entry] = command
        self.fresh = (*self.fresh, entry)
        return entry

    def drop(self, entry: int) -> bool:
        """XACK, and XDEL of what was acknowledged; tell whether it was."""
        if self.pending.pop(entry, None) is None:
            return False
        self.entries.pop(entry, None)
        return True

    def is_pending(self, entry: int, consumer: int) -> bool:
        """XPENDING of one entry for one consumer."""
        return entry in self.pending and self.pending[entry][0] == consumer

    def nonce(self) -> int:
        """Return what nobody else has."""
        nonce, self.next_nonce = self.next_nonce, self.next_nonce + 1
        return nonce

    # What must hold.

    def append(self, number: int, *events: Event, inside_lock: bool = False) -> None:
        """Append to a run's history, unless that breaks a promise."""
        run = self.runs[number]
        for event in events:
            require(run.status not in TERMINAL, f"{event} after the end of the run")
            require(inside_lock or run.lock != WRITER, f"{event} inside somebody else's lock")
            if event[0] in _CHECKS:
                _CHECKS[event[0]](run.history, event)
            run.history += (event,)

    def settle(self, name: str | None, fate: str) -> None:
        """Note what became of an accepted command: it is applied, dead or known already; once."""
        if name is None:
            return
        known = self.fates.get(name)
        require(known is None, f"command {name} is {fate}, and was {known} before")
        self.fates[name] = fate


def require(holds: object, promise: str) -> None:
    """Raise BrokenPromiseError unless it holds."""
    if not holds:
        raise BrokenPromiseError(promise)


def of_step(history: tuple[Event, ...], kind: str, step: str) -> list[Event]:
    """Return the events of one kind of one step."""
    return [event for event in history if event[0] == kind and event[1] == step]


def is_over(history: tuple[Event, ...], step: str) -> bool:
    """Tell whether a step has its last outcome."""
    failed = of_step(history, "failed", step) + of_step(history, "lost", step)
    return bool(of_step(history, "done", step)) or any(event[-1] is True for event in failed)


def _check_begin(history: tuple[Event, ...], event: Event) -> None:
    _, step, attempt, _ = event
    before = of_step(history, "begin", step)
    closed = of_step(history, "failed", step) + of_step(history, "lost", step)
    require(attempt == len(before) + 1, f"{event}: a gap in the attempts")
    require(not is_over(history, step), f"{event}: the step is over")
    require(
        not before or attempt - 1 in {one[2] for one in closed},
        f"{event}: two open attempts",
    )
    status = [one[1] for one in history if one[0] == "run"][-1]
    require(status == "running", f"{event}: the run is {status}")


def _check_outcome(history: tuple[Event, ...], event: Event) -> None:
    _, step, attempt, nonce, *_ = event
    begun = of_step(history, "begin", step)
    require(not is_over(history, step), f"{event}: the step is over")
    require(begun and begun[-1][2:] == (attempt, nonce), f"{event}: of another attempt")
    closed = of_step(history, "failed", step) + of_step(history, "lost", step)
    require(attempt not in {one[2] for one in closed}, f"{event}: the attempt is closed")


def _check_once(history: tuple[Event, ...], event: Event) -> None:
    require(event not in history, f"{event} happened twice")


_CHECKS = {
    "begin": _check_begin,
    "done": _check_outcome,
    "failed": _check_outcome,
    "lost": _check_once,
    "scheduled": _check_once,
    "fired": _check_once,
}
