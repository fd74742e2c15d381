"""What a worker hands back when its drain is over, while calls about it are still unanswered."""

import pytest
from tests.apps.parts import app
from tests.faults.test_drain import LONG
from tests.helpers.daemon import FAST, RunningWorker
from tests.helpers.state import keys
from tests.helpers.waiting import wait_until
from tests.state.world import World

from askel import StoreReplyError
from askel.state import (
    GROUP,
    Activated,
    Activations,
    Entry,
    Recording,
    connect,
    run_id_of_entry,
    started_body,
)
from askeld.config import WorkerConfig
from askeld.renewal import Held

__all__ = ["keys"]


@pytest.fixture
async def w(redis, redis_url, keys):
    """Entries that are pending for a worker."""
    connection = connect(redis_url)
    yield World(redis, connection, keys)
    await connection.close()


@pytest.fixture
async def drained(deployment):
    """A worker at the end of its drain: its tasks are stopped, its connections are open."""
    config = WorkerConfig(url=deployment.url, prefix=deployment.prefix, **FAST)
    running = RunningWorker(app, config)
    yield running
    await running.worker._close()


async def hand_back(drained, entry):
    await drained.worker._dispatch.hand_back([Held(entry, 0.0)])


async def test_an_entry_that_was_claimed_and_not_read_stays_whole(deployment, w, drained):
    """The sweep had claimed it; what it carries was asked for, and the answer has not come."""
    entry = await w.entry("type", "run.start", "workflow", "one_step", "input", "1", "run_id", "r")
    await hand_back(drained, Entry(entry.stream, entry.id))
    assert len(await w.redis.xrange(entry.stream, entry.id, entry.id)) == 1
    assert len(await w.redis.xpending_range(entry.stream, GROUP, entry.id, entry.id, 1)) == 1
    async with deployment.worker(app):
        await deployment.until("r", "completed")
        await deployment.quiet()


@pytest.mark.parametrize("is_executed", [False, True])
async def test_a_start_whose_answer_has_not_come_makes_one_run(deployment, w, drained, is_executed):
    """Whether the call that starts the run was executed before, or is too late."""
    entry = await w.entry("type", "run.start", "workflow", "one_step", "input", "1")
    run_id = run_id_of_entry(entry.stream, entry.id)
    activations = w.caller(Activations, lease_ms=200)

    async def start():
        body = started_body("one_step")
        return await activations.start(entry, "me/1", run_id, "one_step", b"1", body)

    if is_executed:
        assert isinstance(await start(), Activated)
    await hand_back(drained, entry)
    if not is_executed:
        assert not isinstance(await start(), Activated)
    async with deployment.worker(app, **LONG):
        await deployment.until(run_id, "completed")
        await deployment.quiet()
    assert await deployment.runs() == [run_id]


async def test_a_token_whose_activation_is_unanswered_stays_the_token(deployment, w, drained):
    """Else nothing would drive the run on until the tokens are looked through."""
    first = await w.entry("type", "run.start", "workflow", "one_step", "input", "1")
    body = started_body("one_step")
    assert isinstance(
        await w.activations.start(first, "own", "r", "one_step", b"1", body), Activated
    )
    await w.turn(first, end="passivate")
    await w.redis.hdel(w.keys.ctl("r"), "token")
    entry = await w.entry("type", "run.advance", "run_id", "r")
    await w.redis.hset(w.keys.ctl("r"), "token", entry.id)
    await hand_back(drained, entry)
    (group,) = await w.redis.xinfo_groups(entry.stream)
    assert group["pending"] == 0
    async with deployment.worker(app, **LONG):
        await deployment.until("r", "completed")
        await deployment.quiet()


async def test_what_is_no_command_is_left_to_whoever_claims_it(deployment, w, drained):
    """It was about to become a dead letter, and becomes one."""
    entry = await w.entry(*(word for number in range(5_000) for word in (f"f{number}", "x")))
    await hand_back(drained, entry)
    async with deployment.worker(app):
        (letter,) = await deployment.dead_letters()
        await deployment.quiet(dead=1)
    assert (letter["reason"], letter["entry"]) == ("invalid_command", entry.id)


@pytest.mark.parametrize("words", [(), ("type",), ("type", "x", "y"), ("x",) * 10_000])
async def test_words_that_are_no_fields_are_refused_before_the_entry_is_gone(w, words):
    """What Redis refuses to add would be lost with the entry that was taken away for it."""
    entry = await w.entry("type", "run.signal")
    with pytest.raises(StoreReplyError):
        await w.caller(Recording).put_back(entry, words)
    assert len(await w.redis.xpending_range(entry.stream, GROUP, entry.id, entry.id, 1)) == 1
    assert await wait_until(lambda: w.redis.xlen(entry.stream)) == 1
