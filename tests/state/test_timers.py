"""Timers that are armed again while somebody is about to fire them."""

import pytest
from tests.state.world import World

from askel.state import connect

pytestmark = pytest.mark.usefixtures("redis_server")
FAR = 9e14


@pytest.fixture
async def w(redis, redis_url, keys):
    """Runs in every state."""
    connection = connect(redis_url)
    yield World(redis, connection, keys)
    await connection.close()


async def test_a_timer_that_was_armed_again_is_not_fired_before_it_is_due(w):
    """The retry of a queued step has the same member each time: whoever was late fires no next one.

    A worker finds the first retry due and is stopped; another fires it, the step fails again, and
    the next retry is armed; then the first worker wakes up and says what it wanted to say.
    """
    await w.redis.zadd(w.keys.timers, {"retry": 1})
    (found,), _, _ = await w.timers.due(5)
    late = [(found, w.keys.commands(), ["type", "step.execute"])]
    assert await w.timers.fire(late) == 1
    await w.redis.zadd(w.keys.timers, {"retry": FAR})

    assert await w.timers.fire(late) == 0

    assert await w.redis.zscore(w.keys.timers, "retry") == FAR
    assert await w.redis.xlen(w.keys.commands()) == 1
