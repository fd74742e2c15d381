"""The state service written down a second time, as plain data: what each call answers and leaves.

It shares no code with the service but the names of its exceptions. Times are the server's and are
not in it: it knows the order of things, which is the history's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from askel import (
    IllegalTransitionError,
    LockLostError,
    LockNotAcquiredError,
    RunActiveError,
    RunExistsError,
    RunNotFoundError,
    StepConflictError,
    StepNotFoundError,
    UnknownOutcomeError,
)

TERMINAL = {"completed", "failed", "cancelled"}
RUN_MOVES = {
    "running": {"suspended", "stalled", *TERMINAL},
    "suspended": {"running", "failed", "cancelled"},
    "stalled": {"running", "failed", "cancelled"},
}
STEP_MOVES = {
    "pending": {"scheduled", "running", "succeeded", "failed"},
    "scheduled": {"running", "succeeded", "failed"},
    "running": {"succeeded", "failed"},
}
#: How many writes of a run are known again, and how many retries of a step.
WRITES_KNOWN = 24
RETRIES_KNOWN = 6
#: How much is known of those who gave back the lock, in characters.
RELEASED_KNOWN = 120


class Refused(Exception):  # noqa: N818 - it carries the error that the service raises
    """The call is refused with this kind of error and writes nothing."""

    def __init__(self, kind: type[Exception], *, has_ended: bool = False) -> None:
        super().__init__(kind.__name__)
        self.kind = kind
        self.has_ended = has_ended


@dataclass
class Step:
    """A step as its hash and its history have it."""

    step_id: str
    rpc_name: str
    data: Any
    retries: int | None
    status: str = "pending"
    attempt: int = 1
    nonces: list[str] = field(default_factory=list)
    outcome: tuple[str, Any] | None = None
    notes: dict[str, str] = field(default_factory=dict)
    entry: int = 0
    """The entry of the history that told of its last change."""
    first: int = 0

    def facts(self) -> tuple[Any, ...]:
        """Return what is compared of it."""
        outcome = dict([self.outcome]) if self.outcome else {}
        error = outcome.get("error")
        return (
            self.step_id, self.status, self.attempt, self.rpc_name, self.data, self.retries,
            outcome.get("result"), error and error["message"], self.notes.get("branch"),
            self.notes.get("child"),
        )  # fmt: skip

    @property
    def is_spent(self) -> bool:
        """Whether no attempt is left."""
        return self.retries is not None and self.attempt > self.retries


@dataclass
class Run:
    """A run with all that belongs to it."""

    run_id: str
    workflow: str
    input: Any
    nonce: str = ""
    generation: int = 1
    previous: str | None = None
    status: str = "running"
    output: Any = None
    error: Any = None
    history: list[dict[str, Any]] = field(default_factory=list)
    steps: dict[str, Step] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    touched: int = 0
    """The entry whose time the run's hash has as its last change."""
    fence: int = 0
    released: list[str] = field(default_factory=list)
    lock: str | None = None
    is_anew: bool = False
    """Whether another run had the id before."""
    made_by: list[str] = field(default_factory=list)
    """The calls that made the generations before."""

    @property
    def released_text(self) -> str:
        """Who gave back the lock, as far as it is known."""
        return "".join(f"{holder} " for holder in self.released)[:RELEASED_KNOWN]

    def tell(self, **entry: Any) -> None:
        """Append to the history."""
        self.history.append({name: value for name, value in entry.items() if value is not None})


@dataclass
class Call:
    """One call of the service, with the ids that it is to draw, so that a copy is the same call."""

    method: str
    run_id: str
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list, repr=False)
    holder: str = ""
    parts: list[Call] = field(default_factory=list)
    """Of a transaction."""


class Model:
    """Every run of one prefix."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.deleted: set[str] = set()
        self.events: list[tuple[str, str, int]] = []
        """Run, status, seq."""
        self.alternative: tuple[str, Any] | None = None
        """Another answer to the last call that is as good."""

    def answer(self, call: Call, *, resent: bool = False) -> tuple[str, Any]:
        """Do what *call* does; return ``("returns", value)`` or ``("raises", kind)``.

        Args:
            call: The call.
            resent: Whether an earlier copy was lost, or its reply.
        """
        before = self.deleted | set()
        self.alternative = None
        try:
            value = getattr(self, f"_{call.method}")(call, iter(call.ids))
        except Refused as refusal:
            # A run that has ended remembers no writes: a lost copy may have been applied before.
            is_unknown = resent and refusal.has_ended
            return "raises", UnknownOutcomeError if is_unknown else refusal.kind
        if call.method == "delete_run" and resent and call.run_id in before:
            value = True  # the copy that got no reply may have been the one that deleted
        return "returns", value.facts() if isinstance(value, Step) else value

    # Creation and deletion.

    def _create_run(self, call: Call, ids: Iterator[str]) -> str:
        workflow, value = call.args
        run_id, nonce = (call.run_id, next(ids)) if call.run_id else (next(ids), "")
        policy = call.options.get("if_exists", "reject")
        if "idempotency_key" in call.options and policy == "reject":
            policy = "return"
        old = self.runs.get(run_id)
        if old is not None:
            if nonce and nonce in {old.nonce, *old.made_by}:
                return run_id
            if not _gives_way(policy, old.status):
                if policy == "return" and (old.workflow, old.input) == (workflow, value):
                    return run_id
                raise Refused(RunExistsError)
            if call.holder and old.lock != call.holder:
                raise Refused(LockLostError)
            if old.lock not in {None, call.holder}:
                raise Refused(LockNotAcquiredError)
        elif (f"{run_id}:{nonce}" if nonce else run_id) in self.deleted:
            return run_id
        new = Run(run_id, workflow, value, nonce)
        new.is_anew = old is not None or run_id in self.deleted
        if old is not None:
            self._succeed(old, new)
        new.tell(
            t="run", status="running", workflow=workflow, previous=new.previous,
            generation=new.generation if new.previous else None,
        )  # fmt: skip
        self.runs[run_id] = new
        self.events.append((run_id, "running", 1))
        return run_id

    def _succeed(self, old: Run, new: Run) -> None:
        """Let *old* go on under the id of a former generation."""
        run_id = old.run_id
        if old.status not in TERMINAL:
            old.tell(t="run", status="cancelled", reason="its next generation was asked for")
            old.status, old.touched, old.error = "cancelled", len(old.history) - 1, None
            self.events.append((run_id, "cancelled", len(old.history)))
        number = old.generation
        while f"{run_id}.g{number}" in self.runs:
            number += 1
        new.generation, new.previous = number + 1, f"{run_id}.g{number}"
        new.fence, new.released = old.fence, list(old.released)
        new.lock, old.lock = old.lock, None
        new.changes = list(old.changes)
        new.made_by = [*old.made_by, *([old.nonce] if old.nonce else ())]
        old.run_id = new.previous
        for name, step in old.steps.items():
            step.step_id = f"{old.run_id}:{name}:{step.step_id.rpartition(':')[2]}"
        self.runs[old.run_id] = old

    def _delete_run(self, call: Call, ids: Iterator[str]) -> bool:
        run, forced = self.runs.get(call.run_id), call.options.get("force", False)
        mark = f"{call.run_id}:{next(ids)}"
        if run is None or mark in self.deleted:
            return False
        if call.holder and run.lock != call.holder:
            raise Refused(LockLostError)
        if not forced and run.status not in TERMINAL:
            raise Refused(RunActiveError)
        if not call.holder and run.lock is not None and not forced:
            raise Refused(LockNotAcquiredError)
        del self.runs[call.run_id]
        self.deleted |= {call.run_id, mark}
        if run.nonce:
            self.deleted.add(f"{call.run_id}:{run.nonce}")
        self.events.append((call.run_id, "deleted", len(run.history) + 1))
        return True

    # Changes of one run: those of a transaction are made on a copy, and all or none are kept.

    def _transaction(self, call: Call, ids: Iterator[str]) -> None:
        changes = [self._prepared(one, ids) for one in call.parts]
        if changes:
            self._change(call, changes, next(ids))

    def __getattr__(self, name: str) -> Any:
        """Return the method of a single change."""
        method = name.removeprefix("_")
        if method not in CHANGES:
            raise AttributeError(name)

        def single(call: Call, ids: Iterator[str]) -> Any:
            changes = [self._prepared(call, ids)]
            answers = self._change(call, changes, next(ids))
            return answers[0] if answers else None

        return single

    def _prepared(self, call: Call, ids: Iterator[str]) -> Callable[[Staged], Any]:
        """Return the change, with the ids that it draws when it is made, not when it is applied."""
        drawn = next(ids) if call.method in DRAWING else ""
        return lambda staged: CHANGES[call.method](staged, call, drawn)

    def _change(self, call: Call, changes: list[Any], nonce: str) -> list[Any]:
        run, parts = self.runs.get(call.run_id), call.parts or [call]
        if run is None:
            is_of_step = len(parts) == 1 and parts[0].method in OF_A_STEP
            raise Refused(StepNotFoundError if is_of_step else RunNotFoundError)
        if nonce in run.changes:
            return []
        staged = Staged(copy.deepcopy(run))
        if call.holder and run.lock != call.holder:
            self._note_alternative(staged, changes)
            raise Refused(LockLostError)
        answers = [change(staged) for change in changes]
        new = staged.run
        if len(new.history) == len(run.history):
            return answers  # all were found done
        has_ended, is_alone = new.status in TERMINAL, len(parts) == 1
        new.changes = [nonce] if has_ended else [*new.changes, nonce][-WRITES_KNOWN:]
        if has_ended and is_alone:
            new.changes = []  # a status is known by itself
        if not is_alone or parts[0].method not in QUIET:
            new.touched = len(new.history) - 1
        if staged.moved:
            self.events.append((new.run_id, new.status, len(new.history)))
        self.runs[call.run_id] = new
        return answers

    def _note_alternative(self, staged: Staged, changes: list[Any]) -> None:
        """Note that there is no such step: which of two reasons is told is nobody's promise."""
        try:
            for change in changes:
                change(staged)
        except Refused as refusal:
            if refusal.kind is StepNotFoundError:
                self.alternative = "raises", refusal.kind

    # Locks.

    def lock(self, run_id: str, holder: str) -> tuple[str, Any]:
        """Take the lock of the run; answer with its fence."""
        run = self.runs.get(run_id)
        if run is None:
            return "raises", RunNotFoundError
        if run.lock == holder:
            return "returns", run.fence
        if f"{holder} " in run.released_text:
            return "raises", LockLostError
        if run.lock is not None:
            return "raises", LockNotAcquiredError
        run.fence, run.lock = run.fence + 1, holder
        return "returns", run.fence

    def unlock(self, run_id: str, holder: str) -> None:
        """Give the lock back, if it is still this holder's, who is done with it either way."""
        run = self.runs.get(run_id)
        if run is None:
            return
        if run.lock == holder:
            run.lock = None
        if run.fence and f"{holder} " not in run.released_text:
            run.released = [holder, *run.released]


@dataclass
class Staged:
    """A run under change, and the ids that stand for its steps in this transaction alone."""

    run: Run
    aliases: set[str] = field(default_factory=set)
    moved: bool = False

    def step(self, name: str, step_id: str) -> Step:
        """Return the step that a call is about."""
        step = self.run.steps.get(name)
        if step is None or step_id not in {step.step_id, *self.aliases}:
            raise Refused(StepNotFoundError)
        return step

    def must_go_on(self) -> None:
        """Refuse what comes after the end."""
        if self.run.status in TERMINAL:
            raise Refused(IllegalTransitionError, has_ended=True)

    def tell(self, name: str, step: Step, **more: Any) -> None:
        """Append to the history what became of *step*."""
        number = step.attempt if step.attempt > 1 else None
        self.run.tell(**{"t": "step", "name": name, "attempt": number, **more})
        step.entry = len(self.run.history) - 1


def _insert(staged: Staged, call: Call, suffix: str) -> Step:
    name, rpc_name, data, retries = call.args
    step, step_id = staged.run.steps.get(name), f"{call.run_id}:{name}:{suffix}"
    if step is not None:
        if step.rpc_name != rpc_name:
            raise Refused(StepConflictError)
        staged.aliases.add(step_id)
        return step
    staged.must_go_on()
    step = staged.run.steps[name] = Step(step_id, rpc_name, data, retries)
    staged.tell(name, step, status="pending")
    step.first = step.entry
    return step


def _move(target: str) -> Callable[[Staged, Call, str], None]:
    def move(staged: Staged, call: Call, _: str) -> None:
        name, step_id = call.args
        step = staged.step(name, step_id)
        if step.status == target:
            return
        staged.must_go_on()
        if target not in STEP_MOVES.get(step.status, ()):
            raise Refused(IllegalTransitionError)
        step.status = target
        staged.tell(name, step, status=target)

    return move


def _finish(target: str) -> Callable[[Staged, Call, str], None]:
    def finish(staged: Staged, call: Call, _: str) -> None:
        name, step_id, value = call.args
        step, outcome = staged.step(name, step_id), "result" if target == "succeeded" else "error"
        if step.status == target:
            if step.outcome != (outcome, value):
                raise Refused(StepConflictError)
            return
        staged.must_go_on()
        if target not in STEP_MOVES.get(step.status, ()):
            raise Refused(IllegalTransitionError)
        step.status, step.outcome = target, (outcome, value)
        staged.tell(
            name, step, status=target, id=step.step_id.rpartition(":")[2], rpc=step.rpc_name,
            data=step.data, retries=step.retries, branch=step.notes.get("branch"),
            child=step.notes.get("child"), final=(target == "failed" and step.is_spent) or None,
            attempt=step.attempt,
        )  # fmt: skip
        staged.run.history[-1][outcome] = value

    return finish


def _retry(staged: Staged, call: Call, drawn: str) -> Step:
    nonce = 2 * drawn
    name, step_id, target = call.args
    step = staged.step(name, step_id)
    if nonce in step.nonces:
        return step
    staged.must_go_on()
    if step.status != "failed" or step.is_spent:
        raise Refused(IllegalTransitionError)
    step.status, step.attempt, step.outcome, step.notes = target, step.attempt + 1, None, {}
    step.nonces = [*step.nonces, nonce][-RETRIES_KNOWN:]
    staged.tell(name, step, status=target)
    return step


def _note(what: str) -> Callable[[Staged, Call, str], None]:
    def note(staged: Staged, call: Call, _: str) -> None:
        name, step_id, value = call.args
        step = staged.step(name, step_id)
        if step.notes.get(what) == value:
            return
        staged.must_go_on()
        step.notes[what] = value
        staged.tell(name, step, **{what: value})

    return note


def _status(staged: Staged, call: Call, _: str) -> None:
    run, (target, output, error) = staged.run, call.args
    if run.status == target:
        given = [(output, run.output), (error, run.error)]
        if any(one is not None and one != stored for one, stored in given):
            raise Refused(IllegalTransitionError)
        return
    if target not in RUN_MOVES.get(run.status, ()):
        raise Refused(IllegalTransitionError)
    run.status, run.output, run.error = target, output, error
    run.tell(t="run", status=target, output=output, error=error)
    staged.moved = True


def _variable(staged: Staged, call: Call, _: str) -> None:
    name, value = call.args
    variables = staged.run.variables
    if name in variables and variables[name] == value:
        return
    staged.must_go_on()
    variables[name] = value
    staged.run.tell(t="state", name=name)
    staged.run.history[-1]["value"] = value


CHANGES: dict[str, Callable[[Staged, Call, str], Any]] = {
    "insert_step_state": _insert,
    "set_step_scheduled": _move("scheduled"),
    "set_step_running": _move("running"),
    "set_step_result": _finish("succeeded"),
    "set_step_error": _finish("failed"),
    "create_retry_attempt": _retry,
    "set_branch_taken": _note("branch"),
    "set_step_child_run_id": _note("child"),
    "update_run_status": _status,
    "update_run_state": _variable,
}
#: Changes that draw an id of their own.
DRAWING = {"insert_step_state", "create_retry_attempt"}
#: Changes that leave the run's own time of change as it is, where they are made alone.
QUIET = {"set_step_scheduled", "set_step_running", "set_step_result", "set_step_error"}
#: Changes of a step that must exist.
OF_A_STEP = {name for name in CHANGES if "step" in name or "branch" in name or "retry" in name} - {
    "insert_step_state"
}


def _gives_way(policy: str, status: str) -> bool:
    return policy == "terminate-existing" or (policy == "after-terminal" and status in TERMINAL)
