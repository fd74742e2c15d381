"""Deleting a run: nothing of it is left, and nothing that comes late brings it back."""

import asyncio

import pytest
from tests.helpers.state import keys_of_run, snapshot
from tests.helpers.stubs import CountedIds
from tests.state.world import World

from askel import (
    Client,
    ConflictError,
    InvalidNameError,
    LockLostError,
    LockNotAcquiredError,
    NotFoundError,
    RedisWorkflowService,
    RunActiveError,
    RunNotFoundError,
    RunStatus,
)
from askel.state import connect, create_call, load_scripts

pytestmark = pytest.mark.usefixtures("redis_server")


async def whole_run(service, redis, keys, run_id="r", workflow="w"):
    """A run with everything that can belong to one."""
    await service.create_run(workflow, {"n": 1}, run_id=run_id)
    for name in ("a", "b:c", "ä #1", "step", ":"):
        step = await service.insert_step_state(run_id, name, "f", 1, {"retries": 3})
    await service.set_step_running(step.step_id)
    await service.set_step_error(step.step_id, ValueError("no"))
    await service.create_retry_attempt(step.step_id)
    await service.update_run_state(run_id, "variable", [1])
    await redis.set(f"{keys.prefix}:step-lock:{run_id}:b:c", "somebody", px=60_000)
    return step


async def test_everything_of_an_ended_run_goes(service, redis, keys, prefix):
    """D2: every key that holds the run's id, every index entry, and the workflow's name."""
    await whole_run(service, redis, keys, "r")
    await whole_run(service, redis, keys, "r2", "other")
    others = {k: v for k, v in (await snapshot(redis, prefix)).items() if ":r2" in k}
    await service.update_run_status("r", "completed", output=1)

    assert await service.delete_run("r") is True

    assert await keys_of_run(redis, prefix, "r") == []
    assert await service.get_run("r") is None
    assert await service.get_run_steps("r") == []
    assert await service.get_run_history("r") == []
    assert await service.get_run_state("r") == {}
    assert await service.get_distinct_workflow_names() == ["other"]
    assert {k: v for k, v in (await snapshot(redis, prefix)).items() if ":r2" in k} == others
    assert await service.delete_run("r") is False
    assert await service.delete_run("nobody") is False


@pytest.mark.parametrize("status", ["running", "suspended", "stalled"])
async def test_live_run_is_refused_unless_forced(service, redis, keys, prefix, status):
    await whole_run(service, redis, keys)
    if status != "running":
        await service.update_run_status("r", status)
    before = await snapshot(redis, prefix)

    with pytest.raises(RunActiveError, match=f"'r' is {status}") as caught:
        await service.delete_run("r")

    assert isinstance(caught.value, ConflictError)
    assert (caught.value.run_id, caught.value.status) == ("r", status)
    assert await snapshot(redis, prefix) == before
    assert await service.delete_run("r", force=True) is True
    assert await keys_of_run(redis, prefix, "r") == []


async def test_lock_of_another_stands_in_the_way_unless_forced(
    service, redis, keys, prefix, redis_url
):
    await service.create_run("w", run_id="r")
    await service.update_run_status("r", "failed")
    await redis.set(keys.lock("r"), "somebody", px=60_000)

    with pytest.raises(LockNotAcquiredError):
        await service.delete_run("r")

    assert await service.get_run("r") is not None
    assert await service.delete_run("r", force=True) is True
    assert await keys_of_run(redis, prefix, "r") == []


async def test_holder_of_the_lock_may_delete_until_it_is_lost(redis_url, prefix, redis, keys):
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as service:
        for run_id in ("r", "s"):
            await service.create_run("w", run_id=run_id)
            await service.update_run_status(run_id, "failed")
        async with service.run_lock("r"):
            assert await service.delete_run("r") is True
        assert await keys_of_run(redis, prefix, "r") == []
        async with service.run_lock("s"):
            await redis.set(keys.lock("s"), "another")
            with pytest.raises(LockLostError):
                await service.delete_run("s", force=True)
        assert await service.get_run("s") is not None
        await redis.delete(keys.lock("s"))


async def test_damaged_run_can_be_deleted(service, redis, keys, prefix):
    await whole_run(service, redis, keys)
    await redis.hdel(keys.run("r"), "status", "workflow")
    with pytest.raises(RunActiveError, match="damaged"):
        await service.delete_run("r")
    assert await service.delete_run("r", force=True) is True
    assert await keys_of_run(redis, prefix, "r") == []

    for make in (keys.run, keys.ctl, keys.history, keys.steps):
        await whole_run(service, redis, keys)
        steps = [keys.step("r", step.step_name) for step in await service.get_run_steps("r")]
        await redis.delete(make("r"))
        await redis.set(make("r"), "of another type")
        assert await service.delete_run("r", force=True) is True
        if make == keys.steps:
            # Nobody can know of them: `reindex` finds the steps, and locks expire.
            await redis.delete(*steps, f"{prefix}:step-lock:r:b:c")
        assert await keys_of_run(redis, prefix, "r") == []


@pytest.mark.parametrize("run_id", ["*", "r*", "r?", "[r]", "\\", "", "a:b"])
async def test_id_is_never_a_pattern(service, redis, prefix, run_id):
    await service.create_run("w", run_id="r")
    before = await snapshot(redis, prefix)

    with pytest.raises(InvalidNameError):
        await service.delete_run(run_id, force=True)

    assert await snapshot(redis, prefix) == before


async def late_calls(service, step):
    """What a program may still send to a run that it does not know to be gone."""
    return [
        service.update_run_status("r", "completed", output=1),
        service.update_run_status("r", "suspended"),
        service.update_run_state("r", "variable", 2),
        service.insert_step_state("r", "late", "f"),
        service.set_step_scheduled(step.step_id),
        service.set_step_running(step.step_id),
        service.set_step_result(step.step_id, 1),
        service.set_step_error(step.step_id, ValueError("late")),
        service.create_retry_attempt(step.step_id),
        service.set_branch_taken(step.step_id, "b"),
        service.set_step_child_run_id(step.step_id, "child"),
        service.with_run_lock("r", asyncio.sleep),
        service.with_step_lock("r", step.step_name, asyncio.sleep),
    ]


async def test_late_write_is_refused_and_brings_no_key_back(service, redis, keys, prefix):
    """M2b, D2."""
    step = await whole_run(service, redis, keys)
    await service.delete_run("r", force=True)
    before = await snapshot(redis, prefix)

    for call in await late_calls(service, step):
        with pytest.raises(NotFoundError):
            await call

    assert await snapshot(redis, prefix) == before


@pytest.fixture
async def world(redis, redis_url, keys):
    connection = connect(redis_url)
    yield World(redis, connection, keys)
    await connection.close()


async def test_late_command_of_the_protocol_brings_no_key_back(world, redis, keys, prefix):
    """A token, a timer, a result, a retry, a signal, the run's own start: each is settled."""
    token = await world.started()
    begun = await world.begun()
    late = {
        "timer": await world.entry("type", "timer.fire"),
        "signal": await world.entry("type", "run.signal"),
        "settle": await world.entry("type", "run.cancel"),
        "begin": await world.entry("type", "step.execute", queue="q"),
        "advance": await world.entry("type", "run.advance"),
    }
    assert await world.service.delete_run("r", force=True)

    await world.start(token)
    await world.turn(token)
    await world.complete(begun)
    for kind in ("timer", "signal"):
        args = ["askeld", late[kind].id, 0, "r", "", kind, "s", 1, '"t":"x"']
        keys_ = [*keys.run_keys("r"), late[kind].stream, keys.commands(), keys.step("r", "s")]
        await world.scripts.run("record", keys_, args)
    await world.recording.settle(late["settle"], "r", RunStatus.CANCELLED, '"t":"run"')
    await world.begin(late["begin"])
    await world.activations.activate(late["advance"], "new", "r")
    await world.activations.requeue(token, "own", "r")
    await world.activations.start(token, "newer", "r", "w", b"{}", '"t":"run"')

    assert await keys_of_run(redis, prefix, "r") == []
    assert await world.acked(token)


async def next_millisecond(redis):
    """Wait until what is sent now has a later id than what was sent before."""
    seconds, micros = await redis.time()
    while await redis.time() < (seconds, micros + 1_000):
        pass


async def test_start_sent_before_the_deletion_is_dropped_and_one_sent_after_is_not(
    world, redis, keys, prefix
):
    """Wherever the daemon read it: the stream of a queue, too."""
    entry = await world.entry("type", "run.start", "workflow", "w", queue="q")
    await world.start(entry)
    again = await world.entry("type", "run.start", "workflow", "w", queue="q")
    await next_millisecond(redis)
    assert await world.service.delete_run("r", force=True)

    for late, word in ((entry, "LOST"), (again, "GONE")):  # the first went with its run
        assert (await world.start(late, owner="another")).word == word
        assert await world.acked(late)
    assert await keys_of_run(redis, prefix, "r") == []

    await next_millisecond(redis)
    new = await world.entry("type", "run.start", "workflow", "w")
    assert (await world.start(new)).status == "running"


@pytest.mark.parametrize("given", [{"run_id": "r"}, {}])
async def test_late_second_copy_of_the_creation_makes_no_run(redis_url, prefix, redis, given):
    """The reply to the first was lost, and somebody deleted the run meanwhile."""
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as service:
        ids, service.ids = service.ids, CountedIds()
        run_id = await service.create_run("w", **given)
        await service.delete_run(run_id, force=True)

        service.ids = CountedIds()  # so that the same is sent
        assert await service.create_run("w", **given) == run_id
        assert await keys_of_run(redis, prefix, run_id) == []
        service.ids = ids
        await service.create_run("w", run_id=run_id)
        assert await service.get_run(run_id) is not None


async def test_create_command_sent_before_the_deletion_is_dropped(world, redis, keys, prefix):
    await world.run()
    entry = await world.entry("type", "run.create", "workflow", "w")
    await next_millisecond(redis)
    await world.service.delete_run("r", force=True)

    name, keys_, args = create_call(keys, "r", "w", b"{}", '"t":"run"', entry=entry)
    assert (await world.scripts.run(name, keys_, args))[0] == b"GONE"

    assert await keys_of_run(redis, prefix, "r") == []
    assert await world.acked(entry)


async def test_deletion_is_remembered_for_a_while_and_not_for_ever(service, redis, keys):
    deleted = f"{keys.runs}:deleted"
    await redis.zadd(deleted, {"long ago": 5})
    await service.create_run("w", run_id="r")
    await service.delete_run("r", force=True)

    members = await redis.zrange(deleted, 0, -1)
    assert members[0] == b"r"
    assert all(member.startswith(b"r:") for member in members[1:])
    assert 0 < await redis.pttl(deleted) <= 3_600_000
    assert await service.create_run("w", run_id="r") == "r"
    assert await service.delete_run("r", force=True) is True


async def test_deletion_whose_reply_was_lost_answers_as_if_it_had_come(
    distant, proxy, service, redis, prefix
):
    await service.create_run("w", run_id="r")
    await service.update_run_status("r", "completed")
    assert await distant.delete_run("nobody") is False  # and the server knows the script
    rule = proxy.lose_next_reply(load_scripts()["delete_run"].sha.encode())

    assert await distant.delete_run("r") is True
    assert rule.hits == 1
    assert await keys_of_run(redis, prefix, "r") == []


@pytest.mark.parametrize("known", [True, False])
async def test_who_waits_for_a_deleted_run_is_told(service, redis_url, prefix, keys, redis, known):
    async with Client(redis_url, prefix) as client:
        await redis.xadd(keys.events, {"type": "run", "run_id": "x", "status": "running"})
        if known:
            await service.create_run("w", run_id="r")
        waiting = asyncio.ensure_future(client._waiter.wait("r", timeout_s=10, must_exist=known))
        await client._waiter._ready.wait()
        if not known:
            await service.create_run("w", run_id="r")
        await service.delete_run("r", force=True)
        with pytest.raises(RunNotFoundError):
            await waiting
    (event,) = [
        fields
        for _, fields in await redis.xrange(keys.events)
        if fields.get(b"status") == b"deleted"
    ]
    assert (event[b"type"], event[b"run_id"], event[b"seq"]) == (b"run", b"r", b"2")


async def test_deletion_is_possible_when_memory_is_full(service, redis, keys, prefix):
    await whole_run(service, redis, keys)
    await redis.config_set("maxmemory", "1mb")
    try:
        assert await service.delete_run("r", force=True) is True
    finally:
        await redis.config_set("maxmemory", "0")
    assert await keys_of_run(redis, prefix, "r") == []


async def test_cost_does_not_grow_with_what_else_there_is(service, redis, keys):
    """P1."""

    async def calls():
        await service.create_run("w", run_id="r")
        for name in ("a", "b"):
            await service.insert_step_state("r", name, "f")
        await redis.config_resetstat()
        await service.delete_run("r", force=True)
        stats = await redis.info("commandstats")
        return {name: fields["calls"] for name, fields in stats.items()}

    alone = await calls()
    for number in range(50):
        await service.create_run("w", run_id=f"other{number}")
    await redis.mset({f"foreign:{n}": "x" for n in range(2_000)})
    among = await calls()
    await redis.delete(*[f"foreign:{n}" for n in range(2_000)])

    del alone["cmdstat_unlink"], among["cmdstat_unlink"]  # of the workflow's name, once
    alone.pop("cmdstat_zrem"), among.pop("cmdstat_zrem")
    assert among == alone
    assert "cmdstat_scan" not in among
