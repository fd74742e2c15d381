"""Step locks: one holder at a time, renewed while held, lost loudly."""

import asyncio

import anyio
import anyio.lowlevel
import pytest
from tests.helpers.state import snapshot

from askel import (
    InvalidNameError,
    LockLostError,
    LockNotAcquiredError,
    NestedLockError,
    RedisWorkflowService,
    StepNotFoundError,
)

pytestmark = pytest.mark.usefixtures("redis_server")


@pytest.fixture
async def step(service):
    await service.create_run("w", run_id="r")
    return await service.insert_step_state("r", "a:b", "f")


@pytest.fixture
async def other(redis_url, prefix):
    """The service of another process."""
    service = RedisWorkflowService(redis_url, key_prefix=prefix)
    yield service
    await service.close()


async def test_lock_is_held_for_the_body_and_given_back(service, step, redis, keys):
    key = keys.step_lock("r", "a:b")

    async def work():
        assert 0 < await redis.pttl(key) <= 30_000
        return "done"

    assert await service.with_step_lock("r", "a:b", work) == "done"
    assert await redis.exists(key) == 0


async def test_step_must_exist(service, step, redis, prefix):
    before = await snapshot(redis, prefix)

    for run_id, name in (("r", "another"), ("nobody", "a:b")):
        with pytest.raises(StepNotFoundError):
            async with service.step_lock(run_id, name):
                pytest.fail("a step that does not exist is locked")
    assert await snapshot(redis, prefix) == before
    with pytest.raises(InvalidNameError):
        service.step_lock("r", "")


async def test_only_one_holds_it(service, other, step):
    async with service.step_lock("r", "a:b") as lock:
        assert (lock.run_id, lock.step_name) == ("r", "a:b")
        with pytest.raises(LockNotAcquiredError, match=r"step 'a:b' of run 'r' was held") as caught:
            async with other.step_lock("r", "a:b", wait=0):
                pytest.fail("two hold the lock")
    assert (caught.value.run_id, caught.value.step_name) == ("r", "a:b")


async def test_contenders_within_their_bound_all_get_it(service, step):
    inside, fences = 0, []

    async def contend():
        nonlocal inside
        async with service.step_lock("r", "a:b", wait="20s") as lock:
            inside += 1
            assert inside == 1
            await anyio.lowlevel.checkpoint()
            fences.append(lock.fence)
            inside -= 1

    await asyncio.gather(*(asyncio.create_task(contend()) for _ in range(30)))

    assert len(fences) == 30
    assert fences == sorted(set(fences))


async def test_locks_of_a_run_and_of_its_steps_are_independent(service, other, step):
    await service.insert_step_state("r", "b", "f")
    async with service.run_lock("r"), service.step_lock("r", "a:b", wait=0):
        async with other.step_lock("r", "b", wait=0):
            await service.set_step_running(step.step_id)
        with pytest.raises(LockNotAcquiredError):
            async with other.run_lock("r", wait=0):
                pytest.fail("two hold the run's lock")
    async with service.step_lock("r", "a:b"), service.run_lock("r", wait=0):
        await service.set_step_result(step.step_id, 1)


async def test_long_lease_of_one_lock_is_respected_after_a_short_one_of_another(
    service, other, step
):
    async with service.run_lock("r", ttl="1h"):
        async with other.step_lock("r", "a:b", ttl="1s"):
            pass
        with pytest.raises(LockNotAcquiredError):
            async with other.run_lock("r", wait=0):
                pytest.fail("two hold the run's lock")


async def test_nesting_raises_at_once(service, step):
    async with service.step_lock("r", "a:b"):
        with anyio.fail_after(5), pytest.raises(NestedLockError, match="step 'a:b' of run 'r'"):
            async with service.step_lock("r", "a:b", wait="20s"):
                pytest.fail("nested")


async def test_lock_is_renewed_beyond_its_lease(service, other, step):
    async with service.step_lock("r", "a:b", ttl="150ms"):
        for _ in range(3):
            with pytest.raises(LockNotAcquiredError):
                async with other.step_lock("r", "a:b", wait="150ms"):
                    pytest.fail("two hold the lock")


@pytest.mark.awaited_only
async def test_body_is_cancelled_when_the_lock_is_lost(service, step, redis, keys):
    cancelled = []

    async def body():
        await redis.delete(keys.step_lock("r", "a:b"))
        try:
            await anyio.sleep(30)
        except anyio.get_cancelled_exc_class():
            cancelled.append(True)
            raise

    with anyio.fail_after(10), pytest.raises(LockLostError, match=r"step 'a:b'.*body was stopped"):
        async with service.step_lock("r", "a:b", ttl="150ms"):
            await body()
    assert cancelled == [True]


async def test_failing_release_never_replaces_the_outcome(
    distant, service, step, proxy, monkeypatch
):
    monkeypatch.setattr("askel.state.locks.run_lock._RELEASE_S", 0.2)

    async def body():
        proxy.refuse_connections()
        proxy.drop_connections()
        return "done"

    with anyio.fail_after(10):
        assert await distant.with_step_lock("r", "a:b", body) == "done"


async def test_lock_is_the_one_that_the_node_system_takes(service, step, redis, keys):
    key = f"{keys.prefix}:step-lock:r:a:b"
    assert await redis.set(key, "a node process", nx=True, px=30_000)
    with pytest.raises(LockNotAcquiredError):
        async with service.step_lock("r", "a:b", wait=0):
            pytest.fail("two hold the lock")
    await redis.delete(key)

    async with service.step_lock("r", "a:b"):
        assert not await redis.set(key, "a node process", nx=True, px=30_000)


async def test_writes_inside_are_held_by_the_state_machine_alone(service, other, step, redis, keys):
    """A step lock that is lost refuses no write; a second result is refused all the same."""

    async def body():
        await redis.delete(keys.step_lock("r", "a:b"))
        await other.set_step_result(step.step_id, "theirs")
        await service.update_run_status("r", "suspended")

    await service.with_step_lock("r", "a:b", body)
    assert (await service.get_step_state("r", "a:b")).result == "theirs"
