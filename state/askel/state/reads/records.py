"""Hashes of Redis read into records, and records written as hash fields."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from askel.errors import (
    DamagedRecordError,
    PayloadError,
    SealedPayloadError,
    TamperedPayloadError,
)
from askel.state.codec import PLAIN, Codec
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


def _plain(text: bytes | None) -> Any:
    """Return what is never sealed: other programs read it."""
    return msgspec.json.decode(text) if text else None


def _text(value: bytes | None) -> str | None:
    return value.decode() if value else None


def read_ms(value: Any) -> int | None:
    """Return the milliseconds in *value*: a number, digits or an ISO date; None in all else."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str) and not value.lstrip("-").isdigit():
        try:
            return int(datetime.fromisoformat(value).timestamp() * 1_000)
        except ValueError:
            return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _time(fields: dict[str, bytes], *names: str) -> datetime:
    """Return the first of these times that can be read; the epoch where none can."""
    return from_ms(next((at for name in names if (at := read_ms(fields.get(name))) is not None), 0))


def error_of(text: bytes | None, codec: Codec = PLAIN) -> SerializedError | None:
    """Return the stored error, if there is one."""
    return codec.read_error(text) if text and text != b"null" else None


# What a hash raises that nobody of ours wrote so. Payloads that are sealed keep their own errors.
_DAMAGE = (KeyError, ValueError, OverflowError, OSError, RecursionError, msgspec.MsgspecError)


def _damaged(what: str, error: Exception) -> DamagedRecordError:
    """Say what is wrong, in words that quote no payload."""
    if isinstance(error, KeyError):
        return DamagedRecordError(what, f"it has no field {error.args[0]!r}")
    if isinstance(error, PayloadError):
        return DamagedRecordError(what, str(error))
    return DamagedRecordError(what, f"a field has no proper value ({type(error).__name__})")


def read_run(fields: dict[str, bytes], codec: Codec = PLAIN) -> WorkflowRun:
    """Return the run that its hash describes.

    Raises:
        DamagedRecordError: It describes none.
        SealedPayloadError, TamperedPayloadError: *codec* cannot open a payload.
    """
    try:
        return _run_of(fields, codec)
    except (SealedPayloadError, TamperedPayloadError):
        raise
    except (*_DAMAGE, PayloadError) as error:
        damage = _damaged(f"run {fields.get('id', b'?').decode('utf-8', 'replace')!r}", error)
    raise damage


def read_step(step_name: str, fields: dict[str, bytes], codec: Codec = PLAIN) -> StepState:
    """Return the step that its hash describes; raises as ``read_run`` does."""
    try:
        return _step_of(step_name, fields, codec)
    except (SealedPayloadError, TamperedPayloadError):
        raise
    except (*_DAMAGE, PayloadError) as error:
        damage = _damaged(f"step {step_name!r}", error)
    raise damage


def _run_of(fields: dict[str, bytes], codec: Codec) -> WorkflowRun:
    get = fields.get

    def value(field: str) -> Any:
        return codec.decode(text) if (text := get(field)) else None

    return WorkflowRun(
        id=fields["id"].decode(),
        workflow=fields["workflow"].decode(),
        status=RunStatus(fields["status"].decode()),
        created_at=_time(fields, "createdAt", "updatedAt"),
        updated_at=_time(fields, "updatedAt", "createdAt"),
        input=value("input"),
        output=value("output"),
        error=error_of(get("error"), codec),
        inline=get("inline") == b"true",
        graph_hash=_text(get("graphHash")),
        deterministic=get("deterministic") == b"true",
        planned_steps=_plain(get("plannedSteps")),
        wire=_plain(get("wire")),
        generation=int(get("generation") or 1),
        previous_run_id=_text(get("previous")),
        durability=_text(get("durability")),
    )


def _step_of(step_name: str, fields: dict[str, bytes], codec: Codec) -> StepState:
    get = fields.get

    def value(field: str) -> Any:
        return codec.decode(text) if (text := get(field)) else None

    retries = get("retries")
    return StepState(
        step_id=fields["stepId"].decode(),
        step_name=step_name,
        status=StepStatus(fields["status"].decode()),
        created_at=_time(fields, "createdAt", "updatedAt"),
        updated_at=_time(fields, "updatedAt", "createdAt"),
        rpc_name=_text(get("rpcName")),
        data=value("data"),
        result=value("result"),
        error=error_of(get("error"), codec),
        attempt_count=int(get("attemptCount") or 1),
        retries=int(retries) if retries else None,
        retry_delay=_text(get("retryDelay")),
        from_step_name=_text(get("fromStepName")),
        child_run_id=_text(get("childRunId")),
        branch_taken=_text(get("branchTaken")),
    )
