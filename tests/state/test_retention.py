"""Retention: which ended runs go, which never do, and that all of them goes."""

import asyncio
from datetime import timedelta

import pytest
from tests.helpers.state import keys_of_run, snapshot

from askel import InvalidNameError, InvalidOptionError, RedisWorkflowService, RetentionPolicy

pytestmark = pytest.mark.usefixtures("redis_server")
HOUR_MS = 3_600_000


@pytest.fixture
async def at(redis_url, prefix):
    """Services whose clocks are moved by so many hours."""
    made = {}

    def service(hours):
        if hours not in made:
            made[hours] = RedisWorkflowService(
                redis_url, key_prefix=prefix, clock_offset_ms=int(hours * HOUR_MS)
            )
        return made[hours]

    yield service
    for one in made.values():
        await one.close()


async def end(service, *run_ids, workflow="w", status="completed", size=10):
    for run_id in run_ids:
        await service.create_run(workflow, "x" * size, run_id=run_id)
        await service.insert_step_state(run_id, "s", "f", 1)
        await service.update_run_status(run_id, status)


async def left(service):
    return sorted(run.id for run in (await service.list_runs(limit=1_000)).runs)


async def test_without_a_policy_everything_stays(at, redis, prefix):
    await end(at(-10_000), "a", "b")
    before = await snapshot(redis, prefix)

    assert await at(0).apply_retention() == 0
    assert await at(0).get_retention() == {}
    assert await snapshot(redis, prefix) == before


async def test_runs_expire_after_their_end_and_only_then(at, redis, prefix):
    """D1: whole, with their index entries; those that have not ended never."""
    for status in ("completed", "failed", "cancelled"):
        await end(at(-3), f"old-{status}", status=status)
        await end(at(-1), f"new-{status}", status=status)
    for status in ("running", "suspended", "stalled"):
        await at(-9).create_run("w", run_id=status)
        if status != "running":
            await at(-9).update_run_status(status, status)
    await at(-9).create_run("w", run_id="long")
    await at(-1).update_run_status("long", "completed")
    await at(0).set_retention("w", ttl="2h")

    assert await at(0).apply_retention() == 3
    assert await at(0).apply_retention() == 0

    alive = ["running", "stalled", "suspended"]
    news = ["new-cancelled", "new-completed", "new-failed"]
    assert await left(at(0)) == ["long", *news, *alive]
    for status in ("completed", "failed", "cancelled"):
        assert await keys_of_run(redis, prefix, f"old-{status}") == []
    assert await at(9_999).apply_retention() == 4
    assert await left(at(0)) == sorted(alive)


async def test_last_ended_runs_are_kept_by_count(at):
    for number in range(6):
        await end(at(number - 10), f"r{5 - number}")
    await at(0).create_run("w", run_id="alive")
    await at(0).set_retention("w", max_runs=2)

    assert await at(0).apply_retention() == 4
    assert await left(at(0)) == ["alive", "r0", "r1"]
    await at(0).set_retention("w", max_runs=0)
    assert await at(0).apply_retention() == 2


async def test_last_ended_runs_are_kept_by_bytes(at, redis, keys):
    for number in range(8):
        await end(at(number - 10), f"r{number}", size=10_000)
    await at(0).set_retention("w", max_bytes="40KiB")

    assert await at(0).apply_retention() == 5

    assert await left(at(0)) == ["r5", "r6", "r7"]
    usage = {k: int(v) for k, v in (await redis.hgetall(usage_key(keys))).items() if k[:1] == b"r"}
    assert set(usage) == {b"r5", b"r6", b"r7"}
    assert all(10_000 < size < 16_000 for size in usage.values())
    assert int(await redis.hget(usage_key(keys), ":total")) == sum(usage.values())
    await end(at(0), "large", size=60_000)
    assert await at(0).apply_retention() == 4
    assert await left(at(0)) == []
    assert not await redis.exists(usage_key(keys))


def usage_key(keys, workflow="w"):
    return f"{keys.runs}:usage:{workflow}"


async def test_each_run_is_measured_once_and_a_deletion_is_subtracted(at, redis, keys):
    await at(0).set_retention("w", max_bytes="1GiB")
    await end(at(0), *[f"r{number:03}" for number in range(30)])
    await at(0).apply_retention()
    sizes = await redis.hgetall(usage_key(keys))
    assert len(sizes) == 32

    await redis.config_resetstat()
    await at(0).apply_retention()
    stats = await redis.info("commandstats")
    assert not [name for name in stats if name.startswith("cmdstat_memory")]

    await at(0).delete_run("r003")
    await end(at(0), "new")
    await at(0).apply_retention()
    after = await redis.hgetall(usage_key(keys))
    assert b"r003" not in after
    assert sum(int(v) for k, v in after.items() if k[:1] != b":") == int(after[b":total"])
    assert b"new" in after


async def test_measuring_is_bounded_and_gets_to_the_end(at, redis, keys, monkeypatch):
    """Also of runs that ended earlier than those that were measured (by another clock)."""
    monkeypatch.setattr("askel.state.retention._MEASURED_KEYS", 12)
    monkeypatch.setattr("askel.state.retention._MEASURING_CALLS", 1)
    await at(0).set_retention("w", max_bytes="1GiB")
    await end(at(0), *[f"r{number:03}" for number in range(9)])
    for expected in (2, 4, 6):
        await at(0).apply_retention()
        assert await redis.hlen(usage_key(keys)) == expected + 2
    await end(at(-5), "earlier", "earlier2")
    for _ in range(12):
        await at(0).apply_retention()
    assert await redis.hlen(usage_key(keys)) == 11 + 2


async def test_own_policy_stands_in_place_of_the_default(at):
    for workflow in ("a", "b", "c:d"):
        await end(at(-3), f"{workflow[0]}-old", workflow=workflow)
        await end(at(-1), f"{workflow[0]}-new", workflow=workflow)
    await at(0).set_retention(None, ttl="2h")
    await at(0).set_retention("b", max_runs=5)

    assert await at(0).apply_retention() == 2
    assert await left(at(0)) == ["a-new", "b-new", "b-old", "c-new"]
    assert await at(0).clear_retention("b") is True
    assert await at(0).clear_retention("b") is False
    assert await at(0).apply_retention() == 1


async def test_limit_bounds_a_call_and_no_workflow_starves(at):
    for workflow in ("a", "b", "c"):
        await end(at(-3), *[f"{workflow}{number}" for number in range(4)], workflow=workflow)
    await at(0).set_retention(None, ttl="1h")

    assert await at(0).apply_retention(limit=4) == 4
    assert await at(0).apply_retention(limit=4) == 4
    assert {run_id[0] for run_id in await left(at(0))} in ({"a"}, {"b"}, {"c"})
    assert await at(0).apply_retention(limit=3) == 3
    assert await at(0).apply_retention(limit=3) == 1
    for limit in (0, -1, 10_001, "5"):
        with pytest.raises(InvalidOptionError):
            await at(0).apply_retention(limit=limit)


async def test_many_may_apply_it_at_once(at):
    await end(at(-3), *[f"r{number}" for number in range(40)])
    await at(0).set_retention(None, max_runs=10)

    counts = await asyncio.gather(*(at(n / 1_000).apply_retention() for n in range(6)))

    assert sum(counts) == 30
    assert len(await left(at(0))) == 10


async def test_entries_that_are_out_of_date_do_not_stand_in_the_way(at, redis, keys):
    """A run that others deleted, or took up again, or whose key is damaged."""
    await end(at(-3), "gone", "again", "text", "fine")
    await redis.delete(keys.run("gone"))
    await redis.hset(keys.run("again"), "status", "running")
    await redis.delete(keys.run("text"))
    await redis.set(keys.run("text"), "x")
    await redis.zadd(keys.runs_ended("w"), {b"\xff": 5, "not an id": 6})
    await at(0).set_retention("w", ttl="1h")

    assert await at(0).apply_retention(limit=6) == 1

    # What is damaged is nobody's to delete: it stays, to be seen in listings.
    assert await redis.zrange(keys.runs_ended("w"), 0, -1) == [b"text"]
    assert (await at(0).list_runs()).unreadable == ["text"]
    assert await at(0).apply_retention() == 0
    await at(0).delete_run("text", force=True)


async def test_locked_run_is_left_for_the_next_time(at, redis, keys):
    await end(at(-3), "r")
    await at(0).set_retention("w", ttl="1h")
    await redis.set(keys.lock("r"), "somebody", px=60_000)

    assert await at(0).apply_retention() == 0
    await redis.delete(keys.lock("r"))
    assert await at(0).apply_retention() == 1


async def test_policies_are_read_as_they_were_set(at, redis, keys):
    service = at(0)
    await service.set_retention(None, ttl=timedelta(days=30))
    await service.set_retention("w", ttl="90s", max_runs=5, max_bytes=1_000)
    await service.set_retention("w", max_runs=0)
    await service.set_retention("ä b:c", max_bytes="2MiB")

    assert await service.get_retention() == {
        None: RetentionPolicy(ttl=timedelta(days=30)),
        "w": RetentionPolicy(max_runs=0),
        "ä b:c": RetentionPolicy(max_bytes=2 * 1024 * 1024),
    }


async def test_damaged_policy_deletes_nothing_and_stops_no_other(at, redis, keys):
    await end(at(-3), "a", workflow="a")
    await end(at(-3), "b", workflow="b")
    await at(0).set_retention(None, ttl="1h")
    await redis.hset(keys.retention, "a", '{"ttlMs":"soon"}')

    assert await at(0).apply_retention() == 1
    assert await left(at(0)) == ["a"]
    with pytest.raises(InvalidOptionError, match="'a' in Redis is damaged"):
        await at(0).get_retention()


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("w", {}),
        ("w", {"ttl": "soon"}),
        ("w", {"ttl": -1}),
        ("w", {"max_runs": -1}),
        ("w", {"max_runs": True}),
        ("w", {"max_runs": 1.5}),
        ("w", {"max_bytes": "1XB"}),
        ("w", {"max_bytes": -1}),
        ("*", {"max_runs": 1}),
        ("", {"max_runs": 1}),
    ],
)
async def test_what_makes_no_sense_is_refused(at, redis, prefix, name, bounds):
    with pytest.raises((InvalidOptionError, InvalidNameError)):
        await at(0).set_retention(name, **bounds)
    assert await snapshot(redis, prefix) == {}


async def test_cost_of_a_round_does_not_grow_with_runs_or_foreign_keys(at, redis):
    async def calls():
        await redis.config_resetstat()
        assert await at(0).apply_retention() == 0
        stats = await redis.info("commandstats")
        return {name: fields["calls"] for name, fields in stats.items()}

    await end(at(0), "r0")
    await at(0).set_retention(None, ttl="1h", max_runs=1_000)
    await calls()
    few = await calls()
    await end(at(0), *[f"r{number}" for number in range(1, 80)])
    await redis.mset({f"foreign:{n}": "x" for n in range(1_000)})
    many = await calls()
    await redis.delete(*[f"foreign:{n}" for n in range(1_000)])

    assert many == few


async def test_locked_runs_at_the_front_stand_in_no_way(at, redis, keys):
    """With a limit that they alone would fill, the runs behind them go all the same."""
    for number in range(6):
        await end(at(number - 10), f"r{number}")
    await at(0).set_retention("w", max_runs=0)
    for run_id in ("r0", "r1"):
        await redis.set(keys.lock(run_id), "somebody", px=60_000)

    assert await at(0).apply_retention(limit=2) == 2
    assert await at(0).apply_retention(limit=2) == 2
    assert await left(at(0)) == ["r0", "r1"]
