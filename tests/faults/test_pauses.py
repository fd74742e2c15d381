"""Workers that stop for longer than their leases: frozen by the system, or blocked by a handler."""

import json

import pytest
from tests.apps.parts import app
from tests.helpers.forked import ForkedWorker
from tests.helpers.waiting import wait_until

SHORT = {"lease_ms": 150, "claim_idle_ms": 250, "sweep_ms": 20}


@pytest.fixture
def freezing(deployment, tmp_path):
    """A worker process with short leases, to be stopped by SIGSTOP."""
    return ForkedWorker(
        "tests.apps.parts:app",
        redis_url=deployment.url,
        prefix=deployment.prefix,
        directory=tmp_path,
        settings={**SHORT, "queues": ("", "warehouse")},
    )


@pytest.mark.parametrize("queue", ["", "warehouse"])
async def test_what_a_frozen_worker_sends_late_does_not_land(deployment, freezing, tmp_path, queue):
    """Another worker has finished meanwhile: not one entry, field or key changes."""
    gate = tmp_path / "gate"
    async with freezing as frozen:
        await frozen.wait_ready()
        await deployment.send(
            "run.start", workflow="waits_in", input=[queue, str(gate)], run_id="r"
        )
        await deployment.until_step("r", "gate", "running")
        frozen.pause()
        gate.touch()
        async with deployment.worker(app, **SHORT, queues=("", "warehouse")) as other:
            record = await deployment.until("r", "completed")
            await deployment.quiet()
            other.stop()
            await other.ended.wait()
        assert record.path("gate")[-4:] == ["running 1", "lost 1", "running 2", "succeeded 2"]
        frozen.resume()
        # It goes on where it was: its handler ends, and what it says of it is refused.
        await deployment.send("run.start", workflow="one_step", input=1, run_id="next")
        await deployment.until("next", "completed")
        frozen.terminate()
        assert await frozen.wait() == 0
    after = await deployment.record("r")
    assert after == record
    assert after.run["output"] == '"opened"'


async def test_a_frozen_worker_that_nobody_replaced_goes_on(deployment, freezing, tmp_path):
    """A pause alone costs nothing: what was pending for it still is."""
    gate = tmp_path / "gate"
    async with freezing as frozen:
        await frozen.wait_ready()
        await deployment.send("run.start", workflow="waits", input=str(gate), run_id="r")
        await deployment.until_step("r", "gate", "running")
        frozen.pause()
        stream = deployment.stream()

        async def beyond_its_lease():
            (entry,) = await deployment.client.xpending_range(stream, "askeld", "-", "+", 1)
            return entry["time_since_delivered"] > 3 * SHORT["lease_ms"]

        await wait_until(beyond_its_lease)
        frozen.resume()
        gate.touch()
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert record.path("gate") == ["running 1", "succeeded 1"]


@pytest.mark.parametrize("queue", ["", "warehouse"])
async def test_a_handler_that_blocks_the_loop_is_not_robbed(deployment, freezing, queue):
    """Its leases are kept by a thread; another worker that looks for dead ones finds nothing."""
    async with freezing as blocked:
        await blocked.wait_ready()
        await deployment.send("run.start", workflow="blocks_in", input=[queue, 1.2], run_id="r")
        await deployment.until_step("r", "it", "running")
        async with deployment.worker(app, **SHORT) as other:
            record = await deployment.until("r", "completed")
            await deployment.quiet()
            assert not other.logged("entry_reclaimed")
    assert record.path("it")[-2:] == ["running 1", "succeeded 1"]


async def test_a_worker_that_was_blocked_serves_on(deployment):
    """Blocked for longer than its leases it has lost nothing, and knows it."""
    async with deployment.worker(app, **SHORT) as worker:
        await deployment.send("run.start", workflow="blocks_in", input=["", 0.6], run_id="r")
        record = await deployment.until("r", "completed")
        await deployment.send("run.start", workflow="one_step", input=1, run_id="next")
        await deployment.until("next", "completed")
        await deployment.quiet()
        assert not worker.logged("entry_lost")
    assert json.loads(record.run["output"]) == "blocked"


async def test_a_foreign_lock_holder_is_waited_for(deployment):
    """Whoever holds the run lock is not written around; when it goes, the run goes on."""
    lock = f"{deployment.prefix}:lock:r"
    async with deployment.worker(app) as worker:
        await deployment.send("run.start", workflow="rests", input="50ms", run_id="r")
        await deployment.until_step("r", "rest", "scheduled")
        assert await deployment.client.set(lock, "somebody", nx=True, px=60_000)
        before = (await deployment.record("r")).entries
        await wait_until(lambda: worker.reached["after_record"] >= 3)
        assert (await deployment.record("r")).entries == before
        await deployment.client.delete(lock)
        await deployment.until("r", "completed")
        await deployment.quiet()
