"""`askel doctor` finds the queues that runs use, and says what it knows of them."""

import pytest

from askel.state import GROUP
from askeld.doctor import Level


@pytest.fixture
async def waiting(patient):
    """A healthy deployment, but for a step that waits on a queue nobody has ever read."""
    await patient.redis.rpush(patient.keys.steps("live"), "charge", "pack")
    step = {"status": "scheduled", "queue": "warehouse", "stepId": "1", "attemptCount": "1"}
    await patient.redis.hset(patient.keys.step("live", "pack"), mapping=step)
    await patient.redis.xadd(patient.keys.commands("warehouse"), {"type": "step.execute"})
    return patient


async def test_a_queue_without_a_worker_is_found_by_the_step_that_waits(waiting):
    found = (await waiting.examine())["workers"]

    assert found.level is Level.RED
    assert found.detail == "no worker has ever read queue 'warehouse'"
    assert found.fix == "start a worker: askel worker MODULE:APP --queue warehouse"


async def test_a_queue_is_found_by_the_run_that_was_started_there(patient):
    stream = patient.keys.commands("bulk")
    token = await patient.redis.xadd(stream, {"type": "run.start", "run_id": "live"})
    await patient.redis.hset(patient.keys.ctl("live"), mapping={"token": token, "queue": "bulk"})

    assert "queue 'bulk'" in (await patient.examine())["workers"].detail


async def test_a_step_that_has_ended_waits_for_no_queue(waiting):
    await waiting.redis.hset(waiting.keys.step("live", "pack"), "status", "succeeded")

    assert (await waiting.examine())["workers"].level is Level.GREEN


async def test_a_name_that_no_queue_can_have_is_not_asked_for(waiting):
    await waiting.redis.hset(waiting.keys.step("live", "pack"), "queue", "a b")

    assert (await waiting.examine())["workers"].level is Level.GREEN


async def test_a_worker_that_went_is_told_from_one_that_never_came(patient):
    stream = patient.keys.commands_default
    await patient.redis.xgroup_delconsumer(stream, GROUP, "worker")
    assert (await patient.examine())["workers"].detail.startswith("no worker has ever read")

    await patient.redis.hset(patient.keys.sweep(), "at", "1")
    found = (await patient.examine())["workers"]
    assert found.detail == "nobody has read the default stream for a minute"


async def test_of_a_queue_that_is_asked_for_it_says_whether_anything_is_known(patient):
    patient.options = {"queues": ["nosuch"]}
    found = (await patient.examine())["streams"]

    assert found.level is Level.YELLOW
    assert found.detail.startswith("nothing is known of queue 'nosuch'")
    assert found.fix.endswith("--queue nosuch")
