"""What becomes of a run that exists when it is to be created: one policy each."""

import asyncio
from contextlib import suppress

import pytest
from tests.helpers.state import recorded

from askel import (
    IfExists,
    IllegalTransitionError,
    InvalidNameError,
    InvalidOptionError,
    LockLostError,
    LockNotAcquiredError,
    RedisWorkflowService,
    RunExistsError,
    StepNotFoundError,
)

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
async def another(redis_url, prefix):
    """Another program on the same prefix."""
    made = RedisWorkflowService(redis_url, key_prefix=prefix)
    yield made
    await made.close()


@pytest.fixture
async def ended(service):
    """Run r, which has ended: a step that was tried twice, a variable."""
    await service.create_run("w", 1, run_id="r")
    step = await service.insert_step_state("r", "a:b", "f", 1, {"retries": 1})
    await service.set_step_error(step.step_id, ValueError("no"))
    await service.create_retry_attempt(step.step_id)
    await service.set_step_result(step.step_id, 2)
    await service.update_run_state("r", "v", [1])
    await service.update_run_status("r", "completed", 3)
    return step.step_id


async def test_after_terminal_begins_the_next_generation_and_keeps_the_former(service, ended):
    before = await service.get_run_history("r")
    again = await service.create_run("w", 9, run_id="r", if_exists=IfExists.AFTER_TERMINAL)

    assert again == "r"
    run, former = await service.get_run("r"), await service.get_run("r.g1")
    assert (run.status, run.input, run.generation, run.previous_run_id) == (
        "running",
        9,
        2,
        "r.g1",
    )
    assert (former.id, former.status, former.output, former.generation) == (
        "r.g1",
        "completed",
        3,
        1,
    )
    assert await service.get_run_steps("r") == []
    assert await service.get_run_state("r") == {}
    assert await service.get_run_state("r.g1") == {"v": [1]}
    (step,) = await service.get_run_steps("r.g1")
    assert step.step_id == ended.replace("r:", "r.g1:", 1)
    after = await service.get_run_history("r.g1")
    assert [(a.status, a.result) for a in after] == [(a.status, a.result) for a in before]
    assert (await service.get_step_state("r.g1", "a:b")).result == 2


async def test_first_entry_of_a_generation_names_the_one_before(service, ended, redis, keys):
    await service.create_run("w", run_id="r", if_exists="after-terminal")
    await service.update_run_status("r", "failed")
    await service.create_run("w", run_id="r", if_exists="after-terminal")

    (entry,) = await recorded(redis, keys, "r")
    assert (entry["generation"], entry["previous"]) == (3, "r.g2")
    (first, *_) = await recorded(redis, keys, "r.g2")
    assert (first["generation"], first["previous"]) == (2, "r.g1")


async def test_every_index_has_each_generation_where_it_belongs(service, ended):
    await service.create_run("w", run_id="r", if_exists="after-terminal")

    for filters in ({}, {"workflow_name": "w"}):
        page = await service.list_runs(**filters)
        assert {run.id for run in page.runs} == {"r", "r.g1"}
        assert not page.unreadable
    for status, run_id in (("running", "r"), ("completed", "r.g1")):
        for filters in ({}, {"workflow_name": "w"}):
            page = await service.list_runs(status=status, **filters)
            assert [run.id for run in page.runs] == [run_id]
    assert (await service.reindex()).repairs == 0


async def test_terminate_existing_cancels_a_live_run_first(service, redis, keys):
    await service.create_run("w", run_id="r")
    step = await service.insert_step_state("r", "s", "f")
    await service.set_step_running(step.step_id)

    await service.create_run("x", 2, run_id="r", if_exists="terminate-existing")

    assert (await service.get_run("r.g1")).status == "cancelled"
    assert [e["status"] for e in await recorded(redis, keys, "r.g1")][-1] == "cancelled"
    assert (await service.get_run("r")).workflow == "x"
    with pytest.raises(StepNotFoundError):
        await service.set_step_result(step.step_id, "late")
    with pytest.raises(IllegalTransitionError):
        await service.set_step_result(step.step_id.replace("r:", "r.g1:", 1), "late")


async def test_after_terminal_refuses_while_the_run_lives(service):
    await service.create_run("w", 1, run_id="r")
    with pytest.raises(RunExistsError):
        await service.create_run("w", 1, run_id="r", if_exists="after-terminal")
    assert await service.get_run("r.g1") is None


async def test_policies_create_where_there_is_no_run(service):
    for policy in IfExists:
        assert await service.create_run("w", run_id=policy.value, if_exists=policy) == policy
        assert (await service.get_run(policy.value)).generation == 1


async def test_run_whose_lock_is_held_is_not_terminated(service, another):
    await service.create_run("w", run_id="r")
    async with another.run_lock("r"):
        with pytest.raises(LockNotAcquiredError):
            await service.create_run("w", run_id="r", if_exists="terminate-existing")
    assert (await service.get_run("r")).generation == 1


async def test_fences_go_on_from_one_generation_to_the_next(service):
    await service.create_run("w", run_id="r")
    async with service.run_lock("r") as lock:
        first = lock.fence
    await service.create_run("w", run_id="r", if_exists="terminate-existing")
    async with service.run_lock("r") as lock:
        assert lock.fence > first


async def test_of_many_at_once_one_begins_each_generation(service, another, ended):
    async def create(number):
        made = service if number % 2 else another
        try:
            await made.create_run("w", number, run_id="r", if_exists="after-terminal")
        except RunExistsError:
            return False
        return True

    assert sum(await asyncio.gather(*(create(number) for number in range(20)))) == 1
    assert (await service.get_run("r")).generation == 2


async def test_id_of_a_former_generation_that_is_taken_is_passed_over(service, ended):
    await service.create_run("w", run_id="r.g1")
    await service.create_run("w", run_id="r", if_exists="after-terminal")
    run = await service.get_run("r")
    assert (run.generation, run.previous_run_id) == (3, "r.g2")


async def test_id_without_room_for_generations_is_refused(service, redis, prefix):
    with pytest.raises(InvalidNameError):
        await service.create_run("w", run_id="r" * 128, if_exists="after-terminal")
    assert [key async for key in redis.scan_iter(match=f"{prefix}:*")] == []


async def test_idempotency_key_makes_one_run(service, another):
    made = await asyncio.gather(
        *(s.create_run("w", {"n": 1}, idempotency_key="order 42") for s in [service, another] * 5)
    )
    assert len(set(made)) == 1
    assert len((await service.list_runs()).runs) == 1


@pytest.mark.parametrize(("workflow", "value"), [("w", {"n": 2}), ("x", {"n": 1})])
async def test_same_key_with_other_content_is_a_conflict(service, workflow, value):
    await service.create_run("w", {"n": 1}, idempotency_key="order 42")
    with pytest.raises(RunExistsError):
        await service.create_run(workflow, value, idempotency_key="order 42")


async def test_key_may_begin_another_generation(service):
    run_id = await service.create_run("w", 1, idempotency_key="k")
    await service.update_run_status(run_id, "completed")
    assert run_id == await service.create_run(
        "w", 2, idempotency_key="k", if_exists="after-terminal"
    )
    assert (await service.get_run(run_id)).generation == 2


async def test_run_id_and_key_together_are_refused(service):
    with pytest.raises(InvalidOptionError, match="not both"):
        await service.create_run("w", run_id="r", idempotency_key="k")


async def test_same_input_in_another_order_is_the_same_run(service):
    run_id = await service.create_run("w", {"a": 1, "b": [2]}, idempotency_key="k")
    assert run_id == await service.create_run("w", {"b": [2], "a": 1}, idempotency_key="k")
    assert run_id == await service.create_run("w", {"b": {2}, "a": 1}, idempotency_key="k")
    for other in ({"a": 1, "b": [2.0]}, {"a": True, "b": [2]}):
        with pytest.raises(RunExistsError):
            await service.create_run("w", other, idempotency_key="k")


async def test_generation_can_be_begun_under_ones_own_lock(service, another):
    await service.create_run("w", run_id="r")
    async with service.run_lock("r") as lock:
        await service.create_run("w", run_id="r", if_exists="terminate-existing")
        await service.update_run_state("r", "v", 1)
        assert not lock.lost
        with pytest.raises(LockNotAcquiredError):
            await another.create_run("w", run_id="r", if_exists="terminate-existing")
    assert (await service.get_run("r")).generation == 2


async def test_run_that_another_program_left_half_deleted_does_not_come_back(
    service, ended, redis, keys
):
    """Its hash and steps are gone; history, variables and step names are not."""
    await redis.delete(keys.run("r"))
    await service.create_run("w", run_id="r")
    assert [e.workflow for e in await service.get_history_entries("r")] == ["w"]
    assert await service.get_run_state("r") == {}
    assert await service.get_run_steps("r") == []
    assert (await service.insert_step_state("r", "a:b", "f")).status == "pending"


async def test_step_lock_of_a_former_generation_does_not_keep_out_the_next(service, another):
    for policy in ("reject", "terminate-existing"):
        await service.create_run("w", run_id="r", if_exists=policy)
        await service.insert_step_state("r", "s", "f")
        if policy == "reject":
            block = another.step_lock("r", "s")
            await block.__aenter__()
    async with service.step_lock("r", "s", wait=0) as lock:
        assert not lock.lost
    with suppress(LockLostError):
        await block.__aexit__(None, None, None)
