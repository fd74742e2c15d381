"""Runs that askel made, seen and changed by the npm package (contract C.5 a)."""

from datetime import datetime

import pytest
from tests.apps.parts import app
from tests.helpers.daemon import deployment
from tests.helpers.pikku import NodeError

from askel import SerializedError, StepOptions
from askel.state import idempotency_key

pytestmark = [
    pytest.mark.usefixtures("redis_server"),
    pytest.mark.allow_keys(r".*:step-history:.+"),
]

__all__ = ["deployment"]
WIRE = {"type": "http", "pikkuUserId": "u1"}


def js_time(value: datetime | None) -> str | None:
    return None if value is None else value.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def attempt_of(record) -> dict:
    """One attempt as Node shows it, without what it leaves out."""
    error = record.error and {
        name: part
        for name in ("message", "stack", "code", "name")
        if (part := getattr(record.error, name)) is not None
    }
    shown = {
        "stepId": record.step_id,
        "stepName": record.step_name,
        "status": "failed" if record.status == "lost" else str(record.status),
        "result": record.result,
        "error": error,
        "attemptCount": record.attempt_count,
        "retries": record.retries,
        "retryDelay": record.retry_delay,
        "fromStepName": record.from_step_name,
    }
    return {name: value for name, value in shown.items() if value is not None}


async def full_run(service):
    """A run with a step in each state that an embedding program can leave one in."""
    run_id = await service.create_run(
        "shop", {"n": 1}, graph_hash="g1", wire=WIRE, deterministic=True, planned_steps=["a", "b"]
    )
    a = await service.insert_step_state(run_id, "a: first", "charge", {"sum": 1.5}, StepOptions(1))
    await service.set_step_scheduled(a.step_id)
    await service.set_step_running(a.step_id)
    await service.set_step_error(a.step_id, SerializedError("no", code="E1", name="Declined"))
    a = await service.create_retry_attempt(a.step_id)
    await service.set_step_running(a.step_id)
    await service.set_step_result(a.step_id, {"empty": [], "big": 2**53})
    b = await service.insert_step_state(
        run_id, "b", None, None, {"retry_delay": "2s"}, from_step_name="a: first"
    )
    await service.set_step_running(b.step_id)
    await service.insert_step_state(run_id, "ç/\u2028#1", "wait", [])
    return run_id


async def test_node_reads_the_run_and_its_steps(service, pikku):
    run_id = await full_run(service)

    run = await pikku.service.getRun(run_id)
    ours = await service.get_run(run_id)
    assert run == await pikku.runs.getRun(run_id)
    assert run == {
        "id": run_id,
        "workflow": "shop",
        "status": "running",
        "input": {"n": 1},
        "graphHash": "g1",
        "deterministic": True,
        "plannedSteps": ["a", "b"],
        "wire": WIRE,
        "createdAt": js_time(ours.created_at),
        "updatedAt": js_time(ours.updated_at),
    }
    steps = await pikku.runs.getRunSteps(run_id)
    known = {step.step_name: step for step in await service.get_run_steps(run_id)}
    assert {step["stepName"]: (step["status"], step["attemptCount"]) for step in steps} == {
        name: (str(step.status), step.attempt_count) for name, step in known.items()
    }
    state = await pikku.service.getStepState(run_id, "a: first")
    assert state["result"] == {"empty": [], "big": 2**53}
    assert (state["rpcName"], state["retries"], state["stepId"]) == (
        "charge",
        1,
        known["a: first"].step_id,
    )
    with pytest.raises(NodeError, match="Step not found"):
        await pikku.service.getStepState(run_id, "no such step")


async def test_node_tells_the_same_history_status_and_timeline(service, pikku):
    run_id = await full_run(service)

    theirs = await pikku.service.getRunHistory(run_id)
    ours = await service.get_run_history(run_id)
    shown = ("createdAt", "updatedAt", "scheduledAt", "runningAt", "succeededAt", "failedAt")
    bare = [{name: one[name] for name in one if name not in shown} for one in theirs]
    assert sorted(bare, key=str) == sorted(map(attempt_of, ours), key=str)
    report = await pikku.service.getRunStatus(run_id)
    said = await service.get_run_status(run_id)
    assert {s["name"]: (s["status"], s["attempts"]) for s in report["steps"]} == {
        step.name: (str(step.status), step.attempts) for step in said.steps
    }
    assert (report["status"], report["plannedSteps"]) == ("running", ["a", "b"])
    timeline = await pikku.service.getRunTimeline(run_id)
    told = [
        (event.name, event.attempt, str(event.status))
        for event in (await service.get_run_timeline(run_id)).events
        if event.kind == "step"
    ]
    # Node sorts by time and then by name where both fall into one millisecond.
    assert sorted((e["stepName"], e["attemptCount"], e["type"]) for e in timeline) == sorted(told)
    end = await pikku.service.reconstructRunStateAt(run_id)
    assert {s["stepName"]: s["status"] for s in end["steps"]} == {
        "a: first": "succeeded",
        "b": "running",
        "ç/\u2028#1": "pending",
    }


@pytest.mark.parametrize(("status", "more"), [("completed", {"output": 3}), ("failed", {})])
async def test_node_reads_the_end_of_the_run(service, pikku, status, more):
    run_id = await service.create_run("shop")
    if status == "completed":
        await service.update_run_status(run_id, status, {"total": 3})
    else:
        await service.update_run_status(run_id, status, error=SerializedError("no", code="E"))

    report = await pikku.service.getRunStatus(run_id)
    assert report["status"] == status
    assert report["completedAt"] == js_time((await service.get_run(run_id)).updated_at)
    assert report.get("output") == ({"total": 3} if more else None)
    assert report.get("error") == (None if more else {"message": "no"})


async def test_node_lists_the_runs(service, pikku):
    first = await service.create_run("shop")
    second = await service.create_run("mail", None)
    await service.update_run_status(second, "suspended")

    assert {run["id"] for run in await pikku.runs.listRuns()} == {first, second}
    by = {"workflowName": "mail", "status": "suspended"}
    assert [run["id"] for run in await pikku.runs.listRuns(by)] == [second]
    assert await pikku.runs.getDistinctWorkflowNames() == ["mail", "shop"]


async def test_node_reads_variables_branches_children_and_results(service, pikku):
    run_id = await service.create_run("graph")
    child = await service.create_run("child")
    for name in ("pick", "left"):
        step = await service.insert_step_state(run_id, name, "f")
        await service.set_step_running(step.step_id)
        if name == "pick":
            await service.set_branch_taken(step.step_id, "yes")
            await service.set_step_child_run_id(step.step_id, child)
        await service.set_step_result(step.step_id, [name])
    await service.update_run_state(run_id, "count", {"n": []})

    graph = await pikku.service.getCompletedGraphState(run_id)
    assert (sorted(graph["completedNodeIds"]), graph["branchKeys"]) == (
        ["left", "pick"],
        {"pick": "yes"},
    )
    assert await pikku.service.getNodeResults(run_id, ["left", "no"]) == {"left": ["left"]}
    assert await pikku.service.getRunState(run_id) == {"count": {"n": []}}
    assert len(await pikku.service.getStepInstances(run_id)) == 2


async def test_node_reads_a_stored_version(service, pikku):
    await service.upsert_workflow_version("shop", "g1", {"nodes": {"a": []}}, "dsl")

    assert await pikku.service.getWorkflowVersion("shop", "g1") == {
        "graph": {"nodes": {"a": []}},
        "source": "dsl",
    }


async def test_node_engine_executes_a_step(service, pikku):
    run_id = await service.create_run("shop", wire={"type": "unknown", "pikkuUserId": "u"})
    await service.insert_step_state(run_id, "x: y", "echo", {"n": 1}, {"retries": 2}, "before")

    await pikku.engine.executeWorkflowStep(run_id, "x: y", "echo", {"n": 1})

    step = await service.get_step_state(run_id, "x: y")
    assert (step.status, step.attempt_count) == ("succeeded", 1)
    assert step.result["data"] == {"n": 1}
    assert step.result["invocationId"] == idempotency_key(run_id, "x: y")
    assert step.result["fromInvocationId"] == idempotency_key(run_id, "before")
    (attempt,) = await service.get_run_history(run_id)
    assert (attempt.status, attempt.result) == ("succeeded", step.result)
    assert attempt.running_at is not None
    assert attempt.succeeded_at >= attempt.running_at
    assert (await pikku.engine.queued())[-1]["data"] == {"runId": run_id}


async def test_node_engine_tries_a_failed_step_again(service, pikku):
    run_id = await service.create_run("shop")
    step = await service.insert_step_state(run_id, "a", "refuse", None, {"retries": 1})
    await service.set_step_running(step.step_id)
    await service.set_step_error(step.step_id, ValueError("first"))

    with pytest.raises(NodeError, match="refused 7"):
        await pikku.engine.executeWorkflowStep(run_id, "a", "refuse", 7)
    with pytest.raises(NodeError, match="a"):  # dispatched for another function
        await pikku.engine.executeWorkflowStep(run_id, "a", "echo", 7)

    first, second = await service.get_run_history(run_id)
    assert (first.status, first.error.message, first.error.name) == (
        "failed",
        "first",
        "ValueError",
    )
    assert (second.status, second.attempt_count) == ("failed", 2)
    assert (second.error.message, second.error.code) == ("refused 7", "REFUSED")


async def test_node_reads_runs_of_daemons_and_of_inline_mode(service, pikku, deployment):
    async with deployment.worker(app, compat="pikku", queues=("", "warehouse")):
        await deployment.send("run.start", workflow="journey", run_id="j")
        await deployment.until("j", "completed")
        await deployment.quiet()
    inline = await app.start(service, "one_step", {"n": []})

    for run_id, workflow in (("j", "journey"), (inline, "one_step")):
        run = await pikku.service.getRun(run_id)
        ours = await service.get_run(run_id)
        assert (run["workflow"], run["status"], run["output"]) == (
            workflow,
            "completed",
            ours.output,
        )
        assert (run.get("input"), run.get("inline", False)) == (ours.input, ours.inline)
        report = await pikku.service.getRunStatus(run_id)
        said = await service.get_run_status(run_id)
        assert {s["name"]: (s["status"], s["attempts"]) for s in report["steps"]} == {
            step.name: (str(step.status), step.attempts) for step in said.steps
        }
    theirs = await pikku.service.getRunHistory("j")
    ours = await service.get_run_history("j")
    assert sorted((h["stepName"], h["attemptCount"], h["status"]) for h in theirs) == sorted(
        (a.step_name, a.attempt_count, str(a.status)) for a in ours
    )
