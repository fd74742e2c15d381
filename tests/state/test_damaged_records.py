"""A hash that another program damaged: what is wrong is said, no value of it is quoted."""

import pytest

from askel import DamagedRecordError

pytestmark = pytest.mark.usefixtures("server")

RUNS = {
    "no workflow": (("HDEL", "workflow"), "it has no field 'workflow'"),
    "an unknown status": (("HSET", "status", "s3cret"), r"no proper value \(ValueError\)"),
    "an input that is no JSON": (("HSET", "input", "{s3cret"), "not valid JSON"),
    "no number": (("HSET", "generation", "s3cret"), r"no proper value \(ValueError\)"),
}


@pytest.fixture
async def step_id(service):
    await service.create_run("w", run_id="r")
    return (await service.insert_step_state("r", "s", "f", 1)).step_id


@pytest.mark.parametrize("name", RUNS)
async def test_damaged_run_is_named(service, step_id, redis, keys, name):
    (word, *args), why = RUNS[name]
    await redis.execute_command(word, keys.run("r"), *args)
    with pytest.raises(DamagedRecordError, match=f"run 'r' cannot be read: .*{why}") as caught:
        await service.get_run("r")
    assert "s3cret" not in f"{caught.value}{caught.value.__cause__}{caught.value.__context__}"
    assert (await service.list_runs()).unreadable == ["r"]


async def test_damaged_step_is_named(service, step_id, redis, keys):
    await redis.hset(keys.step("r", "s"), "attemptCount", "many")
    for read in (service.get_step_state("r", "s"), service.get_run_steps("r")):
        with pytest.raises(DamagedRecordError, match="step 's' cannot be read"):
            await read


async def test_damaged_run_can_be_deleted(service, step_id, redis, keys):
    await redis.hdel(keys.run("r"), "status")
    assert await service.delete_run("r", force=True)
    assert await service.get_run("r") is None
