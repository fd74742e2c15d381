"""What the service tells of every run, compared with the model."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.properties.agreement import STATUSES, times_of
from tests.properties.model import TERMINAL, Model, Run

from askel import RedisWorkflowService, RunStatusReport, StepAttempt


async def check_readings(
    service: RedisWorkflowService, model: Model, found: dict[str, Any]
) -> None:
    """Every reading of every run agrees with the model, and so do the listings."""
    for run in model.runs.values():
        await _check_run(service, run)
    await _check_listings(service, model, found)
    await _check_unknown(service)


async def _check_run(service: RedisWorkflowService, run: Run) -> None:
    record, report, attempts, timeline, steps, variables, graph, now = await asyncio.gather(
        service.get_run(run.run_id),
        service.get_run_status(run.run_id),
        service.get_run_history(run.run_id),
        service.get_run_timeline(run.run_id),
        service.get_run_steps(run.run_id),
        service.get_run_state(run.run_id),
        service.get_completed_graph_state(run.run_id),
        service.reconstruct_run_state_at(run.run_id),
    )
    assert (record.status, record.workflow, record.input, record.generation) == (
        run.status, run.workflow, run.input, run.generation
    )  # fmt: skip
    assert (record.output, record.error and record.error.message) == (
        run.output, run.error and run.error["message"]
    )  # fmt: skip
    assert record.previous_run_id == run.previous
    _check_report(report, run)
    _check_attempts(attempts, run)
    assert [(e.kind, e.status, e.name) for e in timeline.events] == [
        (e["t"], e.get("status"), e.get("name")) for e in run.history
    ]
    assert [(s.step_name, s.status, s.step_id) for s in steps] == [
        (name, step.status, step.step_id) for name, step in run.steps.items()
    ]
    assert variables == run.variables == now.variables
    assert now.status == run.status
    assert {name: (s.status, s.attempt) for name, s in now.steps.items()} == {
        name: (step.status, step.attempt) for name, step in run.steps.items()
    }
    assert graph.completed_node_ids == [n for n, s in run.steps.items() if s.status == "succeeded"]
    assert graph.failed_node_ids == [
        name for name, step in run.steps.items()
        if step.status == "failed" and (step.retries is None or step.is_spent)
    ]  # fmt: skip


def _check_report(report: RunStatusReport, run: Run) -> None:
    assert report.status == run.status
    assert [(s.name, s.status, s.attempts) for s in report.steps] == [
        (name, step.status, step.attempt) for name, step in run.steps.items()
    ]
    assert report.output == (run.output if run.status == "completed" else None)
    assert (report.error is None) == (
        run.error is None or run.status not in TERMINAL - {"completed"}
    )
    assert (report.completed_at is not None) == (run.status in TERMINAL)


def _check_attempts(attempts: list[StepAttempt], run: Run) -> None:
    """One record per attempt, without gaps; the newest is the step as it stands."""
    by_step: dict[str, list[StepAttempt]] = {}
    for attempt in attempts:
        by_step.setdefault(attempt.step_name, []).append(attempt)
    assert list(by_step) == list(run.steps)
    for name, step in run.steps.items():
        own = by_step[name]
        assert [attempt.attempt_count for attempt in own] == [*range(1, step.attempt + 1)]
        assert all(attempt.status == "failed" for attempt in own[:-1])
        newest, outcome = own[-1], dict([step.outcome] if step.outcome else [])
        assert (newest.status, newest.step_id, newest.rpc_name, newest.data, newest.retries) == (
            step.status, step.step_id, step.rpc_name, step.data, step.retries
        )  # fmt: skip
        assert newest.result == outcome.get("result")
        error = outcome.get("error")
        assert (newest.error and newest.error.message) == (error and error["message"])
        assert (newest.branch_taken, newest.child_run_id) == (
            step.notes.get("branch"), step.notes.get("child")
        )  # fmt: skip


async def _check_listings(
    service: RedisWorkflowService, model: Model, found: dict[str, Any]
) -> None:
    def place(run: Run) -> tuple[int, bytes]:
        return (times_of(run.run_id, found) or [0])[0], run.run_id.encode()

    ordered = sorted(model.runs.values(), key=place, reverse=True)
    workflows = sorted({run.workflow for run in ordered})
    pages = await asyncio.gather(
        service.list_runs(limit=100),
        *(service.list_runs(limit=100, status=status) for status in STATUSES),
        *(service.list_runs(limit=100, workflow_name=name) for name in workflows),
    )
    whole, statuses, names = pages[0], pages[1 : 1 + len(STATUSES)], pages[1 + len(STATUSES) :]
    assert [run.id for run in whole.runs] == [run.run_id for run in ordered]
    for status, page in zip(STATUSES, statuses, strict=True):
        assert [run.id for run in page.runs] == [r.run_id for r in ordered if r.status == status]
    for name, page in zip(workflows, names, strict=True):
        assert [run.id for run in page.runs] == [r.run_id for r in ordered if r.workflow == name]
    assert await service.get_distinct_workflow_names() == workflows


async def _check_unknown(service: RedisWorkflowService) -> None:
    assert await service.get_run("nowhere") is None
    assert await service.get_run_history("nowhere") == []
    assert await service.get_run_status("nowhere") is None
