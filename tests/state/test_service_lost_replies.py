"""A write whose reply was lost is sent again and is recorded exactly once."""

import asyncio

import pytest
from tests.helpers.state import recorded, snapshot
from tests.helpers.waiting import wait_until

from askel import RedisWorkflowService, StoreUnavailableError, UnknownOutcomeError
from askel.state import load_scripts

pytestmark = pytest.mark.usefixtures("server")


async def failed(service, step_id):
    await service.set_step_error(step_id, ValueError("no"))


async def transaction(service, step_id):
    async with service.transaction("r") as tx:
        tx.set_step_running(step_id)
        other = tx.insert_step_state("other", "f").step_id
        tx.set_step_result(other, 1)
        tx.update_run_state("v", 1)


#: The writes that have a script of their own.
SCRIPTS = {
    "insertion": "insert_step",
    "move": "move_step",
    "result": "finish_step",
    "error": "finish_step",
}
#: How many entries of the history a write makes, where it is not one.
ENTRIES = {"transaction": 4}
WRITES = {
    "create_run": lambda s, _: s.create_run("w", {"n": 1}, run_id="new"),
    "create_run without an id": lambda s, _: s.create_run("w"),
    "status": lambda s, _: s.update_run_status("r", "completed", output=1),
    "insertion": lambda s, _: s.insert_step_state("r", "another", "f", 1),
    "move to scheduled": lambda s, i: s.set_step_scheduled(i),
    "move to running": lambda s, i: s.set_step_running(i),
    "result": lambda s, i: s.set_step_result(i, {"ok": 1}),
    "error": failed,
    "variable": lambda s, _: s.update_run_state("r", "v", 1),
    "branch": lambda s, i: s.set_branch_taken(i, "left"),
    "child": lambda s, i: s.set_step_child_run_id(i, "child"),
    "transaction": transaction,
    "retry pending": lambda s, i: s.create_retry_attempt(i),
    "retry running": lambda s, i: s.create_retry_attempt(i, "running"),
}
each_write = pytest.mark.parametrize("write", WRITES)


@pytest.fixture
async def arranged(distant, redis, request):
    """A step to write to, on a server that knows all scripts."""
    for script in load_scripts().values():
        await redis.script_load(script.body)
    await distant.create_run("w", run_id="r")
    step = await distant.insert_step_state("r", "s", "f")
    if request.node.callspec.params["write"].startswith("retry"):
        await failed(distant, step.step_id)
    return step.step_id


async def lengths(redis, prefix):
    """How many entries each history has."""
    found = [key async for key in redis.scan_iter(match=f"{prefix}:history:*")]
    return {key: await redis.llen(key) for key in sorted(found)}


def sha(write):
    word = write.split()[0]
    name = SCRIPTS.get(word, word if word.endswith(("_run", "_lock")) else "apply")
    return load_scripts()[name].sha.encode()


@each_write
@pytest.mark.parametrize("fault", ["lose_next_reply", "lose_next_request"])
async def test_write_lands_once_whatever_was_lost(  # noqa: PLR0917 - fixtures are parameters
    distant, arranged, proxy, redis, keys, prefix, write, fault
):
    before = await lengths(redis, prefix)
    proxy.forget()
    rule = getattr(proxy, fault)(sha(write))

    returned = await WRITES[write](distant, arranged)

    after = await lengths(redis, prefix)
    assert (rule.hits, proxy.names.count("EVALSHA")) == (1, 2)
    assert sum(after.values()) == sum(before.values()) + ENTRIES.get(write, 1)
    if write.startswith("create_run"):
        assert await redis.zscore(keys.runs, returned) is not None
    assert await redis.xlen(keys.events) == await redis.zcard(keys.runs) + (write == "status")


@each_write
async def test_write_lands_once_after_many_lost_replies(
    distant, arranged, proxy, redis, prefix, write
):
    before = await lengths(redis, prefix)
    rule = proxy.lose_next_reply(sha(write), times=4)

    await WRITES[write](distant, arranged)

    assert rule.hits == 4
    assert sum((await lengths(redis, prefix)).values()) == sum(before.values()) + ENTRIES.get(
        write, 1
    )


@each_write
async def test_second_identical_call_after_a_lost_reply_finds_the_state_of_the_first(  # noqa: PLR0917 - fixtures are parameters
    distant, service, arranged, proxy, redis, prefix, write
):
    proxy.lose_next_reply(sha(write))
    await WRITES[write](distant, arranged)
    before = await snapshot(redis, prefix)

    if write in {"create_run", "create_run without an id"} or write.startswith(
        ("retry", "transaction")
    ):
        return  # a second call asks for a second thing, as tested elsewhere
    await WRITES[write](service, arranged)
    assert await snapshot(redis, prefix) == before


@pytest.mark.parametrize("write", ["status"])
async def test_without_patience_the_outcome_is_said_to_be_unknown(
    proxy, arranged, prefix, redis, keys, write
):
    service = RedisWorkflowService(proxy.url, key_prefix=prefix, resend_s=0)
    await service.get_run("r")
    proxy.lose_next_reply(sha(write))

    with pytest.raises(UnknownOutcomeError):
        await WRITES[write](service, arranged)
    assert [entry["status"] for entry in await recorded(redis, keys, "r")][-1] == "completed"
    await service.close()


@pytest.mark.parametrize("write", ["status"])
async def test_call_on_a_server_that_stays_away_fails_when_patience_ends(
    proxy, arranged, prefix, redis, keys, write
):
    service = RedisWorkflowService(proxy.url, key_prefix=prefix, resend_s=0.1)
    proxy.refuse_connections()
    proxy.drop_connections()

    with pytest.raises(StoreUnavailableError):
        await asyncio.wait_for(WRITES[write](service, arranged), 5)
    assert (await redis.hget(keys.run("r"), "status")) == b"running"
    await service.close()


@pytest.mark.parametrize("write", ["status"])
async def test_call_outlasts_a_server_that_is_away_for_a_moment(
    proxy, arranged, distant, redis, keys, write
):
    proxy.refuse_connections()
    proxy.drop_connections()
    call = asyncio.create_task(WRITES[write](distant, arranged))
    await asyncio.sleep(0.1)  # some attempts to connect fail
    assert not call.done()
    proxy.accept_connections()

    await asyncio.wait_for(call, 5)
    assert await redis.hget(keys.run("r"), "status") == b"completed"


@pytest.mark.parametrize("write", ["status"])
async def test_cancelled_call_never_disturbs_the_next(distant, arranged, proxy, redis, keys, write):
    proxy.delay_replies(0.05, sha(write))
    call = asyncio.create_task(WRITES[write](distant, arranged))
    await asyncio.sleep(0.01)  # it is on its way
    call.cancel()

    assert (await distant.get_run("r")).id == "r"
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_lock_whose_reply_was_lost_is_taken_once(distant, service, proxy, redis, keys):
    await service.create_run("w", run_id="r")
    for word in ("acquire_lock", "release_lock"):
        await redis.script_load(load_scripts()[word].body)
    async with service.run_lock("r") as lock:
        before = lock.fence
    acquired = proxy.lose_next_reply(sha("acquire_lock"))

    async with distant.run_lock("r", ttl="5s") as lock:
        released = proxy.lose_next_reply(sha("release_lock"))
        await distant.update_run_status("r", "suspended")

    assert (acquired.hits, released.hits) == (1, 1)
    assert lock.fence == before + 1
    assert await redis.get(keys.lock("r")) is None


async def test_lock_whose_renewal_was_lost_is_still_held(distant, service, proxy, redis):
    await service.create_run("w", run_id="r")
    await redis.script_load(load_scripts()["renew_lock"].body)
    rule = proxy.lose_next_reply(sha("renew_lock"))

    async with distant.run_lock("r", ttl="600ms"):
        await wait_until(lambda: rule.hits)
        await asyncio.sleep(0.6)  # longer than the lease that was not confirmed
        await distant.update_run_status("r", "completed")
