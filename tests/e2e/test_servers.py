"""The same on every server that is supported: what differs between them is used here."""

import json

import pytest
from redis import ResponseError
from tests.apps.parts import JOURNEY, app
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.usefixtures("redis_server")

WAREHOUSE = {"queues": ("", "warehouse")}


@pytest.mark.parametrize("linger_ms", [0, 10_000])
async def test_a_journey(deployment, linger_ms):
    """Every script, timers, blocking reads on two streams, a drain."""
    async with deployment.worker(app, **WAREHOUSE, linger_ms=linger_ms) as worker:
        for number in range(10):
            await deployment.send(
                "run.start", workflow="journey", input=number, run_id=f"r{number}"
            )
        for number in range(10):
            record = await deployment.until(f"r{number}", "completed")
            assert json.loads(record.run["output"]) == [*JOURNEY, number]
        await deployment.quiet()
        await worker.stopped()


async def test_the_work_of_a_dead_worker_is_taken_over(deployment):
    """Also an entry that somebody has deleted meanwhile, which servers show differently."""
    stream = deployment.stream()
    await deployment.client.xgroup_create(stream, "askeld", "0", mkstream=True)
    for number in range(5):
        await deployment.send("run.start", workflow="one_step", input=number, run_id=f"r{number}")
    deleted = await deployment.send("run.start", workflow="one_step", run_id="deleted")
    assert await deployment.client.xreadgroup("askeld", "a-dead-one", {stream: ">"})
    await deployment.client.xdel(stream, deleted)
    async with deployment.worker(app, lease_ms=50, claim_idle_ms=100) as worker:
        for number in range(5):
            await deployment.until(f"r{number}", "completed")
        assert len(worker.logged("entry_reclaimed", deliveries=2)) >= 5

        async def nothing_pending():
            return (await deployment.client.xpending(stream, "askeld"))["pending"] == 0

        await wait_until(nothing_pending)
    assert await deployment.status("deleted") is None


async def test_a_lost_reply_and_a_forgotten_script(deployment, proxy):
    """The connection breaks and the scripts are gone, in the middle of things."""
    settings = {**WAREHOUSE, "url": proxy.url, "linger_ms": 0}
    async with deployment.worker(app, **settings):
        for number in range(10):
            await deployment.send(
                "run.start", workflow="journey", input=number, run_id=f"r{number}"
            )
        await deployment.until_completed(1)
        proxy.lose_next_reply(b"EVALSHA", times=3)
        await deployment.client.script_flush()
        await deployment.until_completed(10)
        await deployment.quiet()
    for number in range(10):
        await deployment.until(f"r{number}", "completed")


async def test_a_destroyed_group(deployment):
    """Each server says it in other words."""
    async with deployment.worker(app, **WAREHOUSE) as worker:
        await deployment.send("run.start", workflow="journey", input=1, run_id="before")
        await deployment.until("before", "completed")
        await deployment.client.xgroup_destroy(deployment.stream(), "askeld")
        await wait_until(lambda: has_group(deployment, ""))
        assert worker.logged("group_missing")
        await deployment.client.delete(deployment.stream("warehouse"))
        await wait_until(lambda: has_group(deployment, "warehouse"))
        await deployment.send("run.start", workflow="journey", input=2, run_id="after")
        await deployment.until("after", "completed")
        await deployment.quiet()


async def has_group(deployment, queue):
    try:
        return await deployment.client.xinfo_groups(deployment.stream(queue))
    except ResponseError:  # the stream itself is gone
        return False
