"""Hashes of Redis read into records, and records written as hash fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from askel.state import codec
from askel.state.models import (
    RunStatus,
    SerializedError,
    StepState,
    StepStatus,
    WorkflowRun,
    from_ms,
)


def fields_of(flat: Sequence[bytes]) -> dict[str, bytes]:
    """Return the fields of a hash (or a stream entry) that Redis sent as a flat list."""
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}


def _json(text: bytes | None) -> Any:
    return msgspec.json.decode(text) if text else None


def _text(value: bytes | None) -> str | None:
    return value.decode() if value else None


def error_of(text: bytes | None) -> SerializedError | None:
    """Return the stored error, if there is one."""
    return codec.read_error(text) if text and text != b"null" else None


def read_run(fields: dict[str, bytes]) -> WorkflowRun:
    """Return the run that its hash describes."""
    get = fields.get
    return WorkflowRun(
        id=fields["id"].decode(),
        workflow=fields["workflow"].decode(),
        status=RunStatus(fields["status"].decode()),
        created_at=from_ms(fields["createdAt"]),
        updated_at=from_ms(fields["updatedAt"]),
        input=_json(get("input")),
        output=_json(get("output")),
        error=error_of(get("error")),
        inline=get("inline") == b"true",
        graph_hash=_text(get("graphHash")),
        deterministic=get("deterministic") == b"true",
        planned_steps=_json(get("plannedSteps")),
        wire=_json(get("wire")),
    )


def read_step(step_name: str, fields: dict[str, bytes]) -> StepState:
    """Return the step that its hash describes."""
    get = fields.get
    retries = get("retries")
    return StepState(
        step_id=fields["stepId"].decode(),
        step_name=step_name,
        status=StepStatus(fields["status"].decode()),
        created_at=from_ms(fields["createdAt"]),
        updated_at=from_ms(fields["updatedAt"]),
        rpc_name=_text(get("rpcName")),
        data=_json(get("data")),
        result=_json(get("result")),
        error=error_of(get("error")),
        attempt_count=int(get("attemptCount") or 1),
        retries=int(retries) if retries else None,
        retry_delay=_text(get("retryDelay")),
        from_step_name=_text(get("fromStepName")),
        child_run_id=_text(get("childRunId")),
        branch_taken=_text(get("branchTaken")),
    )
