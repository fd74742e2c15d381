"""A step command that is given up, as poison or as unknown, harms no step but its own."""

import pytest
from tests.helpers.state import snapshot
from tests.state.world import World

from askel.state import GROUP, Refusal, connect

pytestmark = pytest.mark.usefixtures("redis_server")
ERROR = b'{"message":"x"}'


@pytest.fixture
async def w(redis, redis_url, keys):
    """Runs in every state."""
    connection = connect(redis_url)
    yield World(redis, connection, keys)
    await connection.close()


@pytest.fixture(params=["poison", "stall"])
def give_up(request, w):
    """Give an entry up as if it were for the step s of run r, which calls f."""

    async def call(entry, born="", rpc_name="f"):
        given = {"error": ERROR, "detail": "why", "born": born}
        if request.param == "poison":
            return await w.attempts.poison(entry, "r", "s", deliveries=5, **given)
        return await w.attempts.stall(entry, "r", "s", rpc_name=rpc_name, **given)

    call.buries_the_old = request.param == "poison"
    return call


async def asked(w, consumer="me"):
    return await w.entry("type", "step.execute", "rpc_name", "f", queue="q", consumer=consumer)


async def about_the_run(w):
    """Return all that Redis has of run r, its indexes and events, without streams of commands."""
    found = await snapshot(w.redis, w.keys.prefix)
    return {
        key: what for key, what in found.items() if ":commands" not in key and ":dead" not in key
    }


async def reasons(w):
    return [fields[b"reason"] for _, fields in await w.redis.xrange(w.keys.dead)]


async def test_a_former_generation_fails_no_step_of_the_next_by_its_birth(w, give_up):
    await w.step()
    entry = await asked(w)
    before = await about_the_run(w)

    answer = await give_up(entry, born="1")

    assert answer == ("" if give_up.buries_the_old else Refusal("GONE"))
    assert await about_the_run(w) == before
    assert await w.acked(entry)
    assert await reasons(w) == ([b"poison"] if give_up.buries_the_old else [])


async def test_a_former_generation_fails_no_step_of_the_next_by_its_time(w, give_up):
    """A command that a person sent does not say for which run it is."""
    await w.step()
    entry = await asked(w)
    await w.redis.hset(w.keys.run("r"), "since", int(entry.id.split("-")[0]) + 1)
    before = await about_the_run(w)

    await give_up(entry)

    assert await about_the_run(w) == before
    assert await w.acked(entry)


async def test_a_step_that_is_executed_under_another_command_goes_on(w, give_up):
    """Asked for twice: the older entry is given up while the newer one is at work."""
    await w.run()
    older, newer = await asked(w, "dead"), await asked(w)
    await w.begin(newer)
    before = await about_the_run(w)

    await give_up(older)

    assert await about_the_run(w) == before
    assert await w.acked(older)
    assert len(await reasons(w)) == 1
    assert await w.complete(newer) == ""
    assert (await w.redis.hget(w.keys.step("r", "s"), "status")) == b"succeeded"


async def test_a_step_whose_other_command_is_gone_is_given_up(w, give_up):
    """What holds its lease is pending no more: nothing else would end it."""
    await w.run()
    older, newer = await asked(w), await asked(w)
    await w.begin(newer)
    await w.redis.xack(newer.stream, GROUP, newer.id)

    assert await give_up(older) == ""

    step, run = [
        await w.redis.hget(key, "status") for key in (w.keys.step("r", "s"), w.keys.run("r"))
    ]
    assert (step, run) == (
        (b"failed", b"running") if give_up.buries_the_old else (b"running", b"stalled")
    )


@pytest.mark.parametrize("what", ["succeeded", "of another function", "of a suspended run"])
async def test_a_run_that_waits_for_nothing_of_it_is_not_stalled(w, what):
    step_id = await w.step()
    if what == "succeeded":
        await w.service.set_step_running(step_id)
        await w.service.set_step_result(step_id, 1)
    elif what == "of a suspended run":
        await w.service.update_run_status("r", "suspended")
    entry = await asked(w)
    before = await about_the_run(w)
    name = "g" if what == "of another function" else "f"

    assert (
        await w.attempts.stall(entry, "r", "s", rpc_name=name, born="", error=ERROR, detail="why")
        == ""
    )

    assert await about_the_run(w) == before
    assert await reasons(w) == [b"unknown_step"]


async def test_a_run_that_daemons_drive_does_not_wait_for_a_step_that_it_has_not(w):
    """Its turns insert what they send for: this came from elsewhere."""
    await w.begun_run()
    entry = await w.entry("type", "step.execute", "run_id", "r")
    before = await about_the_run(w)

    told = {"rpc_name": "f", "born": "", "error": ERROR, "detail": "why"}
    assert await w.attempts.stall(entry, "r", "stray", **told) == ""

    assert await about_the_run(w) == before
    assert await reasons(w) == [b"unknown_step"]


async def test_a_run_that_waits_is_stalled_and_its_driver_is_told(w):
    """Step, letter and status in one: the owner hears of it, and the error stays."""
    await w.begun_run()
    await w.service.insert_step_state("r", "far", "f")
    await w.entry("type", "step.execute")
    entry = await w.entry("type", "step.execute", "run_id", "r")

    answer = await w.attempts.stall(
        entry, "r", "far", rpc_name="f", born="", error=ERROR, detail="why"
    )

    assert answer == "own"
    assert await w.redis.hmget(w.keys.run("r"), "status", "error") == [b"stalled", ERROR]
    ((_, letter),) = await w.redis.xrange(w.keys.dead)
    assert (letter[b"entry"].decode(), letter[b"run_id"]) == (entry.id, b"r")
