"""The timeline of a run, and the run as it stood at any moment of it. Pure.

Events stand in the order of the history list. A time never decides: two events of one
millisecond, or a server whose clock was set back, change nothing about their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from askel.errors import InvalidOptionError
from askel.state.codec import PLAIN, Codec
from askel.state.models import (
    RunStatus,
    SerializedError,
    StepAttempt,
    StepStatus,
    from_ms,
)
from askel.state.reads.history import HistoryEntry
from askel.state.reads.records import error_of

_IN_FLIGHT = frozenset(
    {StepStatus.PENDING, StepStatus.SCHEDULED, StepStatus.RUNNING, StepStatus.SUSPENDED}
)


class TimelineEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened to a run.

    Attributes:
        seq: Its place in the history, from 0.
        at: When, by the server's clock.
        kind: ``run`` (its status), ``step``, ``state`` (a variable), ``signal``, ``timer`` or
            ``approval``; a kind that a newer askel writes is passed on as it is.
        status: What the run, the attempt of the step or the approval became.
        name: Of the step, the variable, the signal or the approval.
        attempt: Of the step; of the timer the one that it lets begin.
        value: What the variable was set to.
        data: What the signal, or the decision of the approval, carries.
    """

    seq: int
    at: datetime
    kind: str
    status: str | None = None
    name: str | None = None
    attempt: int | None = None
    rpc_name: str | None = None
    from_step_name: str | None = None
    result: Any = None
    error: SerializedError | None = None
    output: Any = None
    value: Any = None
    data: Any = None
    branch: str | None = None
    child_run_id: str | None = None
    due: datetime | None = None
    workflow: str | None = None
    reason: str | None = None
    decided_by: str | None = None
    command: str | None = None


class RunTimeline(msgspec.Struct, frozen=True):
    """All that happened to a run, in order."""

    run_id: str
    events: list[TimelineEvent]


class StepAt(msgspec.Struct, frozen=True):
    """A step as it stood at a moment: its newest attempt by then."""

    status: StepStatus
    attempt: int = 1
    result: Any = None
    error: SerializedError | None = None
    from_step_name: str | None = None
    branch: str | None = None
    child_run_id: str | None = None


class SignalAt(msgspec.Struct, frozen=True):
    """A signal that had arrived by a moment."""

    seq: int
    at: datetime
    name: str
    data: Any = None


class ApprovalAt(msgspec.Struct, frozen=True):
    """An approval as it stood at a moment; *seq* and *at* are those of its last change."""

    seq: int
    at: datetime
    name: str
    status: str | None = None
    data: Any = None
    decided_by: str | None = None


class RunStateAt(msgspec.Struct, frozen=True):
    """A run as it stood at a moment.

    Attributes:
        seq: The last event that had happened; -1 before the first.
        at: When that was; None before the first.
        phase: ``pending`` while no step was reached, ``running`` while one was under way,
            ``failed`` when one had failed and none was under way, else ``idle``.
        status: The run's status; None before the first event.
        steps: By name, in the order in which they were first seen.
        results: Of the steps that had succeeded.
        variables: The run's variables.
        signals: In the order of their arrival.
        approvals: By name.
        path: Names of the steps in the order in which they were first seen.
        branches: The branch taken by each step that took one.
    """

    seq: int
    at: datetime | None
    phase: str
    status: RunStatus | None
    steps: dict[str, StepAt]
    results: dict[str, Any]
    variables: dict[str, Any]
    signals: list[SignalAt]
    approvals: dict[str, ApprovalAt]
    path: list[str]
    branches: dict[str, str]


def build_timeline(
    run_id: str,
    entries: Iterable[HistoryEntry],
    attempts: Sequence[StepAttempt] = (),
    codec: Codec = PLAIN,
) -> RunTimeline:
    """Return the timeline that a run's history tells.

    Args:
        run_id: The run.
        entries: Its history, from the first entry on.
        attempts: The attempts folded from it; they know where a step was reached from before the
            history does, which learns it when the attempt is closed.
        codec: Reads payloads and errors.
    """
    origins = {attempt.step_name: attempt.from_step_name for attempt in attempts}

    def value(raw: msgspec.Raw) -> Any:
        return codec.decode(bytes(raw)) if raw else None

    def origin(entry: HistoryEntry) -> str | None:
        known = origins.get(entry.name) if entry.kind == "step" else None
        return entry.from_step_name or known

    events = []
    for seq, entry in enumerate(entries):
        is_step = entry.kind == "step"
        events.append(
            TimelineEvent(
                seq=seq,
                at=from_ms(entry.at),
                kind=entry.kind,
                status=entry.status or None,
                name=entry.name or None,
                attempt=entry.attempt if is_step or entry.kind == "timer" else None,
                rpc_name=entry.rpc_name,
                from_step_name=origin(entry),
                result=value(entry.result),
                error=error_of(bytes(entry.error), codec),
                output=value(entry.output),
                value=value(entry.value),
                data=None if is_step else value(entry.data),
                branch=entry.branch,
                child_run_id=entry.child_run_id,
                due=None if entry.due is None else from_ms(entry.due),
                workflow=entry.workflow,
                reason=entry.reason,
                decided_by=entry.decided_by,
                command=entry.command,
            )
        )
    return RunTimeline(run_id, events)


def reconstruct_state_at(timeline: RunTimeline, at: int | datetime | None = None) -> RunStateAt:
    """Return the run as it stood when the event *at* had happened.

    Args:
        timeline: Of the run.
        at: The ``seq`` of an event, or a time, both inclusive: everything up to the last event
            that was recorded at or before it. A number or time before the first event gives the
            run before anything happened, one after the last event, or None, gives the end.

    Raises:
        InvalidOptionError: *at* is neither, or a time without a zone.
    """
    count = _length(timeline.events, at)
    state = _Fold()
    for event in timeline.events[:count]:
        state.apply(event)
    return state.frozen(timeline.events[count - 1] if count else None)


def _length(events: Sequence[TimelineEvent], at: int | datetime | None) -> int:
    """Return how many *events* had happened."""
    if at is None:
        return len(events)
    if isinstance(at, int) and not isinstance(at, bool):
        return min(max(at + 1, 0), len(events))
    if not isinstance(at, datetime) or at.utcoffset() is None:
        what = "a datetime without a time zone" if isinstance(at, datetime) else type(at).__name__
        msg = f"at is {what}: give the seq of an event, or a datetime with its time zone"
        raise InvalidOptionError(msg)
    return next((event.seq + 1 for event in reversed(events) if event.at <= at), 0)


class _Fold:
    """What has happened so far, while events are applied."""

    def __init__(self) -> None:
        self._status: RunStatus | None = None
        self._steps: dict[str, StepAt] = {}
        self._variables: dict[str, Any] = {}
        self._signals: list[SignalAt] = []
        self._approvals: dict[str, ApprovalAt] = {}

    def apply(self, event: TimelineEvent) -> None:
        """Take *event* into account; of a kind that is not known, nothing is."""
        name = event.name or event.reason or ""
        match event.kind:
            case "run" if event.status:
                self._status = RunStatus(event.status)
            case "step":
                self._steps[name] = _moved(self._steps.get(name), event)
            case "state":
                self._variables[name] = event.value
            case "signal":
                self._signals.append(SignalAt(event.seq, event.at, name, event.data))
            case "approval":
                self._approvals[name] = _decided(self._approvals.get(name), event, name)

    def frozen(self, last: TimelineEvent | None) -> RunStateAt:
        """Return the state after *last*."""
        steps = self._steps
        return RunStateAt(
            seq=-1 if last is None else last.seq,
            at=None if last is None else last.at,
            phase=_phase({step.status for step in steps.values()}),
            status=self._status,
            steps=steps,
            results={
                name: step.result
                for name, step in steps.items()
                if step.status is StepStatus.SUCCEEDED
            },
            variables=self._variables,
            signals=self._signals,
            approvals=self._approvals,
            path=list(steps),
            branches={name: step.branch for name, step in steps.items() if step.branch is not None},
        )


def _moved(before: StepAt | None, event: TimelineEvent) -> StepAt:
    """Return the step after *event*; a new attempt begins without anything of the last.

    An entry that repeats the status notes something else, a branch or a child run.
    """
    attempt = event.attempt or 1
    if before is None or attempt > before.attempt:
        kept = StepAt(
            StepStatus.PENDING,
            attempt,
            from_step_name=before.from_step_name if before else None,
        )
    else:
        kept = before
    if event.status and (kept is not before or event.status != before.status):
        kept = msgspec.structs.replace(
            kept, status=StepStatus(event.status), result=event.result, error=event.error
        )
    return msgspec.structs.replace(
        kept,
        from_step_name=event.from_step_name or kept.from_step_name,
        branch=event.branch or kept.branch,
        child_run_id=event.child_run_id or kept.child_run_id,
    )


def _decided(before: ApprovalAt | None, event: TimelineEvent, name: str) -> ApprovalAt:
    """Return the approval after *event*."""
    known = before or ApprovalAt(event.seq, event.at, name)
    return ApprovalAt(
        event.seq,
        event.at,
        name,
        event.status or known.status,
        known.data if event.data is None else event.data,
        event.decided_by or known.decided_by,
    )


def _phase(statuses: set[StepStatus]) -> str:
    if not statuses:
        return "pending"
    if statuses & _IN_FLIGHT:
        return "running"
    if statuses & {StepStatus.FAILED, StepStatus.LOST}:
        return "failed"
    return "idle"
