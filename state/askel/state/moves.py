"""The state machine: which status may follow which. The scripts enforce this table.

Terminal is final. A move that is not in the table is refused before anything is written.
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

from askel.state.models import RunStatus, StepStatus

_T = TypeVar("_T", RunStatus, StepStatus)

#: Run status -> the statuses it may be left for.
RUN_MOVES: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.RUNNING: frozenset(
        {
            RunStatus.SUSPENDED,
            RunStatus.STALLED,
            RunStatus.COMPLETED,
            RunStatus.FAILED,
            RunStatus.CANCELLED,
        }
    ),
    RunStatus.SUSPENDED: frozenset({RunStatus.RUNNING, RunStatus.FAILED, RunStatus.CANCELLED}),
    RunStatus.STALLED: frozenset({RunStatus.RUNNING, RunStatus.FAILED, RunStatus.CANCELLED}),
    RunStatus.COMPLETED: frozenset(),
    RunStatus.FAILED: frozenset(),
    RunStatus.CANCELLED: frozenset(),
}

#: Step status -> the statuses it may be left for. A failed step moves on only by a new attempt.
STEP_MOVES: dict[StepStatus, frozenset[StepStatus]] = {
    StepStatus.PENDING: frozenset(
        {StepStatus.SCHEDULED, StepStatus.RUNNING, StepStatus.SUCCEEDED, StepStatus.FAILED}
    ),
    StepStatus.SCHEDULED: frozenset({StepStatus.RUNNING, StepStatus.SUCCEEDED, StepStatus.FAILED}),
    StepStatus.RUNNING: frozenset({StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.SUSPENDED}),
    StepStatus.SUSPENDED: frozenset({StepStatus.RUNNING, StepStatus.SUCCEEDED, StepStatus.FAILED}),
    StepStatus.SUCCEEDED: frozenset(),
    StepStatus.FAILED: frozenset(),
}

TERMINAL = frozenset(status for status, moves in RUN_MOVES.items() if not moves)


@cache
def run_sources(target: RunStatus) -> str:
    """Return the statuses from which a run may become *target*, as the scripts take them."""
    return _sources(target, RUN_MOVES)


@cache
def step_sources(target: StepStatus) -> str:
    """Return the statuses from which a step may become *target*, as the scripts take them."""
    return _sources(target, STEP_MOVES)


def step_sources_in_lua() -> str:
    """Return the statuses from which a step may become each other, as a function of the scripts."""
    known = {target.value: step_sources(target) for target in StepStatus}
    cases = [
        f"target == '{target}' and '{found}'" for target, found in known.items() if found != ","
    ]
    return f"local function sources(target)\n  return {' or '.join(cases)}\nend\n"


def _sources(target: _T, moves: dict[_T, frozenset[_T]]) -> str:
    return "," + "".join(f"{source}," for source, to in moves.items() if target in to)
