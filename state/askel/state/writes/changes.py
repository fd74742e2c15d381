"""The changes of one run that an embedding program asks for: packed for `apply`, refusals told.

A change is one public write. A list of them is applied whole or not at all; the script checks all
before it writes the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

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
from askel.state.moves import run_sources
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


class Packing:
    """A list of changes in the making, as `apply` takes it."""

    __slots__ = ("_places", "args", "keys", "names", "run_id", "step_id")

    def __init__(self, keys: Keys, run_id: str, by: Writer) -> None:
        """Begin with what every list has."""
        self.keys = keys
        self.run_id = run_id
        #: The step that was named last, by this id.
        self.step_id = ""
        self.names = [*keys.run_keys(run_id), keys.commands_default, keys.steps(run_id)]
        self.args: list[Word] = [by.holder, by.offset, run_id, by.nonce]
        self._places: dict[str, int] = {}

    def place(self, key: str) -> int:
        """Return the place of *key* in KEYS."""
        place = self._places.get(key)
        if place is None:
            self.names.append(key)
            place = self._places[key] = len(self.names)
        return place

    def add(self, step_name: str, step_id: str, *record: Word) -> None:
        """Append the record of a change of a step, and before it the step unless it is named."""
        if self.step_id != step_id:
            self.name_step(step_name, step_id)
        self.args += record

    def name_step(self, step_name: str, step_id: str) -> None:
        """Name the step that the changes after it are about."""
        place = self.place(self.keys.step(self.run_id, step_name))
        self.args += ("step", place, step_name, step_id)
        self.step_id = step_id


class Change(Protocol):
    """One write, as the script takes it."""

    def pack(self, to: Packing) -> None:
        """Append its record."""

    def refusal(self, run_id: str, word: bytes, detail: str) -> AskelError | None:
        """Return what a refusal means that is particular to this change."""

    def alone(self, keys: Keys, run_id: str, by: Writer) -> Call | None:
        """Return the call of a script that makes this one change; None where there is none."""


class _StepChange(msgspec.Struct, frozen=True):
    step_name: str
    step_id: str

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

    rpc_name: str
    data: bytes
    retries: int | None
    retry_delay: str
    from_step_name: str

    def fields(self) -> list[Word]:
        """Return what its hash has beside what every step has."""
        fields: list[Word] = ["rpcName", self.rpc_name] if self.rpc_name else []
        if self.retries is not None:
            fields += ("retries", self.retries)
        if self.retry_delay:
            fields += ("retryDelay", self.retry_delay)
        if self.from_step_name:
            fields += ("fromStepName", self.from_step_name)
        return fields

    def pack(self, to: Packing) -> None:
        """Append its record, which names the step for the changes after it."""
        place = to.place(to.keys.step(to.run_id, self.step_name))
        fields = self.fields()
        name, step_id = self.step_name, self.step_id
        to.args += ("insert", place, name, step_id, self.data, len(fields), *fields)
        to.step_id = step_id

    def alone(self, keys: Keys, run_id: str, by: Writer) -> Call | None:
        """Return the call of `insert_step`."""
        names = [*_step_keys(keys, run_id, self.step_name), keys.steps(run_id)]
        args: list[Word] = [*by, self.step_name, self.step_id, self.data, *self.fields()]
        return Call("insert_step", names, args)

    def refusal(self, run_id: str, word: bytes, detail: str) -> AskelError | None:
        """Tell that the step exists for another function."""
        if word == b"CONFLICT":
            return StepConflictError(run_id, self.step_name, "it exists for another function")
        if word == b"TERMINAL":
            return IllegalTransitionError(f"run {run_id!r}", detail, "given another step")
        return None


class Move(_StepMove, frozen=True):
    """Move a step to ``scheduled`` or ``running``."""

    def pack(self, to: Packing) -> None:
        """Append the target."""
        to.add(self.step_name, self.step_id, self.target)

    def alone(self, keys: Keys, run_id: str, by: Writer) -> Call | None:
        """Return the call of `move_step`."""
        names = _step_keys(keys, run_id, self.step_name)
        return Call("move_step", names, [*by, self.step_name, self.step_id, self.target])


class Finish(_StepMove, frozen=True):
    """Record the outcome of a step's current attempt."""

    json: bytes

    @property
    def outcome(self) -> str:
        """The field that takes the outcome."""
        return "result" if self.target is StepStatus.SUCCEEDED else "error"

    def pack(self, to: Packing) -> None:
        """Append the target and the JSON."""
        to.add(self.step_name, self.step_id, self.target, self.json)

    def alone(self, keys: Keys, run_id: str, by: Writer) -> Call | None:
        """Return the call of `finish_step`."""
        names = [*keys.run_keys(run_id), keys.step(run_id, self.step_name), keys.commands_default]
        args: list[Word] = [*by, run_id, self.step_name, self.step_id, self.target, self.json]
        return Call("finish_step", names, args)

    def refusal(self, run_id: str, word: bytes, detail: str) -> AskelError | None:
        """Tell that another outcome is recorded."""
        if word == b"CONFLICT":
            why = f"another {self.outcome} is recorded already"
            return StepConflictError(run_id, self.step_name, why)
        return super().refusal(run_id, word, detail)


class Retry(_StepMove, frozen=True):
    """Begin the next attempt of a failed step."""

    nonce: str

    def pack(self, to: Packing) -> None:
        """Append the kind, the target and the nonce of the attempt."""
        to.add(self.step_name, self.step_id, "retry", self.target, self.nonce)

    def refusal(self, run_id: str, word: bytes, detail: str) -> AskelError | None:
        """Tell that no attempt is left."""
        if word == b"SPENT":
            spent = "failed with its retries spent"
            return IllegalTransitionError(self.of(run_id), spent, self.target)
        return super().refusal(run_id, word, detail)


class Note(_StepChange, frozen=True):
    """Note the branch a step took (``branchTaken``), or the run it began (``childRunId``)."""

    field: str
    value: str

    def pack(self, to: Packing) -> None:
        """Append the kind, the field and the value."""
        to.add(self.step_name, self.step_id, "note", self.field, self.value)


_OF_A_STEP = (Move, Finish, Retry, Note)


class SetStatus(msgspec.Struct, frozen=True):
    """Move the run to another status."""

    target: RunStatus
    output: bytes = b""
    error: bytes = b""

    def pack(self, to: Packing) -> None:
        """Append its record, with the stream and the index that tell of it."""
        events, runs = to.place(to.keys.events), to.place(to.keys.runs)
        allowed = run_sources(self.target)
        to.args += ("status", events, runs, allowed, self.target, self.output, self.error)

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

    name: str
    json: bytes

    def pack(self, to: Packing) -> None:
        """Append its record."""
        to.args += ("set", to.place(to.keys.run_state(to.run_id)), self.name, self.json)

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
    return pack_list(keys, run_id, changes, by)


def pack_list(keys: Keys, run_id: str, changes: Sequence[Change], by: Writer) -> Call:
    """Return the call of `apply` that makes *changes*."""
    packing = Packing(keys, run_id, by)
    for change in changes:
        change.pack(packing)
    return Call("apply", packing.names, packing.args)


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
    assert error is not None, f"apply answered {word!r} to a {type(change).__name__}"
    if len(changes) > 1:
        error.add_note(f"It was change {place} of {len(changes)} of a transaction.")
    return error


def _text(detail: Any) -> str:
    return detail.decode() if isinstance(detail, bytes) else str(detail)
