"""The server's clock jumps under a working deployment: nothing is lost, stolen, early or stuck."""

import time

import anyio
import pytest
import redis.asyncio
from tests.apps.parts import app
from tests.helpers.daemon import Deployment
from tests.helpers.waiting import wait_until

from askel import LockLostError, RedisWorkflowService
from askel.state import GROUP

HOUR_S = 3_600
QUEUES = {"queues": ("", "warehouse")}
CLAIM_IDLE_S = 1.5
#: Two workers of whom none is ever taken for dead because the machine is busy.
STEADY = {**QUEUES, "lease_ms": 900, "claim_idle_ms": int(CLAIM_IDLE_S * 1_000)}


@pytest.fixture
async def deployment(torture_server):
    """A deployment on a server whose clock the test moves."""
    client = redis.asyncio.Redis.from_url(torture_server.url, protocol=2, socket_timeout=20)
    yield Deployment(client, torture_server.url, "clock")
    await client.aclose()


def jump(server, seconds):
    """Move the server's clock, and let it notice: it remembers the time while it is idle."""
    server.move_clock(seconds)
    assert abs(server.clock_drift() - seconds) < 60


async def swept(deployment, count=3):
    """Wait until workers have swept a few times more: they know the server's time by then."""
    seen = set()

    async def often():
        seen.add(await deployment.client.hget(f"{deployment.prefix}:sweep", "at"))
        return len(seen - {None}) > count

    await wait_until(often)


async def taken_by_the_dead(deployment, run_id):
    """Have a consumer that is no more read a command, before anybody else can."""
    async with deployment.client.pipeline(transaction=True) as pipe:
        fields = {"type": "run.start", "workflow": "one_step", "run_id": run_id, "input": "1"}
        pipe.xadd(deployment.stream(), fields)
        pipe.xreadgroup(GROUP, "dead", {deployment.stream(): ">"}, count=9)
        _, read = await pipe.execute()
    assert len(read) == 1


async def test_entries_of_the_dead_are_taken_over_although_the_clock_went_back(
    deployment, torture_server
):
    """Their idle time is 0 for two hours: by it alone nobody would ever claim them."""
    async with deployment.worker(app):
        await swept(deployment)
    await taken_by_the_dead(deployment, "r")
    jump(torture_server, -2 * HOUR_S)
    pending = await deployment.client.xpending_range(deployment.stream(), GROUP, "-", "+", 9)
    assert [(p["consumer"], p["time_since_delivered"]) for p in pending] == [(b"dead", 0)]

    async with deployment.worker(app):
        record = await deployment.until("r", "completed")
        await deployment.quiet()

    assert record.path("only") == ["running 1", "succeeded 1"]


async def test_entries_of_the_dead_are_taken_over_when_it_went_back_under_live_workers(
    deployment, torture_server
):
    async with deployment.worker(app) as worker:
        await swept(deployment)
        jump(torture_server, HOUR_S)
        await wait_until(lambda: worker.logged("server_clock_jumped"))
        await taken_by_the_dead(deployment, "r")
        jump(torture_server, -HOUR_S)
        await deployment.until("r", "completed")
        jumps = [record["by_ms"] for record in worker.logged("server_clock_jumped")]
    assert jumps[0] > 3_500_000
    assert min(jumps) < -7_000_000


@pytest.mark.parametrize("queue", ["", "warehouse"])
async def test_no_work_is_taken_from_the_living_when_the_clock_goes_forth(
    deployment, torture_server, tmp_path, queue
):
    """For a moment everything pending looks an hour old."""
    gate = tmp_path / "gate"
    async with deployment.worker(app, **STEADY) as one, deployment.worker(app, **STEADY) as two:
        await deployment.send(
            "run.start", workflow="waits_in", input=[queue, str(gate)], run_id="r"
        )
        await deployment.until_step("r", "gate", "running")
        await swept(deployment)
        for seconds in (HOUR_S, 0, HOUR_S):
            jump(torture_server, seconds)
            await swept(deployment, 20)
        gate.touch()
        record = await deployment.until("r", "completed")
        await deployment.quiet()
        assert one.logged("server_clock_jumped")
        assert two.logged("server_clock_jumped")
    assert [entry for entry in record.path("gate") if entry.startswith("lost")] == []
    assert record.path("gate")[-1] == "succeeded 1"


async def test_no_work_is_taken_from_the_living_after_an_outage(
    deployment, torture_server, tmp_path
):
    """While the server was away nobody could renew anything."""
    gate = tmp_path / "gate"
    async with deployment.worker(app, **STEADY), deployment.worker(app, **STEADY):
        await deployment.send("run.start", workflow="waits", input=str(gate), run_id="r")
        await deployment.until_step("r", "gate", "running")
        await swept(deployment)
        torture_server.kill()
        await anyio.sleep(1.2 * CLAIM_IDLE_S)  # it is away for longer than entries may be idle
        await anyio.to_thread.run_sync(torture_server.start)
        await swept(deployment, 20)
        gate.touch()
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert record.path("gate") == ["running 1", "succeeded 1"]


async def test_a_lock_that_lasts_for_hours_is_not_believed(deployment, torture_server):
    """Its holder is dead; the clock went back: commands wait for one lease, not for two hours."""
    lock = f"{deployment.prefix}:lock:r"
    async with RedisWorkflowService(deployment.url, key_prefix=deployment.prefix) as service:
        await service.create_run("program", run_id="r")
        async with service.run_lock("r"):
            value = await deployment.client.get(lock)
    await deployment.client.set(lock, value + b"-dead", px=30_000)
    jump(torture_server, -2 * HOUR_S)
    assert await deployment.client.pttl(lock) > 7_200_000

    async with deployment.worker(app) as worker:
        await deployment.send("run.cancel", run_id="r")
        # Whoever meets it shortens it to the longest lease there is.
        await wait_until(lambda: _lasts_at_most(deployment, lock, 60_000))
        jump(torture_server, -2 * HOUR_S + 61)
        record = await deployment.until("r", "cancelled")
        assert not worker.logged("command_dead_lettered")
    assert record.status == "cancelled"


async def _lasts_at_most(deployment, lock, longest_ms):
    return 0 < await deployment.client.pttl(lock) <= longest_ms


async def test_a_lock_that_lasts_for_hours_can_be_taken(deployment, torture_server):
    lock = f"{deployment.prefix}:lock:r"
    async with RedisWorkflowService(deployment.url, key_prefix=deployment.prefix) as service:
        await service.create_run("program", run_id="r")
        await deployment.client.set(lock, "the dead", px=30_000)
        jump(torture_server, -2 * HOUR_S)
        assert await deployment.client.pttl(lock) > 7_200_000
        async with service.run_lock("r") as held:
            assert held.fence == 1


async def test_a_live_holder_keeps_its_lock_when_the_clock_goes_back(deployment, torture_server):
    """It renews it; what is shortened is shortened to a lease."""
    async with RedisWorkflowService(deployment.url, key_prefix=deployment.prefix) as service:
        await service.create_run("program", run_id="r")
        async with service.run_lock("r", ttl="3s"):
            jump(torture_server, -2 * HOUR_S)
            async with deployment.worker(app):
                await deployment.send("run.cancel", run_id="r")
                lock = f"{deployment.prefix}:lock:r"
                await wait_until(lambda: _lasts_at_most(deployment, lock, 3_000))  # renewed
                await service.update_run_status("r", "suspended")
        assert await deployment.status("r") == "suspended"


async def test_a_lock_that_ran_out_by_a_jump_is_lost_to_its_holder(deployment, torture_server):
    async with RedisWorkflowService(deployment.url, key_prefix=deployment.prefix) as service:
        await service.create_run("program", run_id="r")
        with pytest.raises(LockLostError):  # noqa: PT012 - by the write, or at the end of the body
            async with service.run_lock("r", ttl="30s"):
                jump(torture_server, HOUR_S)
                await service.update_run_status("r", "completed")
        assert await deployment.status("r") == "running"


async def test_a_command_for_later_is_not_early_where_ids_are_ahead(deployment, torture_server):
    """Ids never go back: after such a jump an entry's own time is an hour from now."""
    jump(torture_server, HOUR_S)
    async with deployment.worker(app):
        await deployment.send("run.start", workflow="one_step", run_id="before")
        await deployment.until("before", "completed")
        jump(torture_server, 0)
        seconds, microseconds = await deployment.client.time()
        at = seconds * 1_000 + microseconds // 1_000 + 300
        entry = await deployment.send("run.start", workflow="one_step", run_id="r", at=at)
        assert int(entry.split("-")[0]) > at
        record = await deployment.until("r", "completed")
    assert record.entries[0]["at"] >= at


async def test_runs_go_on_through_jumps_in_both_directions(deployment, torture_server):
    async with deployment.worker(app, **QUEUES):
        for number, seconds in enumerate((HOUR_S, 0, -HOUR_S, 0)):
            began = time.monotonic()
            for run in range(5):
                await deployment.send(
                    "run.start", workflow="journey", run_id=f"r{number}-{run}", input=1
                )
            jump(torture_server, seconds)
            if seconds <= 0:
                # What sleeps until an hour from now wakes when the clock is there again.
                jump(torture_server, HOUR_S)
            for run in range(5):
                record = await deployment.until(f"r{number}-{run}", "completed")
                assert record.run["output"] == '[1,"ok","a","ok","c","ok",1]'
            assert time.monotonic() - began < 30
        await deployment.quiet()
