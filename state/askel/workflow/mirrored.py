"""Telling the service's mirror of what an inline workflow writes, turn by turn, after it landed."""

from __future__ import annotations

from typing import Any

from askel.state import (
    TERMINAL,
    UNSET,
    Activations,
    Entry,
    RedisWorkflowService,
    RunStatus,
    StepDecision,
    StepResult,
    StepState,
    StepStatus,
    Turn,
    Turned,
    codec,
    from_ms,
)

_LANDED = frozenset({"OK", "END"})


class MirroredActivations(Activations):
    """Activations of a service with a mirror. A turn sent again is told again."""

    def __init__(
        self, service: RedisWorkflowService, payloads: codec.Codec, **options: Any
    ) -> None:
        """Tell the mirror of *service*, which sees payloads as *payloads* opens them."""
        super().__init__(service.scripts, service.keys, **options)
        self._mirror = service.mirror
        self._payloads = payloads
        self._step_ids: dict[str, str] = {}

    async def turn(self, turn: Turn, entry: Entry | None) -> Turned:
        """Take *turn*; once it has landed, tell of its results, decisions and end, in order."""
        answer = await super().turn(turn, entry)
        if answer.word in _LANDED:
            for result in turn.results:
                await self._tell_result(turn.run_id, result)
            for decision in turn.decisions:
                await self._tell_decision(turn.run_id, decision, answer.at)
            if turn.end in TERMINAL | {RunStatus.SUSPENDED, RunStatus.STALLED}:
                await self._tell_end(turn)
        return answer

    async def _tell_result(self, run_id: str, result: StepResult) -> None:
        step_id = await self._step_id(run_id, result.name)
        if result.becomes == StepStatus.SUCCEEDED:
            value = self._payloads.decode(result.json)
            await self._mirror.tell("set_step_result", step_id, value)
        else:
            error = self._payloads.read_error(result.json)
            await self._mirror.tell("set_step_error", step_id, error)

    async def _tell_decision(self, run_id: str, decision: StepDecision, at_ms: int) -> None:
        if not decision.expect:
            step = _inserted(decision, at_ms, self._payloads)
            self._step_ids[decision.name] = step.step_id
            await self._mirror.tell("insert_step_state", run_id, step)
        step_id = await self._step_id(run_id, decision.name)
        if decision.expect and decision.attempt != decision.expect_attempt:
            await self._mirror.tell("create_retry_attempt", step_id, None)
        if decision.becomes in {StepStatus.RUNNING, StepStatus.SCHEDULED}:
            await self._mirror.tell(f"set_step_{decision.becomes}", step_id)

    async def _tell_end(self, turn: Turn) -> None:
        is_output = turn.outcome == "output"
        output = self._payloads.decode(turn.json) if is_output and turn.json else UNSET
        error = self._payloads.read_error(turn.json) if not is_output and turn.json else None
        await self._mirror.tell(
            "update_run_status", turn.run_id, RunStatus(turn.end), output, error
        )

    async def _step_id(self, run_id: str, name: str) -> str:
        known = self._step_ids.get(name)
        if known is None:  # begun by an activation before this one
            stored = await self._scripts.fetch("HGET", self.keys.step(run_id, name), "stepId")
            known = self._step_ids[name] = (stored or b"").decode()
        return known


def _inserted(decision: StepDecision, at_ms: int, payloads: codec.Codec) -> StepState:
    """Return the step that *decision* has just inserted, as the mirror is told of it."""
    given = dict(zip(decision.fields[::2], decision.fields[1::2], strict=True))
    data = given.get("data")
    retries = given.get("retries")
    at = from_ms(at_ms)
    return StepState(
        step_id=str(given["stepId"]),
        step_name=decision.name,
        status=StepStatus.PENDING,
        created_at=at,
        updated_at=at,
        rpc_name=_text(given.get("rpcName")),
        data=payloads.decode(data) if isinstance(data, bytes) else None,
        retries=None if retries is None else int(retries),
        retry_delay=_text(given.get("retryDelay")),
        from_step_name=_text(given.get("fromStepName")),
    )


def _text(value: str | bytes | int | None) -> str | None:
    return None if value is None else str(value)
