"""The changes of one run that an embedding program asks for: packed for `apply`, refusals told.

A change is one public write. A list of them is applied whole or not at all; the script checks all
before it writes the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec

from askel.errors import (
    AskelError,
    IllegalTransitionError,
    LockLostError,
    RunNotFoundError,
    StepConflictError,
    StepNotFoundError,
)
from askel.state.keys import Keys
from askel.state.models import RunStatus, StepState, StepStatus
from askel.state.moves import run_sources, step_sources
from askel.state.protocol.caller import Word
from askel.state.protocol.turns import Answer

#: Most changes of one list: what Lua can hand to one command of Redis, with room to spare.
MAX_CHANGES = 1_000


class Call(NamedTuple):
    """A script with its KEYS and ARGV."""

    script: str
    keys: list[str]
    args: list[Word]


class Writer(NamedTuple):
    """Who writes: under which lock, by which clock, and the name by which this write is known."""

    holder: str
    offset: int
    nonce: str


class Change(Protocol):
    """One write, as the script takes it."""

    def keys(self, keys: Keys, run_id: str) -> Sequence[str]:
        """Return the keys it needs beside those of every list; their places begin its record."""

    def words(self) -> Sequence[Word]:
        """Return its record without the kind and the places of keys."""

    @property
    def kind(self) -> str:
        """The record's first word."""

    def refusal(self, run_id: str, word: bytes, detail: str) -> AskelError | None:
        """Return what a refusal means that is particular to this change."""

    def alone(self, keys: Keys, run_id: str, by: Writer) -> Call | None:
        """Return the call of a script that makes this one change; None where there is none."""


class _StepChange(msgspec.Struct, frozen=True):
    step_name: str
    step_id: str

    def keys(self, keys: Keys, run_id: str) -> Sequence[str]:
        """Return the key of the step."""
        return (keys.step(run_id, self.step_name),)

    def refusal(self, run_id: str, word: bytes, detail: str) -> AskelError | None:  # noqa: ARG002 - the protocol's shape
        """Tell that there is no such step."""
        return StepNotFoundError(run_id, self.step_name) if word == b"NOTFOUND" else None

    def alone(self, keys: Keys, run_id: str, by: Writer) -> Call | None:  # noqa: ARG002 - the protocol's shape
        """It is made by `apply`."""
        return None


class _StepMove(_StepChange, frozen=True):
    target: StepStatus

    def refusal(self, run_id: str, word: bytes, detail: str) -> AskelError | None:
        """Tell where the step stands."""
        if word != b"ILLEGAL":
            return super().refusal(run_id, word, detail)
        return IllegalTransitionError(self.of(run_id), detail, self.target)

    def of(self, run_id: str) -> str:
        """Name the step for a message."""
        return f"step {self.step_name!r} of run {run_id!r}"


class Insert(_StepChange, frozen=True):
    """Insert a step, pending in its first attempt."""

    kind: ClassVar[str] = "insert"
    rpc_name: str
    data: bytes
    retries: int | None
    retry_delay: str
    from_step_name: str

    def words(self) -> Sequence[Word]:
        """Return name, id, function, data, options and provenance; empty where there is none."""
        retries = "" if self.retries is None else self.retries
        return (
            self.step_name,
            self.step_id,
            self.rpc_name,
            self.data,
            retries,
            self.retry_delay,
            self.from_step_name,
        )

    def alone(self, keys: Keys, run_id: str, by: Writer) -> Call | None:
        """Return the call of `insert_step`."""
        names = [*_step_keys(keys, run_id, self.step_name), keys.steps(run_id)]
        return Call("insert_step", names, [*by, *self.words()])

    def refusal(self, run_id: str, word: bytes, detail: str) -> AskelError | None:
        """Tell that the step exists for another function."""
        if word == b"CONFLICT":
            return StepConflictError(run_id, self.step_name, "it exists for another function")
        if word == b"TERMINAL":
            return IllegalTransitionError(f"run {run_id!r}", detail, "given another step")
        return None


class Move(_StepMove, frozen=True):
    """Move a step to ``scheduled`` or ``running``."""

    kind: ClassVar[str] = "move"

    def words(self) -> Sequence[Word]:
        """Return name, id, the statuses it may be left from, and the target."""
        return (self.step_name, self.step_id, step_sources(self.target), self.target.value)

    def alone(self, keys: Keys, run_id: str, by: Writer) -> Call | None:
        """Return the call of `move_step`."""
        names = _step_keys(keys, run_id, self.step_name)
        return Call("move_step", names, [*by, *self.words()])


class Finish(_StepMove, frozen=True):
    """Record the outcome of a step's current attempt."""

    kind: ClassVar[str] = "finish"
    json: bytes

    @property
    def outcome(self) -> str:
        """The field that takes the outcome."""
        return "result" if self.target is StepStatus.SUCCEEDED else "error"

    def words(self) -> Sequence[Word]:
        """Return name, id, the statuses it may be left from, target, field and JSON."""
        sources = step_sources(self.target)
        name, step_id, target = self.step_name, self.step_id, self.target.value
        return (name, step_id, sources, target, self.outcome, self.json)

    def alone(self, keys: Keys, run_id: str, by: Writer) -> Call | None:
        """Return the call of `finish_step`."""
        names = [*keys.run_keys(run_id), keys.step(run_id, self.step_name), keys.commands_default]
        return Call("finish_step", names, [*by, run_id, *self.words()])

    def refusal(self, run_id: str, word: bytes, detail: str) -> AskelError | None:
        """Tell that another outcome is recorded."""
        if word == b"CONFLICT":
            why = f"another {self.outcome} is recorded already"
            return StepConflictError(run_id, self.step_name, why)
        return super().refusal(run_id, word, detail)


class Retry(_StepMove, frozen=True):
    """Begin the next attempt of a failed step."""

    kind: ClassVar[str] = "retry"
    nonce: str

    def words(self) -> Sequence[Word]:
        """Return name, id, target and the nonce of the attempt."""
        return (self.step_name, self.step_id, self.target.value, self.nonce)

    def refusal(self, run_id: str, word: bytes, detail: str) -> AskelError | None:
        """Tell that no attempt is left."""
        if word == b"SPENT":
            spent = "failed with its retries spent"
            return IllegalTransitionError(self.of(run_id), spent, self.target)
        return super().refusal(run_id, word, detail)


class Note(_StepChange, frozen=True):
    """Note the branch a step took (``branchTaken``), or the run it began (``childRunId``)."""

    kind: ClassVar[str] = "note"
    field: str
    value: str

    def words(self) -> Sequence[Word]:
        """Return name, id, field and value."""
        return (self.step_name, self.step_id, self.field, self.value)


_OF_A_STEP = (Move, Finish, Retry, Note)


class SetStatus(msgspec.Struct, frozen=True):
    """Move the run to another status."""

    kind: ClassVar[str] = "status"
    target: RunStatus
    output: bytes = b""
    error: bytes = b""

    def keys(self, keys: Keys, run_id: str) -> Sequence[str]:  # noqa: ARG002 - the protocol's shape
        """Return the stream and the index of all runs that tell of it."""
        return (keys.events, keys.runs)

    def words(self) -> Sequence[Word]:
        """Return the statuses it may be left from, the target, output and error."""
        return (run_sources(self.target), self.target.value, self.output, self.error)

    def refusal(self, run_id: str, word: bytes, detail: str) -> AskelError | None:
        """Tell where the run stands."""
        if word != b"ILLEGAL":
            return None
        stands = f"{detail} with another outcome" if detail == self.target else detail
        return IllegalTransitionError(f"run {run_id!r}", stands, self.target)

    def alone(self, keys: Keys, run_id: str, by: Writer) -> Call | None:  # noqa: ARG002 - the protocol's shape
        """It is made by `apply`."""
        return None


class SetVariable(msgspec.Struct, frozen=True):
    """Set a variable of the run."""

    kind: ClassVar[str] = "set"
    name: str
    json: bytes

    def keys(self, keys: Keys, run_id: str) -> Sequence[str]:
        """Return the key of the variables."""
        return (keys.run_state(run_id),)

    def words(self) -> Sequence[Word]:
        """Return the name and the JSON."""
        return (self.name, self.json)

    def refusal(self, run_id: str, word: bytes, detail: str) -> AskelError | None:  # noqa: ARG002 - the protocol's shape
        """Nothing is particular to it."""
        return None

    def alone(self, keys: Keys, run_id: str, by: Writer) -> Call | None:  # noqa: ARG002 - the protocol's shape
        """It is made by `apply`."""
        return None


def inserted(change: Insert, at: datetime, decode: Callable[[bytes], Any]) -> StepState:
    """Return the step that *change* has just inserted."""
    return StepState(
        step_id=change.step_id,
        step_name=change.step_name,
        status=StepStatus.PENDING,
        created_at=at,
        updated_at=at,
        rpc_name=change.rpc_name or None,
        data=decode(change.data),
        retries=change.retries,
        retry_delay=change.retry_delay or None,
        from_step_name=change.from_step_name or None,
    )


def _step_keys(keys: Keys, run_id: str, step_name: str) -> list[str]:
    run, _, history, lock = keys.run_keys(run_id)
    return [run, history, lock, keys.step(run_id, step_name)]


def pack(keys: Keys, run_id: str, changes: Sequence[Change], by: Writer) -> Call:
    """Return the call that makes *changes*.

    The writes that every step takes have scripts of their own, which cost the server half of what
    `apply` does; they answer as `apply` answers a list of one.
    """
    if len(changes) == 1 and (call := changes[0].alone(keys, run_id, by)) is not None:
        return call
    names = [*keys.run_keys(run_id), keys.commands_default, keys.steps(run_id)]
    args: list[Word] = [by.holder, by.offset, run_id, by.nonce]
    places: dict[str, int] = {}
    known: set[str] = set()
    for change in changes:
        # What follows on the same step need not name it again.
        step_id = change.step_id if isinstance(change, Move | Finish) else ""
        again = step_id in known
        args.append(f"+{change.kind}" if again else change.kind)
        for key in change.keys(keys, run_id):
            place = places.get(key)
            if place is None:
                names.append(key)
                place = places[key] = len(names)
            args.append(place)
        args += change.words()[2:] if again else change.words()
        if isinstance(change, _StepChange):
            known.add(change.step_id)
    return Call("apply", names, args)


def refused(run_id: str, changes: Sequence[Change], answer: Answer) -> AskelError:
    """Return what a refusal of `apply` means to the caller."""
    word = answer[0]
    if word == b"LOCKLOST":
        return LockLostError(run_id)
    _, place, *details = answer
    if place == 0 and len(changes) == 1 and isinstance(changes[0], _OF_A_STEP):
        return StepNotFoundError(run_id, changes[0].step_name)
    if place == 0:
        return RunNotFoundError(run_id)
    detail = _text(details[0]) if details else ""
    change = changes[place - 1]
    error: AskelError | None = change.refusal(run_id, word, detail)
    if error is None and word == b"TERMINAL":
        error = IllegalTransitionError(f"run {run_id!r}", detail, "changed any more")
    assert error is not None, f"apply answered {word!r} to {change.kind}"
    if len(changes) > 1:
        error.add_note(f"It was change {place} of {len(changes)} of a transaction.")
    return error


def _text(detail: Any) -> str:
    return detail.decode() if isinstance(detail, bytes) else str(detail)
