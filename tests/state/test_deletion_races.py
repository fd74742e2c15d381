"""Deletion beside writers of every kind: whoever comes first, nothing of the run is left."""

import random

import anyio
import pytest
from tests.apps.parts import app
from tests.helpers.daemon import deployment
from tests.helpers.state import keys_of_run
from tests.helpers.waiting import wait_until

from askel import App, AskelError, RedisWorkflowService, Run
from askel.state import RunStatus

__all__ = ["deployment"]

pytestmark = pytest.mark.usefixtures("redis_server")
_RUNS = 12

inline = App("inline")


@inline.step(retries=3, retry_delay="1ms")
async def flaky(data, ctx):
    """Fail in the first attempt."""
    if ctx.attempt == 1:
        raise ConnectionError
    return data


@inline.workflow
async def endless(run: Run, data: int) -> None:
    """Do steps, fan out and sleep for as long as it may."""
    for number in range(500):
        await run.gather(*(run.do(f"s{number}-{part}", flaky, data) for part in range(3)))
        await run.sleep(f"rest{number}", "2ms")


async def drive(service, run_id, chance):
    """Write to the run as a program does, until it is gone."""
    try:
        for number in range(1_000):
            step = await service.insert_step_state(
                run_id, f"s{number}", "f", number, {"retries": 5, "retry_delay": "1ms"}
            )
            await service.set_step_scheduled(step.step_id)
            await service.update_run_state(run_id, f"v{number % 3}", number)
            await service.set_step_running(step.step_id)
            if chance.random() < 0.5:
                await service.set_step_error(step.step_id, ValueError("no"))
                await service.create_retry_attempt(step.step_id, "running")
            await service.set_step_result(step.step_id, number)
            async with service.transaction(run_id) as writes:
                await writes.update_run_status("suspended")
                await writes.update_run_status("running")
    except AskelError:
        return


async def hold_lock(service, run_id):
    try:
        for _ in range(1_000):
            async with service.run_lock(run_id, wait="2s"):
                await service.update_run_state(run_id, "locked", 1)
    except AskelError:
        return


async def delete_soon(service, run_id, chance, longest_s):
    await anyio.sleep(chance.random() * longest_s)  # the moment is what is varied
    assert await service.delete_run(run_id, force=True)


@pytest.mark.parametrize("seed", range(3))
async def test_service_writes_race_with_the_deletion(redis, redis_url, prefix, seed):
    """D3, M2b: several programs, with and without the lock."""
    chance = random.Random(seed)
    run_ids = [f"r{number}" for number in range(_RUNS)]
    async with (
        RedisWorkflowService(redis_url, key_prefix=prefix) as one,
        RedisWorkflowService(redis_url, key_prefix=prefix) as two,
    ):
        for run_id in run_ids:
            await one.create_run("w", run_id=run_id)
        async with anyio.create_task_group() as tasks:
            for run_id in run_ids:
                for service in (one, two):
                    tasks.start_soon(drive, service, run_id, chance)
                tasks.start_soon(hold_lock, two, run_id)
                tasks.start_soon(delete_soon, one, run_id, chance, 0.15)

        for run_id in run_ids:
            assert await keys_of_run(redis, prefix, run_id) == []
        assert await one.get_distinct_workflow_names() == []
        assert (await one.reindex()).repairs == 0


@pytest.mark.parametrize("seed", range(3))
async def test_inline_workflows_race_with_the_deletion(redis, redis_url, prefix, seed):
    chance = random.Random(seed)
    run_ids = [f"r{number}" for number in range(_RUNS)]

    async def run(service, run_id):
        try:
            await inline.start(service, endless, 1, run_id=run_id)
        except AskelError:
            return

    async def delete(service, run_id):
        await wait_until(lambda: service.get_run(run_id))
        await delete_soon(service, run_id, chance, 0.1)

    async with RedisWorkflowService(redis_url, key_prefix=prefix) as service:
        async with anyio.create_task_group() as tasks:
            for run_id in run_ids:
                tasks.start_soon(run, service, run_id)
                tasks.start_soon(delete, service, run_id)

        for run_id in run_ids:
            assert await keys_of_run(redis, prefix, run_id) == []


@pytest.mark.parametrize("seed", range(3))
async def test_a_worker_races_with_the_deletion(deployment, redis, redis_url, prefix, seed):
    """Timers, retries, queued steps, tokens: none of what was under way makes a key again."""
    chance = random.Random(seed)
    run_ids = [f"r{number}" for number in range(_RUNS)]
    settings = {"queues": ("", "warehouse"), "linger_ms": chance.choice([0, 10_000])}
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as service:

        async def delete(run_id):
            await wait_until(lambda: service.get_run(run_id))
            await delete_soon(service, run_id, chance, 0.25)

        async with deployment.worker(app, **settings), deployment.worker(app, **settings):
            async with anyio.create_task_group() as tasks:
                for run_id in run_ids:
                    await deployment.send("run.start", workflow="journey", input=1, run_id=run_id)
                    await deployment.send("run.signal", run_id=run_id, name="s", data=1, at="5ms")
                    tasks.start_soon(delete, run_id)
            # What is left of them on the streams is settled; signals to nobody are dead letters.
            await wait_until(lambda: streams_are_empty(redis, prefix), 15)
            await deployment.send("run.start", workflow="one_step", input=1, run_id="after")
            await deployment.until("after", RunStatus.COMPLETED)

        for run_id in run_ids:
            assert await keys_of_run(redis, prefix, run_id) == []
        assert (await service.reindex()).repairs == 0


async def streams_are_empty(redis, prefix):
    lengths = [
        await redis.xlen(f"{prefix}:commands"),
        await redis.xlen(f"{prefix}:commands:warehouse"),
        await redis.zcard(f"{prefix}:timers"),
    ]
    return not any(lengths)
