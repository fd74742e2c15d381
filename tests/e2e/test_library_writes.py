"""A program that embeds the library writes to a run that a worker drives."""

import json

import pytest
from tests.apps.parts import app
from tests.helpers.waiting import wait_until

from askel import RedisWorkflowService

#: Renewals come every 20 s: what is noticed sooner, a nudge has told.
SLOW = {"lease_ms": 60_000, "claim_idle_ms": 120_000, "linger_ms": 60_000}


@pytest.fixture
async def library(redis_url, prefix):
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as library:
        yield library


async def waiting_step(library, run_id):
    """Return the step of the run that nobody serves, once it is there."""

    async def found():
        steps = await library.get_run_steps(run_id)
        return [step for step in steps if step.status == "scheduled"] or [
            step for step in steps if step.status == "pending"
        ]

    return (await wait_until(found))[0]


async def test_an_owner_is_told_of_a_result_that_a_library_records(deployment, library):
    async with deployment.worker(app, **SLOW) as driver:
        await deployment.send("run.start", workflow="queued", input="hot", run_id="r")
        step = await waiting_step(library, "r")

        await library.set_step_result(step.step_id, "by hand")

        record = await deployment.until("r", "completed", timeout=5)
        assert json.loads(record.steps[step.step_name]["result"]) == "by hand"
        assert driver.reached["before_activate"] == 0


async def test_an_owner_is_told_of_an_end_that_a_library_records(deployment, library, redis, keys):
    async with deployment.worker(app, **SLOW):
        await deployment.send("run.start", workflow="queued", input="hot", run_id="r")
        await waiting_step(library, "r")

        await library.update_run_status("r", "cancelled")

        async def is_given_up():
            return not await redis.hexists(keys.ctl("r"), "owner")

        await wait_until(is_given_up, 5)
        assert await redis.hget(keys.run("r"), "status") == b"cancelled"


async def test_an_owner_is_told_of_a_deletion(deployment, library, redis, keys):
    async with deployment.worker(app, **SLOW) as driver:
        await deployment.send("run.start", workflow="queued", input="hot", run_id="r")
        await waiting_step(library, "r")

        assert await library.delete_run("r", force=True)

        await wait_until(lambda: not len(driver.worker._actors), 5)
        assert await redis.exists(keys.run("r"), keys.ctl("r"), keys.lock("r")) == 0
