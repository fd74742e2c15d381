"""One run, two writers: locks, interleaved changes, deletion (contract C.5 c, d)."""

import re

import anyio
import pytest
from tests.helpers.pikku import NodeError

from askel import LockNotAcquiredError, RunNotFoundError

pytestmark = [
    pytest.mark.usefixtures("redis_server"),
    pytest.mark.allow_keys(r".*:step-history:.+"),
]


async def shared_run(service):
    run_id = await service.create_run("shop", 1)
    await service.insert_step_state(run_id, "a", "f", 1, {"retries": 3})
    return run_id


async def test_run_lock_of_node_keeps_python_out(service, pikku):
    run_id = await shared_run(service)
    await pikku.locks.run(run_id)

    with pytest.raises(LockNotAcquiredError):
        async with service.run_lock(run_id, wait=0):
            pytest.fail("two holders")

    await pikku.locks.release(run_id)
    async with service.run_lock(run_id, wait=0):
        pass


async def test_run_lock_of_python_keeps_node_out(service, pikku):
    run_id = await shared_run(service)
    async with service.run_lock(run_id) as lock:
        with pytest.raises(NodeError, match="Failed to acquire lock for run"):
            await pikku.locks.run(run_id)

    assert await pikku.locks.run(run_id)
    await pikku.locks.release(run_id)
    async with service.run_lock(run_id, wait=0) as later:
        assert later.fence > lock.fence


async def test_step_lock_excludes_both_ways(service, pikku):
    run_id = await shared_run(service)
    await pikku.locks.step(run_id, "a")
    with pytest.raises(LockNotAcquiredError):
        async with service.step_lock(run_id, "a", wait=0):
            pytest.fail("two holders")
    await pikku.locks.release(f"{run_id}:a")

    async with service.step_lock(run_id, "a"):
        with pytest.raises(NodeError, match="Failed to acquire step lock"):
            await pikku.locks.step(run_id, "a")
    assert await pikku.locks.step(run_id, "a")
    await pikku.locks.release(f"{run_id}:a")


async def test_waiting_holder_gets_the_lock_when_node_gives_it_back(service, pikku):
    run_id = await shared_run(service)
    await pikku.locks.run(run_id)
    got = anyio.Event()

    async def take():
        async with service.run_lock(run_id, wait="10s"):
            got.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        await pikku.locks.release(run_id)
        with anyio.fail_after(5):
            await got.wait()


async def test_both_change_one_step_in_turn(service, pikku):
    run_id = await shared_run(service)
    step_id = (await service.get_step_state(run_id, "a")).step_id
    await pikku.service.setStepScheduled(step_id)
    await service.set_step_running(step_id)
    await pikku.service.setStepError(step_id, {"message": "no", "code": "E"})
    await service.create_retry_attempt(step_id)
    await pikku.service.setStepRunning(step_id)
    await service.set_step_error(step_id, ValueError("again"))
    await pikku.service.createRetryAttempt(step_id, "pending")
    await service.set_step_running(step_id)
    await pikku.service.setStepResult(step_id, {"by": "node"})
    await service.update_run_status(run_id, "completed", "ok")

    theirs = await pikku.service.getRunHistory(run_id)
    ours = await service.get_run_history(run_id)
    assert [(one["attemptCount"], one["status"]) for one in theirs] == [
        (1, "failed"),
        (2, "failed"),
        (3, "succeeded"),
    ]
    assert [(one.attempt_count, str(one.status)) for one in ours] == [
        (one["attemptCount"], one["status"]) for one in theirs
    ]
    assert [one.error and one.error.message for one in ours] == ["no", "again", None]
    assert [one.get("error", {}).get("message") for one in theirs] == ["no", "again", None]
    assert (ours[0].scheduled_at, ours[0].running_at) != (None, None)
    assert ours[2].result == theirs[2]["result"] == {"by": "node"}
    (step,) = (await pikku.service.getRunStatus(run_id))["steps"]
    assert (step["status"], step["attempts"]) == ("succeeded", 3)


async def test_steps_of_both_stand_in_one_run(service, pikku):
    run_id = await shared_run(service)
    await pikku.service.insertStepState(run_id, "by node", "f", 1)
    await service.insert_step_state(run_id, "last", "f", 1)

    expected = ["a", "by node", "last"]
    assert sorted(s.step_name for s in await service.get_run_steps(run_id)) == expected
    assert sorted(a.step_name for a in await service.get_run_history(run_id)) == expected
    assert sorted(s["stepName"] for s in await pikku.runs.getRunSteps(run_id)) == expected


async def test_step_that_node_finished_is_refused_a_second_outcome(service, pikku):
    run_id = await shared_run(service)
    step_id = (await service.get_step_state(run_id, "a")).step_id
    await pikku.service.setStepResult(step_id, 1)

    await service.set_step_result(step_id, 1)
    with pytest.raises(Exception, match=re.escape("another result")):
        await service.set_step_result(step_id, 2)
    (attempt,) = await service.get_run_history(run_id)
    assert attempt.result == 1


async def keys_of(redis, run_id):
    return sorted([key.decode() async for key in redis.scan_iter(match=f"*{run_id}*")])


@pytest.mark.parametrize("maker", ["python", "node"])
async def test_python_deletes_every_key_of_a_run(service, pikku, redis, maker):
    if maker == "python":
        run_id = await shared_run(service)
    else:
        run_id = await pikku.service.createRun("shop", 1, False, "g", {"type": "unknown"})
    other = await pikku.service.insertStepState(run_id, "by node", "f", 1)
    await pikku.service.setStepResult(other["stepId"], 1)
    await pikku.service.updateRunState(run_id, "v", 1)
    await service.update_run_status(run_id, "completed")

    assert await service.delete_run(run_id)

    assert await keys_of(redis, run_id) == []
    assert not await service.delete_run(run_id)
    assert await pikku.runs.getRun(run_id) is None


async def test_run_of_very_many_steps_is_deleted_whole(service, redis, keys):
    run_id = await service.create_run("shop")
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(4_500):
            step_id = f"{run_id}:s{number}:1"
            pipe.hset(keys.step(run_id, f"s{number}"), "stepId", step_id)
            pipe.zadd(keys.step_history(step_id), {"{}": 1})
        await pipe.execute()
    await service.update_run_status(run_id, "completed")

    assert await service.delete_run(run_id)
    assert await keys_of(redis, run_id) == []


async def test_node_deletes_a_run_that_python_made(service, pikku, redis, keys):
    run_id = await shared_run(service)

    assert await pikku.runs.deleteRun(run_id)

    assert await service.get_run(run_id) is None
    assert (await service.list_runs()).runs == []
    with pytest.raises(RunNotFoundError):
        await service.update_run_status(run_id, "completed")
    # What Node does not know of is left, and is no run.
    left = await keys_of(redis, run_id)
    assert not [key for key in left if ":run:" in key or ":step:" in key or "step-history" in key]


async def test_reindex_lists_what_node_made_and_drops_what_it_deleted(service, pikku, redis, keys):
    deleted = await shared_run(service)
    await service.update_run_state(deleted, "v", 1)
    await pikku.runs.deleteRun(deleted)
    run_id = await pikku.service.createRun("mail", 1, False, "g", {"type": "unknown"})
    await pikku.service.insertStepState(run_id, "b", "f", 1)
    await pikku.service.updateRunStatus(run_id, "suspended")
    assert (await service.list_runs()).runs == []

    report = await service.reindex()

    assert (report.runs, report.indexed, report.steps) == (1, 1, 1)
    (run,) = (await service.list_runs(workflow_name="mail", status="suspended")).runs
    assert run.id == run_id
    assert await redis.lrange(keys.steps(run_id), 0, -1) == [b"b"]
    assert await keys_of(redis, deleted) == []


async def test_next_generation_leaves_node_the_history_of_the_one_before(service, pikku, keys):
    run_id = await service.create_run("shop", 1, run_id="order")
    step = await service.insert_step_state(run_id, "a: b", "f", 1)
    await service.set_step_result(step.step_id, 5)
    await service.update_run_status(run_id, "completed")
    assert await service.create_run("shop", 2, run_id="order", if_exists="after-terminal") == run_id

    (attempt,) = await pikku.service.getRunHistory("order.g1")
    assert (attempt["status"], attempt["result"]) == ("succeeded", 5)
    assert attempt["stepId"].startswith("order.g1:a: b:")
    assert await pikku.service.getRunHistory(run_id) == []
    assert [a.result for a in await service.get_run_history("order.g1")] == [5]
