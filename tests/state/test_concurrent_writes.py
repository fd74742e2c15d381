"""Writers at once: nothing is lost, and what is left is what one order of them would leave."""

import asyncio

import pytest
from tests.helpers.state import recorded

from askel import IllegalTransitionError, RedisWorkflowService

pytestmark = pytest.mark.usefixtures("redis_server")
_TRIALS = 20


@pytest.fixture
async def another(redis_url, prefix):
    """A second service of the same prefix, with a connection of its own."""
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as another:
        yield another


async def test_moves_at_once_leave_one_legal_path(service, another, redis, keys):
    """C2: the history has each move once, in a legal order, and ends with the step's status."""
    for trial in range(_TRIALS):
        run_id = await service.create_run("w", run_id=f"r{trial}")
        step = await service.insert_step_state(run_id, "s", "f")
        moves = [service.set_step_running(step.step_id), another.set_step_scheduled(step.step_id)]
        if trial % 2:
            moves.reverse()
        outcomes = await asyncio.gather(*moves, return_exceptions=True)

        assert all(o is None or isinstance(o, IllegalTransitionError) for o in outcomes)
        path = [e["status"] for e in await recorded(redis, keys, run_id) if e["t"] == "step"]
        assert path in (["pending", "running"], ["pending", "scheduled", "running"])
        assert (await service.get_step_state(run_id, "s")).status == path[-1] == "running"
        assert len(await service.get_run_history(run_id)) == 1


async def test_writers_of_different_variables_lose_nothing(service, another):
    """A1."""
    for trial in range(_TRIALS):
        run_id = await service.create_run("w", run_id=f"r{trial}")
        await asyncio.gather(
            *(s.update_run_state(run_id, f"v{n}", n) for n in range(10) for s in (service, another))
        )
        assert await service.get_run_state(run_id) == {f"v{n}": n for n in range(10)}


async def test_one_outcome_of_many_at_once_is_recorded(service, another, redis, keys):
    """T4, M1: results and errors of several who finish one step."""
    await service.create_run("w", run_id="r")
    step = await service.insert_step_state("r", "s", "f")
    ends = [(service, another)[n % 2].set_step_result(step.step_id, n) for n in range(5)]
    ends += [another.set_step_error(step.step_id, ValueError(str(n))) for n in range(5)]

    outcomes = await asyncio.gather(*ends, return_exceptions=True)

    assert outcomes.count(None) == 1
    fields = await redis.hgetall(keys.step("r", "s"))
    assert len({b"result", b"error"} & set(fields)) == 1
    assert len(await redis.lrange(keys.history("r"), 0, -1)) == 3
