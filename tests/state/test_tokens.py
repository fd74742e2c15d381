"""The entry that drives a run, told from others: each stream gives out its ids by itself."""

import pytest
from tests.state.world import World

from askel.state import GROUP, Activated, TokenSweep, connect

pytestmark = pytest.mark.usefixtures("redis_server")


@pytest.fixture
async def w(redis, redis_url, keys):
    """Runs in every state."""
    connection = connect(redis_url)
    yield World(redis, connection, keys)
    await connection.close()


async def started_on_a_queue(w):
    """Start a run by an entry of a queue; return its token."""
    token = await w.entry("type", "run.start", "workflow", "w", "run_id", "r", queue="warehouse")
    assert isinstance(await w.start(token), Activated)
    return token


async def twin_of(w, token, *words, queue=""):
    """Deliver an entry of another stream that has the token's id."""
    stream = w.keys.commands(queue)
    await w.redis.xgroup_create(stream, GROUP, "0", mkstream=True)
    await w.redis.execute_command("XADD", stream, token.id, *words)
    twin = await w.deliver(queue=queue)
    assert twin.id == token.id
    return twin


async def token_of(w, run_id="r"):
    return (await w.redis.hget(w.keys.ctl(run_id), "token")).decode()


async def looks(w, times=2):
    """Look for tokens that are gone."""
    sweep = w.caller(TokenSweep)
    return [run for _ in range(times) for run in (await sweep.run_once(silent_ms=0))[0]]


async def test_a_token_on_a_queue_is_there_for_who_does_not_serve_the_queue(w):
    token = await started_on_a_queue(w)
    assert await looks(w, 3) == []
    assert await token_of(w) == token.id


async def test_a_token_that_went_back_to_the_default_stream_is_found_there(w):
    token = await started_on_a_queue(w)
    assert await w.activations.requeue(token, "own", "r")
    again = await token_of(w)
    assert await looks(w, 3) == []
    assert await token_of(w) == again


async def test_an_entry_of_another_stream_is_not_taken_for_the_token(w):
    """Neither does it hide that the token is gone, nor is it deleted in the token's place."""
    token = await started_on_a_queue(w)
    words = ("type", "run.cancel", "run_id", "r")
    twin = await twin_of(w, token, *words)
    await w.redis.xack(token.stream, GROUP, token.id)
    await w.redis.xdel(token.stream, token.id)

    assert await looks(w) == ["r"]

    assert await token_of(w) != token.id
    assert len(await w.redis.xpending_range(twin.stream, GROUP, twin.id, twin.id, 1)) == 1
    assert len(await w.redis.xrange(twin.stream, twin.id, twin.id)) == 1


async def test_only_the_token_that_lies_in_vain_is_deleted(w):
    """Its consumer was removed; the twin was so, too, and is for `take_up`."""
    token = await started_on_a_queue(w)
    twin = await twin_of(w, token, "type", "run.cancel", "run_id", "r")
    for stream in (token.stream, twin.stream):
        await w.redis.xgroup_delconsumer(stream, GROUP, "me")

    assert await looks(w) == ["r"]

    assert await w.redis.xrange(token.stream, token.id, token.id) == []
    assert len(await w.redis.xrange(twin.stream, twin.id, twin.id)) == 1


async def test_a_token_that_was_gone_and_came_back_is_noted_anew_when_it_goes(w):
    """An owner that lives has time to say so, each time."""
    token = await w.started()
    await w.redis.xgroup_delconsumer(token.stream, GROUP, "me")
    assert await looks(w, 1) == []
    await w.redis.xclaim(token.stream, GROUP, "me", 0, [token.id], force=True, justid=True)
    assert await looks(w, 1) == []
    await w.redis.xgroup_delconsumer(token.stream, GROUP, "me")
    assert await looks(w, 1) == []
    assert await looks(w, 1) == ["r"]
