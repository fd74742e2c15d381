"""The report on a run: where it and each of its steps stand, in a form to show. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from askel.state.models import (
    RunStatus,
    SerializedError,
    StepAttempt,
    StepStatus,
    WorkflowRun,
    from_ms,
)
from askel.state.moves import TERMINAL
from askel.state.reads.history import HistoryEntry


class StepReport(msgspec.Struct, frozen=True):
    """Where a step stands.

    ``attempts`` is the number of its newest attempt, ``status`` the status of that one, and
    ``duration`` that of the newest attempt that has ended: from when it ran (from when it was
    created, if it never said that it ran) to its end.
    """

    name: str
    status: StepStatus
    attempts: int
    duration: timedelta | None = None


class RunStatusReport(msgspec.Struct, frozen=True):
    """Where a run stands.

    ``completed_at`` is when it ended, however it ended; ``output`` is there of a completed run
    only, ``error`` of a failed or cancelled one only. Steps stand in the order of creation.
    """

    id: str
    status: RunStatus
    started_at: datetime
    steps: list[StepReport]
    completed_at: datetime | None = None
    output: Any = None
    error: SerializedError | None = None
    deterministic: bool = False
    planned_steps: Any = None


def build_report(
    run: WorkflowRun, entries: Sequence[HistoryEntry], attempts: Iterable[StepAttempt]
) -> RunStatusReport:
    """Return the report on *run*, given its history and the attempts folded from it."""
    ended = run.status in TERMINAL
    unsuccessful = ended and run.status is not RunStatus.COMPLETED
    return RunStatusReport(
        id=run.id,
        status=run.status,
        started_at=run.created_at,
        steps=report_steps(attempts),
        completed_at=_ended_at(run, entries) if ended else None,
        output=run.output if run.status is RunStatus.COMPLETED else None,
        error=run.error if unsuccessful else None,
        deterministic=run.deterministic,
        planned_steps=run.planned_steps,
    )


def report_steps(attempts: Iterable[StepAttempt]) -> list[StepReport]:
    """Return one report per step, in the order in which they are first met.

    Attempts are told apart by their number, never by a time.
    """
    newest: dict[str, StepAttempt] = {}
    ended: dict[str, StepAttempt] = {}
    for attempt in attempts:
        name = attempt.step_name
        for chosen, counts in ((newest, True), (ended, _end(attempt) is not None)):
            if counts and (
                name not in chosen or attempt.attempt_count > chosen[name].attempt_count
            ):
                chosen[name] = attempt
    return [
        StepReport(name, _status(attempt), attempt.attempt_count, _duration(ended.get(name)))
        for name, attempt in newest.items()
    ]


def _status(attempt: StepAttempt) -> StepStatus:
    """Return the status of the step whose newest attempt this is: a lost one has failed."""
    return StepStatus.FAILED if attempt.status is StepStatus.LOST else attempt.status


def _end(attempt: StepAttempt) -> datetime | None:
    return attempt.succeeded_at or attempt.failed_at


def _duration(attempt: StepAttempt | None) -> timedelta | None:
    if attempt is None or (end := _end(attempt)) is None:
        return None
    # A server whose clock was set back in between makes no negative durations.
    return max(end - (attempt.running_at or attempt.created_at), timedelta())


def _ended_at(run: WorkflowRun, entries: Sequence[HistoryEntry]) -> datetime:
    """Return when *run* ended: as recorded, else (another program wrote it) its last change."""
    for entry in reversed(entries):
        if entry.kind == "run" and entry.status == run.status.value:
            return from_ms(entry.at)
    return run.updated_at
