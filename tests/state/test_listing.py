"""Listing runs: pages stay right while others write, damage hides nothing, cost is the page's."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest
from tests.helpers.state import snapshot

from askel import InvalidNameError, InvalidOptionError, RedisWorkflowService
from askel.state import load_scripts
from askel.state.models import RunStatus

pytestmark = pytest.mark.usefixtures("redis_server")

NOW = 1_700_000_000_000


async def seed(redis, keys, run_ids, *, created=NOW, workflow="w", status="running"):
    """Write runs as askel does, many at a time, all of one millisecond."""
    pipe = redis.pipeline(transaction=False)
    for run_id in run_ids:
        pipe.hset(
            keys.run(run_id),
            mapping={
                "id": run_id,
                "workflow": workflow,
                "status": status,
                "input": "1",
                "createdAt": created,
                "updatedAt": created,
            },
        )
        for index in (
            keys.runs,
            keys.runs_by_status(status),
            keys.runs_by_workflow(workflow),
            keys.runs_by_workflow_and_status(workflow, status),
        ):
            pipe.zadd(index, {run_id: created})
    pipe.zadd(keys.workflows, {workflow: 0})
    await pipe.execute()


async def all_pages(service, limit, between=None, **given):
    """The ids on every page, in order; *between* is awaited after each page."""
    found, cursor = [], None
    while True:
        page = await service.list_runs(limit=limit, cursor=cursor, **given)
        found += [run.id for run in page.runs]
        cursor = page.cursor
        if cursor is None:
            return found
        if between is not None:
            await between(page)


async def calls_of(redis, action):
    """How often each command ran, in scripts too, while *action* was awaited."""
    await redis.config_resetstat()
    await action
    stats = await redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): fields["calls"] for name, fields in stats.items()}


@pytest.mark.parametrize("seed_of", range(8))
async def test_a_run_that_exists_throughout_is_listed_exactly_once(service, redis, keys, seed_of):
    """P2: runs of one millisecond, while others are created, deleted and moved between pages."""
    chance = random.Random(seed_of)
    staying = [f"{chance.choice('aAzZ09')}{n:03}" for n in range(120)]
    leaving = [f"{chance.choice('aAzZ09')}-{n:03}" for n in range(60)]
    await seed(redis, keys, [*staying, *leaving])
    moved = set()

    async def meddle(page):
        await seed(redis, keys, [f"{chance.choice('aAzZ09')}new{chance.random()}"])
        await seed(redis, keys, [f"later{chance.random()}"], created=NOW + chance.randint(-5, 5))
        # The last one of the page, too: the place from which the next one goes on.
        gone = [run.id for run in page.runs if run.id in leaving][-1:]
        gone += chance.sample(leaving, 2)
        for run_id in gone:
            if chance.random() < 0.5:
                await service.delete_run(run_id, force=True)
            elif run_id not in moved and await service.get_run(run_id):
                moved.add(run_id)
                await service.update_run_status(run_id, "completed")

    found = await all_pages(service, chance.randint(1, 17), meddle, status="running")

    assert len(found) == len(set(found))
    assert [run_id for run_id in found if run_id in staying] == sorted(staying, reverse=True)


async def test_the_order_is_that_of_bytes_whatever_the_locale(service, redis, keys):
    ids = ["a", "B", "b", "A", "a.", "a-", "a_", "a0", "Z", "9", "aa", "B-b"]
    await seed(redis, keys, ids)

    async def delete_last(page):
        await service.delete_run(page.runs[-1].id, force=True)

    assert await all_pages(service, 1, delete_last) == sorted(ids, reverse=True)


async def test_cost_of_a_page_is_that_of_its_runs_alone(service, redis, keys):
    """P1: neither other runs, nor foreign keys, nor the depth of the page count."""
    await seed(redis, keys, [f"r{n:05}" for n in range(60)])
    first = await service.list_runs(limit=20)
    alone = await calls_of(redis, service.list_runs(limit=20, cursor=first.cursor))
    await seed(redis, keys, [f"r{n:05}" for n in range(60, 4_000)])
    await seed(redis, keys, [f"old{n:05}" for n in range(1_000)], created=NOW - 1, status="failed")
    await redis.mset({f"foreign:{n}": "x" for n in range(5_000)})
    deep = await service.list_runs(limit=1_000)
    deep = await service.list_runs(limit=1_000, cursor=deep.cursor)
    among = await calls_of(redis, service.list_runs(limit=20, cursor=deep.cursor))
    names = await calls_of(redis, service.get_distinct_workflow_names())
    await redis.delete(*[f"foreign:{n}" for n in range(5_000)])

    assert among == alone
    assert (among["evalsha"], among["hgetall"]) == (1, 20)
    assert "scan" not in among
    assert "keys" not in among
    assert set(names) <= {"zrange", "config|resetstat", "config", "info"}


async def test_place_of_a_run_that_is_gone_is_found_by_halving(service, redis, keys):
    await seed(redis, keys, [f"r{n:05}" for n in range(5_000)])
    page = await service.list_runs(limit=3)
    page = await service.list_runs(limit=1_000, cursor=page.cursor)
    last = page.runs[-1].id
    await service.delete_run(last, force=True)

    calls = await calls_of(redis, service.list_runs(limit=5, cursor=page.cursor))

    assert calls["zrevrange"] <= 16
    following = await service.list_runs(limit=1, cursor=page.cursor)
    assert following.runs[0].id == f"r{int(last[1:]) - 1:05}"


async def test_run_and_workflow_and_status_have_an_index_of_their_own(service, redis, keys):
    await seed(redis, keys, [f"a{n:03}" for n in range(300)], workflow="many")
    await seed(redis, keys, ["b"], workflow="few", created=NOW - 1)

    calls = await calls_of(redis, service.list_runs(workflow_name="few", status="running"))

    assert calls["hgetall"] == 1


async def test_out_of_date_entries_are_passed_over_in_bounded_work(service, redis, keys):
    await redis.zadd(keys.runs, {f"gone{n:05}": NOW for n in range(5_000)})
    await seed(redis, keys, ["here"], created=NOW - 1)

    calls = await calls_of(redis, service.list_runs(limit=10))
    assert calls["hgetall"] <= 1_010
    assert await all_pages(service, 10) == ["here"]
    page = await service.list_runs(limit=10)
    assert (page.runs, page.unreadable) == ([], [])
    assert page.cursor


async def test_listing_writes_nothing(service, redis, keys, prefix):
    await seed(redis, keys, ["a", "b"])
    await redis.zadd(keys.runs, {"gone": NOW})
    await redis.hset(keys.run("b"), "status", "completed")
    before = await snapshot(redis, prefix)

    page = await service.list_runs(status="running")
    await service.list_runs()

    assert [run.id for run in page.runs] == ["a"]
    assert await snapshot(redis, prefix) == before


DAMAGE = {
    "no id": lambda redis, key: redis.hdel(key, "id"),
    "another id": lambda redis, key: redis.hset(key, "id", "other"),
    "no workflow": lambda redis, key: redis.hdel(key, "workflow"),
    "no status": lambda redis, key: redis.hdel(key, "status"),
    "no time": lambda redis, key: redis.hdel(key, "createdAt"),
    "status": lambda redis, key: redis.hset(key, "status", "banana"),
    "time": lambda redis, key: redis.hset(key, "createdAt", "soon"),
    "huge time": lambda redis, key: redis.hset(key, "createdAt", "9" * 30),
    "many digits": lambda redis, key: redis.hset(key, "createdAt", "9" * 5_000),
    "input": lambda redis, key: redis.hset(key, "input", "{not json"),
    "NaN": lambda redis, key: redis.hset(key, "input", "NaN"),
    "deep": lambda redis, key: redis.hset(key, "output", "[" * 100_000),
    "wire": lambda redis, key: redis.hset(key, "wire", "x"),
    "bytes in JSON": lambda redis, key: redis.hset(key, "input", b'"\xff"'),
    "bytes in a name": lambda redis, key: redis.hset(key, "workflow", b"\xff"),
    "bytes in a field": lambda redis, key: redis.hset(key, b"\xff", "1"),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damaged_run_is_named_and_hides_no_other(service, redis, keys, damage):
    """I1: whatever is wrong with one record."""
    await seed(redis, keys, ["a", "b", "c"])
    await DAMAGE[damage](redis, keys.run("b"))

    for given in ({}, {"status": "running"}, {"limit": 1}):
        page = await service.list_runs(**{"limit": 10, **given})
        found, unreadable = [run.id for run in page.runs], [*page.unreadable]
        while page.cursor:
            page = await service.list_runs(**{"limit": 10, **given, "cursor": page.cursor})
            found += [run.id for run in page.runs]
            unreadable += page.unreadable
        assert (found, unreadable) == (["c", "a"], ["b"])


@pytest.mark.allow_keys(r".*:run:.*")
async def test_keys_and_entries_of_another_kind_are_named(service, redis, keys):
    await seed(redis, keys, ["a"])
    await redis.set(keys.run("text"), "x")
    await redis.set(keys.run("").encode() + b"\xff:%", "x")
    scores = {b"\xff:%": NOW + 2, "text": NOW + 1, "half": NOW + 0.5, "inf": "inf", "far": 1e300}
    await redis.zadd(keys.runs, scores)

    found, unreadable, cursor = [], [], None
    while True:
        page = await service.list_runs(limit=1, cursor=cursor)
        found += [run.id for run in page.runs]
        unreadable += page.unreadable
        cursor = page.cursor
        if cursor is None:
            break

    assert (found, unreadable) == (["a"], ["\\xff:%", "text"])


async def test_time_range_is_exact_to_the_microsecond(service, redis, keys):
    for n in range(4):
        await seed(redis, keys, [f"r{n}"], created=NOW + n)
    start = datetime.fromtimestamp(NOW / 1_000, UTC)
    half, one = timedelta(microseconds=500), timedelta(milliseconds=1)

    async def ids(**given):
        return [run.id for run in (await service.list_runs(**given)).runs]

    assert await ids(since=start + one) == ["r3", "r2", "r1"]
    assert await ids(since=start + half) == ["r3", "r2", "r1"]
    assert await ids(until=start + one) == ["r0"]
    assert await ids(until=start + one + half) == ["r1", "r0"]
    assert await ids(since=start + one, until=start + one) == []
    assert await all_pages(service, 1, since=start + one, until=start + 3 * one) == ["r2", "r1"]


async def test_large_runs_make_short_pages_that_go_on(service, redis, keys):
    await seed(redis, keys, [f"r{n}" for n in range(6)])
    for n in range(6):
        await redis.hset(keys.run(f"r{n}"), "input", '"' + "x" * 3_000_000 + '"')

    page = await service.list_runs(limit=6)

    assert 0 < len(page.runs) < 6
    assert await all_pages(service, 6) == [f"r{n}" for n in range(5, -1, -1)]


@pytest.mark.parametrize(
    "given",
    [
        {"limit": True},
        {"limit": 2.0},
        {"limit": "5"},
        {"since": datetime(2026, 1, 1)},  # noqa: DTZ001 - what is refused
        {"until": 5},
        {"cursor": "5"},
        {"cursor": "(5:r"},
        {"cursor": "nan:r"},
        {"cursor": 5},
        {"workflow_name": ""},
    ],
)
async def test_what_makes_no_sense_is_refused(service, given):
    with pytest.raises((InvalidOptionError, InvalidNameError)):
        await service.list_runs(**given)


async def test_names_of_workflows_go_with_their_last_run(service, redis, keys):
    for number, name in enumerate(["b", "a", "b", "ä:x"]):
        await service.create_run(name, run_id=f"r{number}")
    assert await service.get_distinct_workflow_names() == ["a", "b", "ä:x"]

    await service.delete_run("r0", force=True)
    assert await service.get_distinct_workflow_names() == ["a", "b", "ä:x"]
    await service.delete_run("r2", force=True)
    await service.delete_run("r3", force=True)
    assert await service.get_distinct_workflow_names() == ["a"]


@pytest.mark.allow_keys(r"t:.*")
async def test_no_prefix_lists_the_runs_of_another(redis_url, prefix):
    """K5, and K1: an id or a name is never a pattern."""
    services = [
        RedisWorkflowService(redis_url, key_prefix=f"{prefix}{end}") for end in ("", "2", ":x")
    ]
    for number, service in enumerate(services):
        await service.create_run("w", run_id=f"r{number}")
    for number, service in enumerate(services):
        assert [run.id for run in (await service.list_runs()).runs] == [f"r{number}"]
        assert (await service.list_runs(workflow_name="*")).runs == []
        assert await service.get_distinct_workflow_names() == ["w"]
    for number, service in enumerate(services):
        assert await service.delete_run(f"r{number}", force=True)
        await service.close()


async def test_pages_are_read_while_runs_are_created_at_full_speed(service):
    ids = {await service.create_run("w") for _ in range(40)}

    async def create():
        for _ in range(60):
            await service.create_run("w")

    async def read():
        for limit in (1, 3, 7, 1_000):
            found = await all_pages(service, limit)
            assert set(found) >= ids
            assert len(found) == len(set(found))

    await asyncio.gather(create(), read())


def test_scripts_and_records_know_the_same_statuses():
    listed = load_scripts()["list_runs"].body.partition("STATUSES = {")[2].partition("}")[0]
    assert [word.strip(" '") for word in listed.split(",")] == [str(one) for one in RunStatus]
