"""The records that the state service answers with: frozen, typed, times in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec


class _Unset:
    """Marks an argument that was not given, where None is a value."""

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> bool:
        return False


UNSET: Any = _Unset()
"""Stands for an argument that was not given, where None is a value."""


class RunStatus(StrEnum):
    """Where a run stands; ``stalled`` is a run whose code no longer matches its history."""

    RUNNING = "running"
    SUSPENDED = "suspended"
    STALLED = "stalled"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepStatus(StrEnum):
    """Where a step, or one attempt of it, stands; ``lost`` is an attempt abandoned by a crash."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SUSPENDED = "suspended"
    LOST = "lost"


class IfExists(StrEnum):
    """What becomes of a run that exists when it is to be created.

    ``reject`` refuses; ``return`` takes the run that exists, if it was created for the same
    workflow and input; ``after-terminal`` begins its next generation once it has ended;
    ``terminate-existing`` cancels it where it has not, then does the same. The former generation
    goes on, ended, under the id ``{run_id}.g{n}``.
    """

    REJECT = "reject"
    RETURN = "return"
    AFTER_TERMINAL = "after-terminal"
    TERMINATE_EXISTING = "terminate-existing"

    @property
    def replaces(self) -> bool:
        """Whether a new generation may take the place of a run."""
        return self in {IfExists.AFTER_TERMINAL, IfExists.TERMINATE_EXISTING}


class SerializedError(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as it is stored: text only, never the exception itself."""

    message: str
    stack: str | None = None
    code: str | None = None
    name: str | None = None


class StepOptions(msgspec.Struct, frozen=True):
    """How a step is tried: ``retries`` beyond the first attempt, and the delay before each.

    ``retry_delay`` is a duration in any form, or ``"exponential"``.
    """

    retries: int | None = None
    retry_delay: Any = None


class WorkflowRun(msgspec.Struct, frozen=True):
    """One durable execution of a workflow.

    ``generation`` counts the runs that had this id; ``previous_run_id`` is where the one before
    goes on to be found. ``durability`` is what was asked for beyond the primary's memory.
    """

    id: str
    workflow: str
    status: RunStatus
    created_at: datetime
    updated_at: datetime
    input: Any = None
    output: Any = None
    error: SerializedError | None = None
    inline: bool = False
    graph_hash: str | None = None
    deterministic: bool = False
    planned_steps: Any = None
    wire: Any = None
    generation: int = 1
    previous_run_id: str | None = None
    durability: str | None = None


class StepState(msgspec.Struct, frozen=True):
    """A step as it stands now: the state of its newest attempt."""

    step_id: str
    step_name: str
    status: StepStatus
    created_at: datetime
    updated_at: datetime
    rpc_name: str | None = None
    data: Any = None
    result: Any = None
    error: SerializedError | None = None
    attempt_count: int = 1
    retries: int | None = None
    retry_delay: str | None = None
    from_step_name: str | None = None
    child_run_id: str | None = None
    branch_taken: str | None = None


class StepAttempt(StepState, frozen=True):
    """One attempt of a step, with the time of each status it had."""

    scheduled_at: datetime | None = None
    running_at: datetime | None = None
    succeeded_at: datetime | None = None
    failed_at: datetime | None = None


def from_ms(milliseconds: int | str | bytes) -> datetime:
    """Return the UTC datetime of *milliseconds* since the epoch."""
    return datetime.fromtimestamp(int(milliseconds) / 1_000, UTC)
