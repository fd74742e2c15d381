"""Runs that the npm package made, seen and changed by askel (contract C.5 b), damaged ones too."""

import json

import pytest
from tests.helpers.pikku import UNDEFINED, js_error

from askel import IllegalTransitionError, RunNotFoundError, StepNotFoundError

pytestmark = [
    pytest.mark.usefixtures("redis_server"),
    pytest.mark.allow_keys(r".*:(step-history|run|step):.+"),
]


async def node_run(pikku, **wire):
    return await pikku.service.createRun(
        "shop", {"n": 1}, False, "g1", {"type": "unknown", **wire}, {"plannedSteps": ["a"]}
    )


async def test_run_and_steps_are_read(service, pikku):
    run_id = await node_run(pikku, pikkuUserId="u")
    await pikku.service.insertStepState(
        run_id, "a: b", "charge", {"x": []}, {"retries": 2, "retryDelay": 500}, "before"
    )
    await pikku.service.insertStepState(run_id, "bare", None, UNDEFINED)

    run = await service.get_run(run_id)
    assert (run.workflow, run.status, run.input, run.graph_hash) == (
        "shop",
        "running",
        {"n": 1},
        "g1",
    )
    assert (run.wire["pikkuUserId"], run.planned_steps, run.inline) == ("u", ["a"], False)
    step = await service.get_step_state(run_id, "a: b")
    assert (step.status, step.rpc_name, step.data, step.retries, step.retry_delay) == (
        "pending",
        "charge",
        {"x": []},
        2,
        "500",
    )
    assert step.from_step_name == "before"
    steps = await service.get_run_steps(run_id)
    assert [(s.step_name, s.rpc_name, s.data) for s in steps] == [
        ("a: b", "charge", {"x": []}),
        ("bare", None, None),
    ]


async def test_each_attempt_is_told_once(service, pikku):
    run_id = await node_run(pikku)
    step = await pikku.service.insertStepState(run_id, "a", "f", 1, {"retries": 1})
    await pikku.service.setStepScheduled(step["stepId"])
    await pikku.service.setStepRunning(step["stepId"])
    await pikku.service.setStepError(step["stepId"], js_error("no", code="E1"))
    await pikku.service.createRetryAttempt(step["stepId"], "running")
    await pikku.service.setStepResult(step["stepId"], {"empty": []})
    await pikku.service.updateRunStatus(run_id, "completed", [1])

    first, second = await service.get_run_history(run_id)
    assert (first.attempt_count, first.status) == (1, "failed")
    assert (first.error.message, first.error.code, first.result) == ("no", "E1", None)
    assert first.created_at <= first.scheduled_at <= first.running_at <= first.failed_at
    assert (second.attempt_count, second.status, second.result) == (2, "succeeded", {"empty": []})
    assert (second.rpc_name, second.data, second.retries) == ("f", 1, 1)
    assert first.step_id == second.step_id == step["stepId"]
    report = await service.get_run_status(run_id)
    assert (report.status, report.output) == ("completed", [1])
    assert [(s.name, s.status, s.attempts) for s in report.steps] == [("a", "succeeded", 2)]
    events = (await service.get_run_timeline(run_id)).events
    assert [(e.kind, str(e.status), e.attempt) for e in events] == [
        ("run", "running", None),
        ("step", "pending", 1),
        ("step", "scheduled", 1),
        ("step", "running", 1),
        ("step", "failed", 1),
        ("step", "pending", 2),
        ("step", "succeeded", 2),
        ("run", "completed", None),
    ]


async def test_variables_branches_children_and_graph_state_are_read(service, pikku):
    run_id = await node_run(pikku)
    step = await pikku.service.insertStepState(run_id, "pick", "f", 1)
    await pikku.service.setBranchTaken(step["stepId"], "yes")
    await pikku.service.setStepChildRunId(step["stepId"], "child-1")
    await pikku.service.setStepResult(step["stepId"], None)
    await pikku.service.updateRunState(run_id, "count", {"n": []})
    await pikku.service.updateRunState(run_id, "gone", UNDEFINED)

    step = await service.get_step_state(run_id, "pick")
    assert (step.branch_taken, step.child_run_id) == ("yes", "child-1")
    graph = await service.get_completed_graph_state(run_id)
    assert (graph.completed_node_ids, graph.branch_keys) == (["pick"], {"pick": "yes"})
    assert await service.get_run_state(run_id) == {"count": {"n": []}, "gone": None}
    state = await service.reconstruct_run_state_at(run_id)
    assert state.variables == {"count": {"n": []}, "gone": None}


async def test_variables_of_the_old_layout_are_overlaid_by_those_of_the_new(
    service, pikku, redis, keys
):
    run_id = await node_run(pikku)
    await redis.hset(keys.run(run_id), "state", json.dumps({"a": 1, "b": {"c": []}}))
    await pikku.service.updateRunState(run_id, "a", 2)

    assert await service.get_run_state(run_id) == {"a": 2, "b": {"c": []}}
    assert await pikku.service.getRunState(run_id) == {"a": 2, "b": {"c": []}}


async def test_stored_version_is_read(service, pikku):
    await pikku.service.upsertWorkflowVersion("shop", "g1", {"nodes": []}, "graph", "draft")

    version = await service.get_workflow_version("shop", "g1")
    assert (version.graph, version.source, str(version.status)) == ({"nodes": []}, "graph", "draft")


async def test_run_goes_on_in_python(service, pikku):
    run_id = await node_run(pikku)
    step = await pikku.service.insertStepState(run_id, "a", "f", 1, {"retries": 1})
    await service.set_step_running(step["stepId"])
    await service.set_step_error(step["stepId"], ValueError("no"))
    again = await service.create_retry_attempt(step["stepId"])
    await service.set_step_result(again.step_id, 7)
    await service.update_run_status(run_id, "completed", "done")

    history = await pikku.service.getRunHistory(run_id)
    assert [(h["attemptCount"], h["status"]) for h in history] == [(1, "failed"), (2, "succeeded")]
    assert [(a.attempt_count, str(a.status)) for a in await service.get_run_history(run_id)] == [
        (1, "failed"),
        (2, "succeeded"),
    ]
    report = await pikku.service.getRunStatus(run_id)
    assert (report["status"], report["output"]) == ("completed", "done")
    with pytest.raises(IllegalTransitionError):
        await service.update_run_status(run_id, "failed")


async def test_run_without_an_input_is_read(service, pikku):
    run_id = await pikku.service.createRun("shop", UNDEFINED, False, UNDEFINED, UNDEFINED)

    run = await service.get_run(run_id)
    assert (run.input, run.wire, run.graph_hash) == (None, None, None)


async def test_result_that_is_undefined_is_none(service, pikku):
    run_id = await node_run(pikku)
    step = await pikku.service.insertStepState(run_id, "a", None, 1)
    await pikku.service.setStepResult(step["stepId"], UNDEFINED)

    (attempt,) = await service.get_run_history(run_id)
    assert (attempt.status, attempt.result) == ("succeeded", None)


@pytest.mark.parametrize(
    "error",
    ["plain text", {"message": "m", "expected": True, "payload": {}}, {"code": 7}, None, [1]],
    ids=repr,
)
async def test_error_of_any_shape_is_read(service, pikku, error):
    run_id = await node_run(pikku)
    await pikku.service.updateRunStatus(run_id, "failed", UNDEFINED, error)

    read = (await service.get_run(run_id)).error
    assert read is None if error is None else isinstance(read.message, str)


async def test_what_node_writes_to_a_missing_run_is_no_run(service, pikku):
    await pikku.service.updateRunStatus("ghost", "completed", 1)
    await pikku.service.setStepResult("ghost:a:1", 1)

    assert await service.get_run("ghost") is None
    assert await service.get_run_steps("ghost") == []
    assert (await service.get_completed_graph_state("ghost")).completed_node_ids == []
    assert await service.get_node_results("ghost", ["a"]) == {}
    assert await service.get_run_status("ghost") is None
    with pytest.raises(StepNotFoundError):
        await service.get_step_state("ghost", "a")
    with pytest.raises(StepNotFoundError):
        await service.set_step_running("ghost:a:1")


async def test_history_of_damaged_records_is_what_can_be_read(service, pikku, redis, keys):
    run_id = await node_run(pikku)
    step = await pikku.service.insertStepState(run_id, "a", "f", 1)
    history = keys.step_history(step["stepId"])
    iso = {
        "attemptCount": 1,
        "status": "succeeded",
        "createdAt": "2026-01-02T03:04:05.006Z",
        "succeededAt": "2026-01-02T03:04:05.007Z",
        "result": "[1]",
    }
    await redis.delete(history)
    await redis.zadd(history, {json.dumps(iso): 1, "{half": 2, "[]": 3})
    await redis.hset(keys.step(run_id, "a"), mapping={"status": "succeeded", "result": "[1]"})

    (attempt,) = await service.get_run_history(run_id)
    assert (attempt.status, attempt.result) == ("succeeded", [1])
    assert attempt.succeeded_at.isoformat() == "2026-01-02T03:04:05.007000+00:00"


async def test_writer_that_died_between_its_commands_left_a_step_that_is_read(
    service, pikku, redis, keys
):
    run_id = await node_run(pikku)
    step = await pikku.service.insertStepState(run_id, "a", "f", 1)
    await pikku.service.setStepRunning(step["stepId"])
    # Node's next commands would be HMSET, HDEL, ZRANGEBYSCORE, ZREMRANGEBYSCORE, ZADD.
    await redis.hset(keys.step(run_id, "a"), mapping={"status": "succeeded", "result": "5"})
    await redis.delete(keys.step_history(step["stepId"]))

    (attempt,) = await service.get_run_history(run_id)
    assert (attempt.status, attempt.result, attempt.attempt_count) == ("succeeded", 5, 1)


async def test_no_pattern_in_a_run_id_or_prefix_reaches_another_run(service, pikku, redis, keys):
    run_id = await node_run(pikku)
    await pikku.service.insertStepState(run_id, "a", "f", 1)
    await redis.hset(f"{keys.prefix}:step:{run_id}x:a", mapping={"stepId": f"{run_id}x:a:1"})

    assert [step.step_name for step in await service.get_run_steps(run_id)] == ["a"]
    assert await service.get_run_steps(run_id[:-1]) == []
    assert await service.get_run_history(run_id[:-1]) == []


async def test_an_unknown_run_is_not_found(service, pikku):
    run_id = await node_run(pikku)

    with pytest.raises(RunNotFoundError):
        await service.update_run_status(run_id[:-1] + "x", "completed")
