"""A copy of a write that arrives late, after another program went on, changes nothing more."""

import pytest
from tests.helpers.state import recorded, snapshot

from askel import RedisWorkflowService, SerializedError, UnknownOutcomeError

pytestmark = [pytest.mark.usefixtures("redis_server"), pytest.mark.awaited_only]


class Recorder:
    """Remembers the last script call of a service, to make it again."""

    def __init__(self, service):
        self._run = service.scripts.run
        self.call = None
        service.scripts.run = self

    async def __call__(self, *call):
        self.call = call
        return await self._run(*call)

    async def again(self):
        """Make the call again, byte by byte."""
        return (await self._run(*self.call))[0]


@pytest.fixture
async def other(redis_url, prefix):
    made = RedisWorkflowService(redis_url, key_prefix=prefix)
    yield made
    await made.close()


@pytest.fixture
def late(service):
    return Recorder(service)


@pytest.fixture
async def step_id(other):
    await other.create_run("w", run_id="r")
    return (await other.insert_step_state("r", "s", "f", None, {"retries": 5})).step_id


async def retried(other, step_id):
    """End the attempt, if it is open, and begin the next one."""
    if (await other.get_step_state("r", "s")).status != "failed":
        await other.set_step_error(step_id, SerializedError("by another"))
    await other.create_retry_attempt(step_id)


async def resumed(other, step_id):
    await other.update_run_status("r", "running")


async def overwritten(other, step_id):
    await other.update_run_state("r", "v", "theirs")
    await other.set_branch_taken(step_id, "theirs")
    await other.set_step_child_run_id(step_id, "theirs")


async def transact(service, step_id):
    async with service.transaction("r") as tx:
        tx.update_run_state("v", "mine")
        tx.set_step_running(step_id)
        tx.set_step_error(step_id, SerializedError("mine"))


CASES = {
    "error": (lambda s, i: s.set_step_error(i, SerializedError("mine")), retried),
    "running": (lambda s, i: s.set_step_running(i), retried),
    "scheduled": (lambda s, i: s.set_step_scheduled(i), retried),
    "status": (lambda s, _: s.update_run_status("r", "suspended"), resumed),
    "variable": (lambda s, _: s.update_run_state("r", "v", "mine"), overwritten),
    "branch": (lambda s, i: s.set_branch_taken(i, "mine"), overwritten),
    "child": (lambda s, i: s.set_step_child_run_id(i, "mine"), overwritten),
    "transaction": (transact, retried),
}
each_write = pytest.mark.parametrize("name", CASES)


@each_write
async def test_late_copy_changes_nothing(service, other, late, step_id, redis, keys, name):  # noqa: PLR0917 - fixtures are parameters
    write, meanwhile = CASES[name]
    await write(service, step_id)
    await meanwhile(other, step_id)
    before = await snapshot(redis, keys.prefix)

    assert await late.again() == b"ALREADY"
    assert await snapshot(redis, keys.prefix) == before


@each_write
async def test_late_copy_to_a_former_generation_changes_nothing_of_the_next(  # noqa: PLR0917 - fixtures are parameters
    service, other, late, step_id, redis, keys, name
):
    await CASES[name][0](service, step_id)
    await other.create_run("w", run_id="r", if_exists="terminate-existing")
    before = await snapshot(redis, keys.prefix)

    assert await late.again() == b"ALREADY"
    assert await snapshot(redis, keys.prefix) == before


async def test_writes_of_others_do_not_push_a_write_out_of_memory(
    service, other, late, step_id, redis, keys
):
    await service.update_run_state("r", "v", "mine")
    for number in range(20):
        await other.update_run_state("r", "v", number)
    before = await recorded(redis, keys, "r")

    assert await late.again() == b"ALREADY"
    assert await recorded(redis, keys, "r") == before


async def test_write_that_was_resent_to_an_ended_run_has_an_unknown_outcome(
    service, other, step_id
):
    """An ended run does not remember its writes: what became of the first copy, nobody knows."""
    run = service.scripts.run

    async def lose_the_first(*call):
        service.scripts.run = run
        await run(*call)
        await other.set_step_result(step_id, 1)
        await other.update_run_status("r", "completed")
        raise UnknownOutcomeError("lost")

    service.scripts.run = lose_the_first
    with pytest.raises(UnknownOutcomeError, match="the reply was lost, and when asked again"):
        await service.set_step_running(step_id)


async def test_late_copy_of_a_deletion_leaves_the_run_that_was_made_anew(
    service, other, late, step_id
):
    assert await service.delete_run("r", force=True)
    await other.create_run("w", run_id="r")

    assert await late.again() == b"ALREADY"
    assert await other.get_run("r") is not None


async def test_ended_run_keeps_no_memory_of_its_writes(service, step_id, redis, keys):
    await service.set_step_result(step_id, 1)
    assert await redis.hexists(keys.run("r"), "changes")
    await service.update_run_status("r", "completed")
    assert not await redis.hexists(keys.run("r"), "changes")
    await service.update_run_status("r", "completed")


async def test_many_generations_and_ids_cost_a_bounded_memory(service, redis, keys):
    """Ten thousand commands with ids: the next generation remembers those of one."""
    await service.create_run("w", run_id="r")
    await redis.hset(keys.ctl("r"), mapping={f"id:{number}": "1" for number in range(10_000)})
    for number in range(150):
        await service.create_run("w", number, run_id="r", if_exists="terminate-existing")
    control = await redis.hgetall(keys.ctl("r"))
    assert control.keys() == {b"was"}
    assert len(control[b"was"]) <= 1024
    assert (await service.get_run("r")).generation == 151
