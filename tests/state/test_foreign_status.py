"""Another program changes a run's hash and tells the history nothing, as the Node service does."""

import time

import pytest

from askel import IllegalTransitionError, RedisWorkflowService

pytestmark = pytest.mark.usefixtures("redis_server")


async def changed_by_node(redis, keys, status):
    now = int(time.time() * 1_000) + 1
    await redis.hset(keys.run("r"), mapping={"status": status, "updatedAt": now})
    return now


@pytest.fixture
async def step(service):
    await service.create_run("w", {"n": 1}, run_id="r")
    return await service.insert_step_state("r", "s", "f")


@pytest.mark.awaited_only
async def test_status_without_an_entry_is_obeyed(service, step, redis, keys):
    """The hash says that the run has ended: no further write is taken."""
    await changed_by_node(redis, keys, "failed")
    before = await redis.lrange(keys.history("r"), 0, -1)

    for call in (
        lambda: service.set_step_running(step.step_id),
        lambda: service.set_step_result(step.step_id, 1),
        lambda: service.insert_step_state("r", "new", "f"),
        lambda: service.update_run_state("r", "v", 1),
        lambda: service.update_run_status("r", "running"),
    ):
        with pytest.raises(IllegalTransitionError):
            await call()
    assert await redis.lrange(keys.history("r"), 0, -1) == before


@pytest.mark.awaited_only
async def test_status_without_an_entry_is_told(service, step, redis, keys):
    at = await changed_by_node(redis, keys, "failed")

    report = await service.get_run_status("r")
    assert report.status == (await service.get_run("r")).status == "failed"
    assert report.completed_at.timestamp() == pytest.approx(at / 1_000)
    assert [attempt.status for attempt in await service.get_run_history("r")] == ["pending"]


@pytest.mark.awaited_only
async def test_status_without_an_entry_is_in_the_timeline_where_node_shares(
    redis_url, step, redis, keys
):
    await changed_by_node(redis, keys, "suspended")
    async with RedisWorkflowService(redis_url, key_prefix=keys.prefix, compat="pikku") as sharing:
        events = (await sharing.get_run_timeline("r")).events
        assert (events[-1].kind, events[-1].status) == ("run", "suspended")
        assert (await sharing.reconstruct_run_state_at("r")).status == "suspended"


@pytest.mark.awaited_only
async def test_run_goes_on_from_a_status_without_an_entry(service, step, redis, keys):
    """Its history then says nothing of the suspension; indexes are right after a reindex."""
    await changed_by_node(redis, keys, "suspended")
    await service.reindex()
    assert [run.id for run in (await service.list_runs(status="suspended")).runs] == ["r"]

    await service.update_run_status("r", "running")

    assert [run.id for run in (await service.list_runs(status="running")).runs] == ["r"]
    assert (await service.list_runs(status="suspended")).runs == []
