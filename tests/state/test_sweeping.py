"""The turns in which consumers sweep a stream: one at a time, none for longer than an interval."""

import pytest
from tests.helpers.waiting import wait_until
from tests.state.world import World

from askel.state import GROUP, Scripts, Sweeping

pytestmark = pytest.mark.usefixtures("redis_server")
EVERY_MS = 60_000


@pytest.fixture
async def world(redis, service, keys):
    return World(redis, service.connection, keys)


@pytest.fixture
async def entries(world):
    """Ten entries, pending for a consumer that is no more."""
    return [await world.entry("type", "x", queue="q", consumer="dead") for _ in range(10)]


def sweeper(world, name, offset=0):
    """Return what the consumer *name*, whose clock is ahead by *offset*, sweeps with."""
    caller = Sweeping(
        Scripts(world.service.connection), world.keys, consumer=name, clock_offset_ms=offset
    )

    async def sweep(room, every_ms=EVERY_MS):
        stream = world.keys.commands("q")
        return await caller.sweep(stream, idle_ms=0, room=room, every_ms=every_ms)

    return sweep


def ids(swept):
    return [entry.id for entry, _ in swept.claimed]


async def test_who_has_no_more_room_gives_the_turn_up_and_another_goes_on_there(world, entries):
    one, two = sweeper(world, "one"), sweeper(world, "two")

    first, second = await one(room=4), await two(room=50)

    assert ids(first) + ids(second) == [entry.id for entry in entries]
    assert (first.goes_on, first.wait_ms) == (False, 0)
    assert not second.goes_on
    assert 0 < second.wait_ms <= EVERY_MS
    for swept, name in ((first, b"one"), (second, b"two")):
        pending = await world.redis.xpending_range(
            world.keys.commands("q"), GROUP, ids(swept)[0], ids(swept)[-1], 50
        )
        assert {entry["consumer"] for entry in pending} == {name}


async def test_list_that_was_swept_is_left_alone_for_the_interval(world, entries):
    one, two = sweeper(world, "one"), sweeper(world, "two")
    await one(room=50)

    for sweep in (one, two):
        assert ids(await sweep(room=50)) == []

    later = sweeper(world, "two", offset=EVERY_MS)
    assert ids(await later(room=50)) == [entry.id for entry in entries]


async def test_turn_of_a_sweeper_that_died_ends_with_its_interval(world, redis):
    """It got part of the list, and room for more; then nothing was heard of it."""
    for _ in range(450):
        await redis.xadd(world.keys.commands("q"), {"type": "x"})
    await world.entry("type", "x", queue="q", consumer="dead")
    await redis.xreadgroup(GROUP, "dead", {world.keys.commands("q"): ">"})
    dead, other = sweeper(world, "died"), sweeper(world, "other", offset=EVERY_MS - 5_000)
    first = await dead(room=1_000)
    assert (len(first.claimed), first.goes_on) == (200, True)

    held = await other(room=1_000)
    assert (ids(held), held.goes_on) == ([], False)
    assert 0 < held.wait_ms <= 5_000, "who waits while there is more asks sooner"

    over = sweeper(world, "other", offset=EVERY_MS)
    second, third = await over(room=1_000), await over(room=1_000)
    assert ids(first)[-1] < ids(second)[0], "the place reached was kept"
    assert len(second.claimed) + len(third.claimed) == 251
    assert not third.goes_on


async def test_turn_from_the_future_is_none(world, entries):
    """The server's clock was set back by an hour: nobody waits for that hour."""
    await sweeper(world, "one", offset=3_600_000)(room=50)

    assert len((await sweeper(world, "two")(room=50)).claimed) == 10


async def test_deliveries_are_told_and_not_changed(world, entries, redis):
    stream = world.keys.commands("q")
    await redis.xclaim(stream, GROUP, "dead", 0, [entries[3].id], retrycount=4, justid=True)

    swept = await sweeper(world, "one")(room=50)

    assert [count for _, count in swept.claimed] == [1, 1, 1, 4, 1, 1, 1, 1, 1, 1]
    pending = await redis.xpending_range(stream, GROUP, "-", "+", 50)
    assert [entry["times_delivered"] for entry in pending] == [1, 1, 1, 4, 1, 1, 1, 1, 1, 1]


async def test_entries_that_are_renewed_are_passed_over(world, entries, redis):
    caller = Sweeping(Scripts(world.service.connection), world.keys, consumer="one")
    stream = world.keys.commands("q")

    async def idle():
        pending = await redis.xpending_range(stream, GROUP, "-", "+", 50)
        return min(entry["time_since_delivered"] for entry in pending) > 20

    await wait_until(idle)
    await redis.xclaim(stream, GROUP, "alive", 0, [entries[0].id, entries[9].id], justid=True)

    swept = await caller.sweep(stream, idle_ms=20, room=50, every_ms=1)

    renewed = {entries[0].id, entries[9].id}
    assert set(ids(swept)) >= {entry.id for entry in entries} - renewed
    assert not renewed & set(ids(swept))
