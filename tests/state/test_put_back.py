"""An entry that a draining worker puts back while another one owns the run it had started."""

import pytest
from tests.helpers.state import snapshot
from tests.state.world import World

from askel.state import GROUP, Activated, Recording, Refusal, connect

pytestmark = pytest.mark.usefixtures("redis_server")
WORDS = ("type", "run.start", "workflow", "w", "run_id", "r", "tries", "2")


@pytest.fixture
async def w(redis, redis_url, keys):
    """Runs in every state."""
    connection = connect(redis_url)
    yield World(redis, connection, keys)
    await connection.close()


async def put_back_by_another(w):
    """Start a run, then let another consumer, who claimed its token, put it back; return that."""
    token = await w.started()
    await w.redis.xclaim(token.stream, "askeld", "other", 0, [token.id])
    other = w.caller(Recording, "other")
    assert await other.put_back(token, WORDS, run_id="r")
    return token, await w.deliver(consumer="other")


async def test_the_token_goes_back_as_what_drives_the_run_on(w):
    """Else the start would be sent a second time."""
    _, again = await put_back_by_another(w)
    fields = dict(zip(again.fields[::2], again.fields[1::2], strict=True))
    assert fields == {b"type": b"run.advance", b"run_id": b"r", b"tries": b"2"}
    assert (await w.redis.hget(w.keys.ctl("r"), "token")).decode() == again.id


async def test_the_owner_goes_on_and_the_start_is_not_sent_twice(w):
    """The run ends under its owner; what was put back finds it so, and nothing is dead-lettered."""
    token, again = await put_back_by_another(w)
    assert not isinstance(await w.turn(token, end="completed", json=b"1"), Refusal)
    answer = await w.activations.activate(again, "another", "r")
    assert w.heard == "LOST"  # pending for the other consumer
    await w.redis.xclaim(again.stream, "askeld", "me", 0, [again.id])
    answer = await w.activations.activate(again, "another", "r")
    assert not isinstance(answer, Activated)
    assert w.heard == "GONE"
    assert await w.acked(again)
    assert w.keys.dead not in await snapshot(w.redis, w.keys.prefix)


async def test_an_entry_of_another_stream_with_the_id_of_the_token_is_no_token(w):
    """Each stream gives out its ids by itself: two entries of one millisecond may have the same."""
    token = await w.started()
    stream, words = w.keys.commands("q"), ("type", "step.execute", "run_id", "r", "step_name", "s")
    await w.redis.xgroup_create(stream, GROUP, "0", mkstream=True)
    await w.redis.execute_command("XADD", stream, token.id, *words)
    twin = await w.deliver(queue="q")
    assert twin.id == token.id

    assert await w.caller(Recording).put_back(twin, words, run_id="r")

    again = await w.deliver(queue="q")
    assert again.fields == tuple(word.encode() for word in words)
    assert (await w.redis.hget(w.keys.ctl("r"), "token")).decode() == token.id
    assert not isinstance(await w.turn(token, end="completed", json=b"1"), Refusal)
    assert await w.acked(token)
