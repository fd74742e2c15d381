"""A worker with nothing to do is quiet: no timeout, no reconnect, no log line, nothing kept."""

import anyio
import pytest
from tests.apps.parts import app
from tests.helpers.history_checker import check_all
from tests.helpers.waiting import wait_until


async def connections(deployment, worker_names):
    """The ids of the connections that workers have open, by name."""
    return {
        (client["id"], client["name"])
        for client in await deployment.client.client_list()
        if client["name"] in worker_names
    }


@pytest.mark.slow
async def test_a_worker_idles_for_seven_seconds(deployment):
    """Longer than redis-py's own timeout, with the default block: CLIENT LIST does not change."""
    names = {"askel", "askel-read", "askel-nudge"}
    async with deployment.worker(
        app, lease_ms=10_000, claim_idle_ms=12_000, sweep_ms=1_000
    ) as worker:

        async def all_open():
            found = await connections(deployment, names)
            return found if len(found) == 3 else None

        before = await wait_until(all_open)
        ready = len(worker.logs)
        await anyio.sleep(7)  # the silence itself is what is tested
        assert await connections(deployment, names) == before
        assert worker.logs[ready:] == []
        assert not worker.ended.is_set()
        # And it has not fallen asleep.
        await deployment.send("run.start", workflow="one_step", run_id="r")
        await deployment.until("r", "completed")
        await deployment.quiet()


@pytest.mark.parametrize("linger_ms", [0, 10_000])
async def test_nothing_is_left_after_many_runs(deployment, linger_ms):
    """Streams, pending lists, timers, tokens, and every map of the workers: empty."""
    settings = {"queues": ("", "warehouse"), "linger_ms": linger_ms, "concurrency": 40}
    async with (
        deployment.worker(app, **settings) as one,
        deployment.worker(app, **settings) as two,
    ):
        names = [f"r{number}" for number in range(200)]
        for number, name in enumerate(names):
            workflow = ("one_step", "journey", "queued", "rests")[number % 4]
            given = "5ms" if workflow == "rests" else name
            await deployment.send("run.start", workflow=workflow, input=given, run_id=name)
        await deployment.until_completed(len(names), timeout=40)
        await deployment.quiet()
        for worker in (one, two):
            assert worker.reached["before_turn"] > 0
            await wait_until(lambda w=worker: len(w.worker._leases) == 0)
            assert len(worker.worker._actors) == 0
            assert worker.worker._work._idle == 0
            assert worker.worker._work.room == 40
        for worker in (one, two):
            key = f"{deployment.prefix}:nudge:{worker.name}"
            assert await deployment.client.pttl(key) != -1, "hints do not stay for ever"
    records = await check_all(deployment.client, deployment.prefix)
    assert len(records) == 200
    assert not [key async for key in deployment.client.scan_iter(f"{deployment.prefix}:nudge:*")]
    for queue in ("", "warehouse"):
        assert await deployment.client.xinfo_consumers(deployment.stream(queue), "askeld") == []


async def test_no_more_is_begun_than_the_worker_may(deployment, tmp_path):
    """What it may not begin stays on the stream, undelivered, for others."""
    gate = tmp_path / "gate"
    async with deployment.worker(app, concurrency=3) as worker:
        for number in range(10):
            await deployment.send(
                "run.start", workflow="waits", input=str(gate), run_id=f"r{number}"
            )
        await wait_until(lambda: worker.reached["before_handler"] == 3)
        (group,) = await deployment.client.xinfo_groups(deployment.stream())
        assert group["pending"] == 3
        gate.touch()
        await deployment.until_completed(10)
        await deployment.quiet()


async def test_runs_that_only_wait_do_not_keep_others_from_beginning(deployment):
    """They are in memory, but nothing of them is worked on."""
    async with deployment.worker(app, concurrency=3, linger_ms=60_000) as worker:
        for number in range(10):
            await deployment.send("run.start", workflow="foreign", run_id=f"w{number}")
            await deployment.until_step(f"w{number}", "pack", "scheduled")
        assert len(worker.worker._actors) == 10
        await deployment.send("run.start", workflow="one_step", run_id="r")
        await deployment.until("r", "completed")
        for number in range(10):
            await deployment.send("run.cancel", run_id=f"w{number}")
            await deployment.until(f"w{number}", "cancelled")
        await deployment.client.delete(deployment.stream("rust"))
        await deployment.quiet()
        assert len(worker.worker._actors) == 0


async def test_a_consumer_that_died_is_forgotten_in_the_end(deployment):
    """Names are never used again: a dead one's is removed once nothing is pending for it."""
    stream = deployment.stream()
    await deployment.client.xgroup_create(stream, "askeld", "0", mkstream=True)
    for name in ("dead-1", "dead-2"):
        await deployment.client.xgroup_createconsumer(stream, "askeld", name)
    await deployment.send("run.start", workflow="one_step", run_id="r")
    await deployment.client.xreadgroup("askeld", "dead-2", {stream: ">"})
    async with deployment.worker(app) as worker:
        await deployment.until("r", "completed")
        await deployment.quiet()
        await worker.worker._reclaim.forget(stream, "dead-1")
        await worker.worker._reclaim.forget(stream, "dead-2")
        left = await deployment.client.xinfo_consumers(stream, "askeld")
        assert [consumer["name"].decode() for consumer in left] == [worker.name]
