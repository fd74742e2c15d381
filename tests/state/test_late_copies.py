"""The bytes of an old call arrive once more, when the run has long gone on: nothing changes."""

import pytest
from tests.helpers.state import snapshot

pytestmark = pytest.mark.usefixtures("redis_server")


@pytest.fixture
def sent(service):
    """The script calls that the service sends, in order."""
    commands = []
    send = service.connection.send

    def keep(*command):
        if command[0] == "EVALSHA":
            commands.append(command)
        return send(*command)

    service.connection.send = keep
    return commands


async def again(service, command):
    await service.connection.send(*command)


@pytest.mark.awaited_only
@pytest.mark.parametrize("later", [1, 2, 4])
async def test_late_copy_of_a_retry_begins_no_attempt(service, sent, redis, prefix, later):
    """Neither for the attempt that it began, nor for one that has failed since."""
    await service.create_run("w", run_id="r")
    step = await service.insert_step_state("r", "s", "f")
    await service.set_step_error(step.step_id, ValueError("no"))
    sent.clear()
    await service.create_retry_attempt(step.step_id)
    copy = sent[-1]  # before it, perhaps, one to a server that did not know the script
    for _ in range(later - 1):
        await service.set_step_error(step.step_id, ValueError("no"))
        await service.create_retry_attempt(step.step_id, "running")
    await service.set_step_error(step.step_id, ValueError("no"))
    before = await snapshot(redis, prefix)

    await again(service, copy)

    assert await snapshot(redis, prefix) == before
    assert (await service.get_step_state("r", "s")).attempt_count == later + 1


@pytest.mark.awaited_only
async def test_late_copy_of_a_retry_is_known_to_its_step(service, sent, redis, prefix):
    """When the run has forgotten it: many other writes came after it."""
    await service.create_run("w", run_id="r")
    step = await service.insert_step_state("r", "s", "f")
    await service.set_step_error(step.step_id, ValueError("no"))
    await service.create_retry_attempt(step.step_id)
    copy = sent[-1]
    for number in range(30):
        await service.update_run_state("r", "v", number)
    await service.set_step_error(step.step_id, ValueError("no"))
    before = await snapshot(redis, prefix)

    await again(service, copy)

    assert await snapshot(redis, prefix) == before


@pytest.mark.awaited_only
@pytest.mark.parametrize("policy", ["after-terminal", "terminate-existing"])
async def test_late_copy_of_a_creation_begins_no_generation(service, sent, redis, prefix, policy):
    sent.clear()
    await service.create_run("w", 1, run_id="r", if_exists=policy)
    copy = sent[-1]  # before it, perhaps, one to a server that did not know the script
    for number in range(3):
        await service.update_run_status("r", "completed", output=number)
        await service.create_run("w", 1, run_id="r", if_exists=policy)
    await service.update_run_status("r", "completed", output=3)
    before = await snapshot(redis, prefix)

    await again(service, copy)

    assert await snapshot(redis, prefix) == before


@pytest.mark.awaited_only
async def test_former_generation_has_no_error_of_a_status_it_left(service):
    """M5: it was suspended with an error, and is cancelled without one."""
    await service.create_run("w", run_id="r")
    await service.update_run_status("r", "suspended", error=ValueError("waits"))
    await service.create_run("w", run_id="r", if_exists="terminate-existing")

    assert (await service.get_run("r.g1")).error is None


@pytest.mark.awaited_only
async def test_run_that_goes_to_and_fro_in_one_transaction_is_what_its_history_says(
    service, redis, keys
):
    await service.create_run("w", run_id="r")
    await service.update_run_status("r", "suspended", error=ValueError("first"))
    events = await redis.xlen(keys.events)
    async with service.transaction("r") as tx:
        tx.update_run_status("running")
        tx.update_run_status("suspended", error=ValueError("second"))

    assert (await service.get_run("r")).error.message == "second"
    assert await redis.xlen(keys.events) == events + 1
    async with service.transaction("r") as tx:
        tx.update_run_status("running")
        tx.update_run_status("suspended")
    assert (await service.get_run("r")).error is None
