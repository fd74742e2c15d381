"""The step methods of the state service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from askel.errors import (
    IllegalTransitionError,
    InvalidOptionError,
    StepConflictError,
    StepNotFoundError,
)
from askel.names import check_name, check_run_id
from askel.state import codec
from askel.state.arguments import (
    as_options,
    as_status,
    delay_text,
    raise_refusal,
    serialized,
    split_step_id,
)
from askel.state.caller import Word
from askel.state.connection import Connection
from askel.state.history import step_body
from askel.state.ids import IdSource
from askel.state.keys import Keys
from askel.state.models import SerializedError, StepOptions, StepState, StepStatus
from askel.state.moves import step_sources
from askel.state.nudging import send_nudge
from askel.state.records import fields_of, read_step
from askel.state.runlock import holder_for
from askel.state.scripts import Scripts
from askel.state.turns import Answer


class StepMethods:
    """Inserting, moving and finishing steps, each in one atomic step."""

    keys: Keys
    ids: IdSource
    connection: Connection
    scripts: Scripts
    clock_offset_ms: int
    resend_s: float

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

        Raises:
            StepConflictError: The step exists for another function.
            RunNotFoundError, IllegalTransitionError: There is no such run, or it has ended.
        """
        k = self.keys
        options = as_options(step_options)
        fields: list[Word] = [
            "stepId",
            f"{check_run_id(run_id)}:{check_name(step_name)}:{self.ids.suffix()}",
            "data",
            codec.encode(data),
        ]
        if rpc_name is not None:
            fields += ["rpcName", check_name(rpc_name, "rpc name")]
        if options.retries is not None:
            fields += ["retries", options.retries]
        if options.retry_delay is not None:
            fields += ["retryDelay", delay_text(options.retry_delay)]
        if from_step_name is not None:
            fields += ["fromStepName", check_name(from_step_name)]
        answer = await self._write(
            "insert_step",
            [
                k.run(run_id),
                k.history(run_id),
                k.lock(run_id),
                k.step(run_id, step_name),
                k.steps(run_id),
            ],
            [
                self._holder(run_id),
                self.clock_offset_ms,
                step_name,
                rpc_name or "",
                step_body(step_name, "pending", 1, rpc_name),
                *fields,
            ],
        )
        if answer[0] == b"CONFLICT":
            raise StepConflictError(run_id, step_name, "it exists for another function")
        if answer[0] not in {b"OK", b"EXISTS"}:
            raise_refusal(answer, run_id, f"run {run_id!r}", "given another step")
        return read_step(step_name, fields_of(answer[1]))

    async def get_step_state(self, run_id: str, step_name: str) -> StepState:
        """Return the step as it stands.

        Raises:
            StepNotFoundError: The run has no such step.
        """
        key = self.keys.step(check_run_id(run_id), check_name(step_name))
        flat = await self.connection.send("HGETALL", key)
        if not flat:
            raise StepNotFoundError(run_id, step_name)
        return read_step(step_name, fields_of(flat))

    async def set_step_scheduled(self, step_id: str) -> None:
        """Move a pending step to ``scheduled``. Repeating it changes nothing.

        Raises:
            StepNotFoundError, IllegalTransitionError, LockLostError: Nothing was written.
        """
        await self._move_step(step_id, StepStatus.SCHEDULED)

    async def set_step_running(self, step_id: str) -> None:
        """Move a pending or scheduled step to ``running``. Repeating it changes nothing.

        Raises:
            StepNotFoundError, IllegalTransitionError, LockLostError: Nothing was written.
        """
        await self._move_step(step_id, StepStatus.RUNNING)

    async def set_step_result(self, step_id: str, result: Any) -> None:
        """Record the result of a step. The same result again changes nothing.

        Raises:
            StepConflictError: Another result is recorded already.
            StepNotFoundError, IllegalTransitionError, LockLostError: Nothing was written.
        """
        await self._finish_step(step_id, StepStatus.SUCCEEDED, "result", codec.encode(result))

    async def set_step_error(self, step_id: str, error: BaseException | SerializedError) -> None:
        """Record the failure of a step's attempt. The same error again changes nothing.

        Raises:
            StepConflictError: Another error is recorded already.
            StepNotFoundError, IllegalTransitionError, LockLostError: Nothing was written.
        """
        await self._finish_step(
            step_id, StepStatus.FAILED, "error", codec.encode(serialized(error))
        )

    async def create_retry_attempt(
        self, failed_step_id: str, status: StepStatus | str = "pending"
    ) -> StepState:
        """Begin the next attempt of a failed step, ``pending`` or ``running``; return the step.

        Of several callers at once exactly one gets the attempt.

        Raises:
            IllegalTransitionError: The step has not failed, or its retries are spent.
            StepNotFoundError, LockLostError: Nothing was written.
        """
        target = as_status(StepStatus, status)
        if target not in {StepStatus.PENDING, StepStatus.RUNNING}:
            msg = f"a new attempt is 'pending' or 'running', not {status!r}"
            raise InvalidOptionError(msg)
        run_id, name = split_step_id(failed_step_id)
        answer = await self._write(
            "retry_step",
            self._step_keys(run_id, name),
            [
                self._holder(run_id),
                self.clock_offset_ms,
                name,
                failed_step_id,
                target.value,
                self.ids.nonce(),
            ],
        )
        if answer[0] == b"SPENT":
            raise IllegalTransitionError(f"step {name!r}", "failed with its retries spent", target)
        raise_refusal(answer, run_id, f"step {name!r} of run {run_id!r}", target, step=name)
        return read_step(name, fields_of(answer[1]))

    def _nudge(self, answer: Answer, run_id: str) -> None:
        """Tell the process that drives the run, if one does, that the run has news."""
        if answer[0] == b"OK" and answer[1]:
            send_nudge(self.connection, self.keys, answer[1].decode(), run_id)

    def _holder(self, run_id: str) -> str:
        return holder_for(self, run_id)

    async def _write(self, name: str, keys: list[str], args: list[Word]) -> Answer:
        answer, _ = await self.scripts.insist(name, keys, args, patience_s=self.resend_s)
        return answer

    def _step_keys(self, run_id: str, name: str) -> list[str]:
        k = self.keys
        return [k.run(run_id), k.history(run_id), k.lock(run_id), k.step(run_id, name)]

    async def _move_step(self, step_id: str, target: StepStatus) -> None:
        run_id, name = split_step_id(step_id)
        answer = await self._write(
            "move_step",
            self._step_keys(run_id, name),
            [
                self._holder(run_id),
                self.clock_offset_ms,
                name,
                step_id,
                step_sources(target),
                target.value,
            ],
        )
        raise_refusal(answer, run_id, f"step {name!r} of run {run_id!r}", target, step=name)

    async def _finish_step(
        self, step_id: str, target: StepStatus, outcome: str, text: bytes
    ) -> None:
        run_id, name = split_step_id(step_id)
        k = self.keys
        answer = await self._write(
            "finish_step",
            [*k.run_keys(run_id), k.step(run_id, name), k.commands_default],
            [
                self._holder(run_id),
                self.clock_offset_ms,
                run_id,
                name,
                step_id,
                step_sources(target),
                target.value,
                outcome,
                text,
            ],
        )
        if answer[0] == b"CONFLICT":
            raise StepConflictError(run_id, name, f"another {outcome} is recorded already")
        raise_refusal(answer, run_id, f"step {name!r} of run {run_id!r}", target, step=name)
        self._nudge(answer, run_id)
