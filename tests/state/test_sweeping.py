"""The turns in which consumers sweep a stream: one at a time, none for longer than an interval."""

import pytest
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
    every = [entry.id for entry in entries]
    await redis.xclaim(stream, GROUP, "dead", 0, every, idle=120_000, justid=True)
    await redis.xclaim(stream, GROUP, "alive", 0, [every[0], every[9]], justid=True)

    swept = await caller.sweep(stream, idle_ms=60_000, room=50, every_ms=1)

    assert ids(swept) == every[1:9]


async def test_a_jump_back_renews_everything_before_anything_is_claimed(world, redis):
    """More than one page of it, at a place that is kept; everybody keeps what he has."""
    stream = world.keys.commands("q")
    for _ in range(450):
        await redis.xadd(stream, {"type": "x"})
    await world.entry("type", "x", queue="q", consumer="dead")
    await redis.xreadgroup(GROUP, "dead", {stream: ">"}, count=200)
    await redis.xreadgroup(GROUP, "alive", {stream: ">"})
    await sweeper(world, "one", offset=3_600_000)(room=1)  # claims the first
    idle = 3_600_000
    for entry in await redis.xpending_range(stream, GROUP, "-", "+", 500):
        await redis.xclaim(
            stream, GROUP, entry["consumer"], 0, [entry["message_id"]], idle=idle, justid=True
        )
    caller = Sweeping(Scripts(world.service.connection), world.keys, consumer="two")

    calls = [await caller.sweep(stream, idle_ms=60_000, room=50, every_ms=1) for _ in range(3)]

    assert [call.goes_on for call in calls] == [True, True, False]
    assert [call.claimed for call in calls] == [(), (), ()]
    pending = await redis.xpending_range(stream, GROUP, "-", "+", 500)
    assert len(pending) == 451
    assert {entry["consumer"] for entry in pending} == {b"dead", b"alive", b"one"}
    assert max(entry["time_since_delivered"] for entry in pending) < 60_000
    assert {entry["times_delivered"] for entry in pending} == {1}


@pytest.mark.parametrize(("ahead_ms", "is_believed"), [(20_000, True), (40_000, False)])
async def test_time_that_the_caller_did_not_see_pass_is_not_believed(
    world, entries, redis, ahead_ms, is_believed
):
    """By more than half of the time that entries may be idle."""
    stream = world.keys.commands("q")
    ids_ = [entry.id for entry in entries]
    await redis.xclaim(stream, GROUP, "dead", 0, ids_, idle=3_600_000, justid=True)
    caller = Sweeping(Scripts(world.service.connection), world.keys, consumer="two")
    seconds, microseconds = await redis.time()
    expected_ms = seconds * 1_000 + microseconds // 1_000 - ahead_ms

    swept = await caller.sweep(stream, idle_ms=60_000, room=50, every_ms=1, expected_ms=expected_ms)

    assert ids(swept) == (ids_ if is_believed else [])
    assert swept.now_ms >= expected_ms + ahead_ms


async def test_what_was_deleted_is_a_dead_letter_after_a_jump_too(world, entries, redis):
    """Renewing it would make it vanish without a word."""
    stream = world.keys.commands("q")
    await redis.xdel(stream, entries[2].id)
    await sweeper(world, "one", offset=3_600_000)(room=1)
    caller = Sweeping(Scripts(world.service.connection), world.keys, consumer="two")
    letters = {fields[b"entry"] for _, fields in await redis.xrange(world.keys.dead)}
    # Redis 7 names it to the first sweep that comes by; from 6.2 on the jump finds what is left.

    await caller.sweep(stream, idle_ms=60_000, room=50, every_ms=1)

    letters |= {fields[b"entry"] for _, fields in await redis.xrange(world.keys.dead)}
    assert letters == {entries[2].id.encode()}
    assert len(await redis.xrange(world.keys.dead)) == 1
    assert len(await redis.xpending_range(stream, GROUP, "-", "+", 50)) == 9
