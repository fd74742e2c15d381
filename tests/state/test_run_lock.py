"""The run lock: taken with a fence, renewed while held, lost loudly."""

import asyncio

import anyio
import anyio.lowlevel
import pytest
from tests.helpers.state import snapshot
from tests.helpers.waiting import wait_until

from askel import (
    LockLostError,
    LockNotAcquiredError,
    NestedLockError,
    RedisWorkflowService,
    RunNotFoundError,
    StoreReplyError,
)
from askel.state import load_scripts
from askel.state.locks.run_lock import RunLock, holder_for

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
async def run(service):
    return await service.create_run("w", run_id="r")


@pytest.fixture
async def other(redis_url, prefix):
    """The service of another process."""
    service = RedisWorkflowService(redis_url, key_prefix=prefix)
    yield service
    await service.close()


async def test_lock_is_held_for_the_body_and_given_back(service, run, redis, keys):
    async with service.run_lock("r") as lock:
        assert isinstance(lock, RunLock)
        assert await redis.get(keys.lock("r")) == lock.holder.encode()
        assert 0 < await redis.pttl(keys.lock("r")) <= 30_000
        assert not lock.lost
    assert await redis.get(keys.lock("r")) is None


async def test_result_of_the_function_is_passed_on(service, run):
    async def work():
        await service.update_run_status("r", "suspended")
        return "done"

    assert await service.with_run_lock("r", work) == "done"


async def test_only_one_holds_it(service, other, run):
    async with service.run_lock("r"):
        with pytest.raises(
            LockNotAcquiredError, match=r"lock of run 'r' was held by another for 0\.\d s"
        ):
            async with other.run_lock("r", wait="100ms"):
                pytest.fail("two hold the lock")


async def test_lock_that_may_not_wait_is_tried_once(service, other, run):
    async with service.run_lock("r"):
        with pytest.raises(LockNotAcquiredError):
            async with other.run_lock("r", wait=0):
                pytest.fail("two hold the lock")
    async with other.run_lock("r", wait=0):
        pass


async def test_twenty_contenders_each_get_it_once_and_never_together(
    redis_url, prefix, service, run
):
    inside, order = 0, []

    async def contend(number):
        nonlocal inside
        async with service.run_lock("r", wait="20s") as lock:
            inside += 1
            assert inside == 1
            await anyio.lowlevel.checkpoint()
            order.append((lock.fence, number))
            inside -= 1

    await asyncio.gather(*(asyncio.create_task(contend(number)) for number in range(20)))

    fences = [fence for fence, _ in order]
    assert sorted(number for _, number in order) == list(range(20))
    assert fences == sorted(set(fences))


async def test_locks_of_two_runs_are_independent(service, run):
    await service.create_run("w", run_id="q")
    async with service.run_lock("r"), service.run_lock("q", wait=0):
        await service.update_run_status("q", "failed")
        await service.update_run_status("r", "failed")


async def test_fence_grows_with_every_holder(service, other, run):
    fences = []
    for holder in (service, other, service, other):
        async with holder.run_lock("r") as lock:
            fences.append(lock.fence)

    assert fences == sorted(set(fences))


async def test_lock_is_renewed_beyond_its_lease(service, other, run):
    async with service.run_lock("r", ttl="150ms"):
        for _ in range(3):
            with pytest.raises(LockNotAcquiredError):
                async with other.run_lock("r", wait="150ms"):
                    pytest.fail("two hold the lock")
        await service.update_run_status("r", "suspended")


async def test_unknown_run_cannot_be_locked(service, redis, prefix):
    with pytest.raises(RunNotFoundError):
        async with service.run_lock("nobody"):
            pytest.fail("a run that does not exist is locked")
    assert await snapshot(redis, prefix) == {}


async def test_nesting_raises_at_once_in_the_task_and_its_children(service, run):
    async def nested():
        async with service.run_lock("r", wait="20s"):
            pytest.fail("nested")

    async with service.run_lock("r"):
        with anyio.fail_after(5):
            with pytest.raises(NestedLockError, match="already held here; do not nest it"):
                await nested()
            with pytest.raises(NestedLockError):
                await asyncio.create_task(nested())
        await service.update_run_status("r", "suspended")


async def test_child_that_outlives_the_lock_may_take_it_anew(service, run):
    released = asyncio.Event()

    async def later():
        await released.wait()
        async with service.run_lock("r") as lock:
            await service.update_run_status("r", "suspended")
            return lock.fence

    async with service.run_lock("r") as lock:
        child = asyncio.create_task(later())
        await asyncio.sleep(0)
    released.set()

    assert await child == lock.fence + 1


async def test_child_that_outlives_the_lock_writes_nothing_under_it(service, run, redis, prefix):
    released = asyncio.Event()

    async def later():
        await released.wait()
        await service.update_run_status("r", "suspended")

    async with service.run_lock("r"):
        child = asyncio.create_task(later())
        await asyncio.sleep(0)
    before = await snapshot(redis, prefix)
    released.set()

    with pytest.raises(LockLostError):
        await child
    assert await snapshot(redis, prefix) == before


async def test_other_service_objects_are_not_under_the_lock(service, other, run):
    async with service.run_lock("r"):
        await other.update_run_status(
            "r", "suspended"
        )  # a plain method, checked by the state alone
    assert (await service.get_run("r")).status == "suspended"


async def write(service, step_id):
    await service.update_run_status("r", "suspended")


async def insert(service, step_id):
    await service.insert_step_state("r", "another", "f")


async def finish(service, step_id):
    await service.set_step_result(step_id, 1)


async def move(service, step_id):
    await service.set_step_running(step_id)


async def retry(service, step_id):
    await service.create_retry_attempt(step_id)


@pytest.mark.parametrize("method", [write, insert, finish, move, retry])
@pytest.mark.parametrize("in_child", [False, True], ids=["in the task", "in a child"])
@pytest.mark.parametrize("taken", [False, True], ids=["deleted", "taken by another"])
async def test_write_under_a_lost_lock_is_refused(  # noqa: PLR0917 - fixtures are parameters
    service, run, redis, keys, prefix, method, in_child, taken
):
    step = await service.insert_step_state("r", "s", "f")
    refused = []

    async def body():
        await redis.delete(keys.lock("r"))
        if taken:
            await redis.set(keys.lock("r"), "another", px=30_000)
        before = await snapshot(redis, prefix)
        call = method(service, step.step_id)
        try:
            await (asyncio.create_task(call) if in_child else call)
        except LockLostError:
            refused.append(await snapshot(redis, prefix) == before)
            raise

    with pytest.raises(LockLostError, match="nothing more was written under it"):
        await service.with_run_lock("r", body)
    assert refused == [True]
    assert await redis.get(keys.lock("r")) == (b"another" if taken else None)


@pytest.mark.awaited_only
async def test_body_is_cancelled_when_the_lock_is_lost(service, run, redis, keys):
    cancelled = []

    async def body():
        await redis.delete(keys.lock("r"))
        try:
            await anyio.sleep(30)
        except anyio.get_cancelled_exc_class():
            with pytest.raises(LockLostError):
                holder_for(service, "r")
            cancelled.append(True)
            raise

    with anyio.fail_after(10), pytest.raises(LockLostError):
        async with service.run_lock("r", ttl="150ms"):
            await body()
    assert cancelled == [True]


@pytest.mark.awaited_only
async def test_lost_lock_is_told_even_if_the_body_swallows_the_cancellation(
    service, run, redis, keys
):
    async def body():
        await redis.delete(keys.lock("r"))
        try:
            await anyio.sleep(30)
        except anyio.get_cancelled_exc_class():
            return "swallowed"

    with anyio.fail_after(10), pytest.raises(LockLostError):
        async with service.run_lock("r", ttl="150ms"):
            assert await body() == "swallowed"


async def test_silent_server_lets_the_local_deadline_end_the_body(distant, service, run, proxy):
    loop = asyncio.get_running_loop()
    begun = loop.time()

    async def body():
        proxy.black_hole("to_client")
        await anyio.sleep(30)

    with anyio.fail_after(10), pytest.raises(LockLostError):
        async with distant.run_lock("r", ttl="300ms"):
            await body()
    assert loop.time() - begun < 3


async def test_server_that_refuses_the_renewal_is_not_hammered(service, run, monkeypatch):
    calls = 0
    run_script = service.scripts.run

    async def refuse(name, keys, args):
        nonlocal calls
        if name != "renew_lock":
            return await run_script(name, keys, args)
        calls += 1
        raise StoreReplyError("NOPERM no")

    monkeypatch.setattr(service.scripts, "run", refuse)
    with anyio.fail_after(10), pytest.raises(LockLostError):
        async with service.run_lock("r", ttl="600ms"):
            await anyio.sleep(30)
    assert 1 < calls < 20


class WrongError(Exception):
    pass


class Worse(BaseException):
    pass


@pytest.mark.parametrize(
    "error",
    [WrongError("x"), Worse("x"), KeyboardInterrupt("x"), ExceptionGroup("g", [WrongError()])],
)
async def test_exception_of_the_body_passes_through_unwrapped(service, run, redis, keys, error):
    with pytest.raises(type(error)) as caught:
        async with service.run_lock("r"):
            raise error
    assert caught.value is error
    assert await redis.get(keys.lock("r")) is None


async def test_cancellation_of_the_bodys_own_making_passes_through(service, run, redis, keys):
    async def body():
        raise asyncio.CancelledError

    async def wait_for_a_cancelled_child():
        child = asyncio.create_task(asyncio.sleep(30))
        asyncio.get_running_loop().call_soon(child.cancel)
        await child

    for fn in (body, wait_for_a_cancelled_child):
        with pytest.raises(asyncio.CancelledError):
            await service.with_run_lock("r", fn)
        assert await redis.get(keys.lock("r")) is None


async def test_cancelled_caller_gives_the_lock_back(service, run, redis, keys):
    held = asyncio.Event()

    async def work():
        async with service.run_lock("r"):
            held.set()
            await asyncio.sleep(30)

    task = asyncio.create_task(work())
    await held.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await redis.get(keys.lock("r")) is None


@pytest.mark.awaited_only
async def test_timeout_around_the_lock_is_the_callers(service, run, redis, keys):
    with anyio.move_on_after(0.05) as scope:
        async with service.run_lock("r"):
            await anyio.sleep(30)
    assert scope.cancelled_caught
    assert await redis.get(keys.lock("r")) is None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), service.run_lock("r"):
            await asyncio.sleep(30)
    assert await redis.get(keys.lock("r")) is None


@pytest.mark.parametrize("fault", ["refuse", "black hole"])
async def test_failing_release_never_replaces_the_outcome_of_the_body(
    distant, service, run, proxy, fault, monkeypatch
):
    monkeypatch.setattr("askel.state.locks.run_lock._RELEASE_S", 0.2)

    async def body():
        if fault == "refuse":
            proxy.refuse_connections()
            proxy.drop_connections()
        else:
            proxy.black_hole("to_server")
        return "done"

    async def failing():
        await body()
        raise WrongError("of the body")

    with anyio.fail_after(10):
        assert await distant.with_run_lock("r", body) == "done"
        proxy.heal()
        await wait_until(lambda: free(service))
        with pytest.raises(WrongError, match="of the body"):
            await distant.with_run_lock("r", failing)


async def free(service):
    """Delete the lock, as its expiry would."""
    await service.connection.send("DEL", service.keys.lock("r"))
    return True


async def test_expired_lock_is_anybodys(service, other, run, redis, keys):
    await redis.set(keys.lock("r"), "crashed", px=100)

    async with other.run_lock("r", wait="5s") as lock:
        assert await redis.get(keys.lock("r")) == lock.holder.encode()


async def test_lock_that_would_outlive_any_lease_counts_as_expired(service, run, redis, keys):
    await redis.set(keys.lock("r"), "from before the clock went back", px=3_600_000)

    async with service.run_lock("r", wait=0):
        await service.update_run_status("r", "suspended")


async def test_lock_with_a_long_lease_is_not_taken_from_its_holder(service, other, run):
    async with service.run_lock("r", ttl="1h"):
        with pytest.raises(LockNotAcquiredError):
            async with other.run_lock("r", wait=0):
                pytest.fail("two hold the lock")


async def test_lock_without_an_end_is_respected(service, run, redis, keys):
    await redis.set(keys.lock("r"), "somebody who forgot")

    with pytest.raises(LockNotAcquiredError):
        async with service.run_lock("r", wait="50ms"):
            pytest.fail("two hold the lock")
    await redis.delete(keys.lock("r"))


async def test_lock_is_the_one_that_the_node_system_takes(service, run, redis, keys):
    assert await redis.set(keys.lock("r"), "a node process", nx=True, px=30_000)
    with pytest.raises(LockNotAcquiredError):
        async with service.run_lock("r", wait=0):
            pytest.fail("two hold the lock")
    await redis.delete(keys.lock("r"))

    async with service.run_lock("r"):
        assert not await redis.set(keys.lock("r"), "a node process", nx=True, px=30_000)


async def test_caller_cancelled_while_it_acquires_leaves_no_lock_behind(  # noqa: PLR0917 - fixtures are parameters
    distant, service, run, proxy, redis, keys, monkeypatch
):
    monkeypatch.setattr("askel.state.locks.run_lock._RELEASE_S", 0.2)
    await distant.get_run("r")
    proxy.black_hole("to_client")

    async def work():
        async with distant.run_lock("r"):
            pytest.fail("nothing was answered")

    task = asyncio.create_task(work())
    await wait_until(lambda: redis.get(keys.lock("r")))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await redis.get(keys.lock("r")) is None


async def test_late_copy_of_an_acquisition_takes_nothing_after_the_release(
    service, other, run, redis, keys
):
    names = [keys.run("r"), keys.ctl("r"), keys.lock("r")]
    async with service.run_lock("r") as lock:
        pass
    async with other.run_lock("r"):
        pass

    sha = load_scripts()["acquire_lock"].sha
    answer = await redis.evalsha(sha, 3, *names, lock.holder, 30_000, 60_000)

    assert answer == [b"RELEASED"]
    assert await redis.get(keys.lock("r")) is None


async def test_release_of_a_deleted_run_brings_nothing_back(service, run, redis, keys, prefix):
    async with service.run_lock("r"):
        await redis.delete(keys.ctl("r"), keys.run("r"))

    assert await redis.exists(keys.ctl("r"), keys.lock("r")) == 0
