"""The writes of the state service: each is a list of changes of one run, applied by one script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property, partial
from typing import Any

from askel.errors import StepNotFoundError, UnknownOutcomeError
from askel.names import check_name, check_run_id
from askel.state.arguments import split_step_id
from askel.state.codec import Codec
from askel.state.ids import IdSource
from askel.state.keys import Keys
from askel.state.locks.run_lock import holder_for
from askel.state.models import (
    UNSET,
    RunStatus,
    SerializedError,
    StepOptions,
    StepState,
    StepStatus,
    from_ms,
)
from askel.state.protocol.nudging import send_nudge
from askel.state.protocol.turns import Answer
from askel.state.reads.records import fields_of, read_step
from askel.state.store.connection import Connection
from askel.state.store.scripts import Scripts
from askel.state.writes.change_makers import ChangeMakers
from askel.state.writes.changes import Change, Writer, inserted, pack, refused
from askel.state.writes.mirror import MirrorTeller
from askel.state.writes.repeats import as_recorded
from askel.state.writes.telling import tell_changes
from askel.state.writes.transaction import Transaction

_DONE = frozenset({b"OK", b"ALREADY"})


class RunWrites:
    """Inserting, moving and finishing steps, moving the run, setting its variables."""

    keys: Keys
    ids: IdSource
    codec: Codec
    mirror: MirrorTeller
    connection: Connection
    scripts: Scripts
    clock_offset_ms: int
    resend_s: float

    def transaction(self, run_id: str) -> AbstractAsyncContextManager[Transaction]:
        """Queue writes to one run in an ``async with`` body; all are applied at its end, or none.

        Inside ``run_lock`` of the run the write is made under that lock. A body that raises writes
        nothing. A reply that was lost changes nothing: the transaction is known again.

        Raises:
            RunNotFoundError, StepNotFoundError, StepConflictError, IllegalTransitionError,
            LockLostError: At the end of the body. Nothing was written.
        """
        return Transaction(check_run_id(run_id), self._make, self._apply)

    async def update_run_status(
        self,
        run_id: str,
        status: RunStatus | str,
        output: Any = UNSET,
        error: BaseException | SerializedError | str | None = None,
    ) -> None:
        """Move the run to *status*. The same move with the same outcome changes nothing.

        A completed run may have an output, every other one an error.

        Raises:
            RunNotFoundError: There is no such run.
            IllegalTransitionError: The state machine has no such move, or it was made with another
                outcome already.
            LockLostError: The lock this was called under is lost.
        """
        change = self._make.status(status, output, error)
        await self._apply(check_run_id(run_id), [change])

    async def update_run_state(self, run_id: str, name: str, value: Any) -> None:
        """Set the variable *name* of the run. The same value again changes nothing.

        Raises:
            RunNotFoundError, IllegalTransitionError, LockLostError: There is no such run, it has
                ended, or the lock this was called under is lost. Nothing was written.
        """
        change = self._make.variable(name, value)
        await self._apply(check_run_id(run_id), [change])

    async def insert_step_state(
        self,
        run_id: str,
        step_name: str,
        rpc_name: str | None,
        data: Any = None,
        step_options: StepOptions | Mapping[str, Any] | None = None,
        from_step_name: str | None = None,
    ) -> StepState:
        """Insert a step, pending in its first attempt; return it as recorded.

        Called again with the same *rpc_name* it returns the step as it stands, unchanged.

        Args:
            run_id: The run.
            step_name: What people call this step of the run.
            rpc_name: The function that executes it; None for a step of the run itself.
            data: The function's argument.
            step_options: ``retries`` beyond the first attempt, ``retry_delay`` before each.
            from_step_name: The step from which this one was reached.

        Raises:
            StepConflictError: The step exists for another function.
            RunNotFoundError, IllegalTransitionError: There is no such run, or it has ended.
        """
        change = self._make.insert(run_id, step_name, rpc_name, data, step_options, from_step_name)
        at, answers = await self._apply(run_id, [change])
        if answers and isinstance(answer := answers[0], list):
            if not answer:  # a late copy, of an insertion into a run that gave way since
                raise StepNotFoundError(run_id, step_name)
            return read_step(step_name, fields_of(answer), self.codec)
        return inserted(change, from_ms(at), self.codec.decode)

    async def get_step_state(self, run_id: str, step_name: str) -> StepState:
        """Return the step as it stands.

        Raises:
            StepNotFoundError: The run has no such step.
        """
        key = self.keys.step(check_run_id(run_id), check_name(step_name))
        flat = await self.scripts.fetch("HGETALL", key, patience_s=self.resend_s)
        fields = fields_of(flat)
        if "stepId" not in fields:  # others leave fields without a step, as they do without a run
            raise StepNotFoundError(run_id, step_name)
        return read_step(step_name, fields, self.codec)

    async def set_step_scheduled(self, step_id: str) -> None:
        """Move a pending step to ``scheduled``. Repeating it changes nothing.

        Raises:
            StepNotFoundError, IllegalTransitionError, LockLostError: Nothing was written.
        """
        await self._apply_to_step(step_id, self._make.move(step_id, StepStatus.SCHEDULED))

    async def set_step_running(self, step_id: str) -> None:
        """Move a pending or scheduled step to ``running``. Repeating it changes nothing.

        Raises:
            StepNotFoundError, IllegalTransitionError, LockLostError: Nothing was written.
        """
        await self._apply_to_step(step_id, self._make.move(step_id, StepStatus.RUNNING))

    async def set_step_result(self, step_id: str, result: Any) -> None:
        """Record the result of a step. The same result again changes nothing.

        Raises:
            StepConflictError: Another result is recorded already.
            StepNotFoundError, IllegalTransitionError, LockLostError: Nothing was written.
        """
        await self._apply_to_step(step_id, self._make.result(step_id, result))

    async def set_step_error(
        self, step_id: str, error: BaseException | SerializedError | str
    ) -> None:
        """Record the failure of a step's attempt. The same error again changes nothing.

        Raises:
            StepConflictError: Another error is recorded already.
            StepNotFoundError, IllegalTransitionError, LockLostError: Nothing was written.
        """
        await self._apply_to_step(step_id, self._make.error(step_id, error))

    async def create_retry_attempt(
        self, failed_step_id: str, status: StepStatus | str = "pending"
    ) -> StepState:
        """Begin the next attempt of a failed step, ``pending`` or ``running``; return the step.

        Of several callers at once exactly one gets the attempt. The result, error, branch and
        child run of the attempt before are cleared; its history keeps them.

        Raises:
            IllegalTransitionError: The step has not failed, or its retries are spent.
            StepNotFoundError, LockLostError: Nothing was written.
        """
        change = self._make.retry(failed_step_id, status)
        _, (answer,) = await self._apply_to_step(failed_step_id, change)
        return read_step(change.step_name, fields_of(answer), self.codec)

    async def set_branch_taken(self, step_id: str, branch: str) -> None:
        """Note which branch the step took; a later note takes the place of an earlier one.

        Raises:
            StepNotFoundError, IllegalTransitionError, LockLostError: Nothing was written.
        """
        await self._apply_to_step(step_id, self._make.branch(step_id, branch))

    async def set_step_child_run_id(self, step_id: str, child_run_id: str) -> None:
        """Note which run the step began; a later note takes the place of an earlier one.

        Raises:
            StepNotFoundError, IllegalTransitionError, LockLostError: Nothing was written.
        """
        await self._apply_to_step(step_id, self._make.child(step_id, child_run_id))

    @cached_property
    def _make(self) -> ChangeMakers:
        return ChangeMakers(self.ids, self.codec)

    async def _apply_to_step(self, step_id: str, change: Change) -> tuple[int, list[Any]]:
        run_id, _ = split_step_id(step_id)
        return await self._apply(run_id, [change])

    async def _apply(self, run_id: str, changes: Sequence[Change]) -> tuple[int, list[Any]]:
        """Apply *changes*, all or none; return when (ms), and the script's answer to each."""
        by = Writer(holder_for(self, run_id), self.clock_offset_ms, self.ids.suffix())
        resent = False
        while True:
            call = pack(self.keys, run_id, changes, by)
            answer, again = await self.scripts.insist(*call, patience_s=self.resend_s)
            resent = resent or again
            if answer[0] in _DONE:
                break
            fetch = partial(self.scripts.fetch, patience_s=self.resend_s)
            same = await as_recorded(fetch, self.codec, self.keys, run_id, changes, answer)
            if same is None:
                raise self._refusal(run_id, changes, answer, resent=resent)
            changes = same
        at, answers = 0, answer[1:]
        if answer[0] == b"OK":
            at, answers = int(answer[2]), answer[3:]
            if answer[1]:
                send_nudge(self.connection, self.keys, answer[1].decode(), run_id)
        if self.mirror.is_told:
            await tell_changes(self.mirror, self.codec, run_id, changes, from_ms(at), answers)
        return at, answers

    def _refusal(
        self, run_id: str, changes: Sequence[Change], answer: Answer, *, resent: bool
    ) -> Exception:
        error = refused(run_id, changes, answer)
        if not resent or answer[0] != b"TERMINAL":
            return error
        # An ended run remembers no writes: the copy whose reply was lost may have been applied.
        unknown = UnknownOutcomeError(f"the reply was lost, and when asked again: {error}")
        unknown.__cause__ = error
        return unknown
