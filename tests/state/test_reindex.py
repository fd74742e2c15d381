"""Reindexing: whatever others wrote or left, the indexes agree with the hashes afterwards."""

import asyncio
import random

import pytest
from tests.helpers.keys import sync_client
from tests.helpers.state import keys_of_run, snapshot

from askel import RedisWorkflowService, ReindexReport
from askel.state.reindex import sorted_by_kind

pytestmark = pytest.mark.usefixtures("redis_server")

NOW = 1_700_000_000_000


async def foreign_run(redis, keys, run_id, *, status="running", steps=(), created=NOW, **fields):
    """Write a run as the Node service does: hashes, and nothing else."""
    mapping = {
        "id": run_id,
        "workflow": "node",
        "status": status,
        "input": "{}",
        "inline": "false",
        "createdAt": created,
        "updatedAt": created + 5,
        **fields,
    }
    await redis.hset(keys.run(run_id), mapping=mapping)
    for number, name in enumerate(steps):
        step_id = f"{run_id}:{name}:{NOW + number}"
        step = {
            "stepId": step_id,
            "status": "pending",
            "data": "1",
            "attemptCount": 1,
            "createdAt": created + number,
            "updatedAt": created,
        }
        await redis.hset(keys.step(run_id, name), mapping=step)
        await redis.zadd(f"{keys.prefix}:step-history:{step_id}", {'{"attemptCount":1}': 1})


async def own_runs(service, count=4):
    for number in range(count):
        run_id = f"own{number}"
        await service.create_run(f"w{number % 2}", number, run_id=run_id)
        await service.insert_step_state(run_id, "a:b", "f")
        await service.update_run_state(run_id, "v", 1)
        if number % 2:
            await service.update_run_status(run_id, "completed", output=1)


async def indexes(redis, keys):
    """Every index with its entries, but what retention and deletion remember."""
    found = {}
    async for key in redis.scan_iter(match=f"{keys.prefix}:runs*"):
        if await redis.type(key) == b"zset" and not key.endswith(b":deleted"):
            found[key] = await redis.zrange(key, 0, -1, withscores=True)
    return found


async def test_second_pass_and_a_pass_over_what_is_right_repair_nothing(service, redis, prefix):
    await own_runs(service)
    before = await snapshot(redis, prefix)

    assert await service.reindex() == ReindexReport(runs=4)
    assert await snapshot(redis, prefix) == before


async def test_runs_that_others_wrote_are_indexed_and_their_steps_named(service, redis, keys):
    await own_runs(service)
    await foreign_run(redis, keys, "n1", steps=["z", "a:b", "step", ":step:x", "ä"])
    await foreign_run(redis, keys, "n2", status="completed", created=NOW + 1)

    report = await service.reindex()

    assert report == ReindexReport(runs=6, indexed=2, steps=5)
    page = await service.list_runs(workflow_name="node")
    assert [run.id for run in page.runs] == ["n2", "n1"]
    page = await service.list_runs(workflow_name="node", status="completed")
    assert [run.id for run in page.runs] == ["n2"]
    names = [step.step_name for step in await service.get_run_steps("n1")]
    assert names == ["z", "a:b", "step", ":step:x", "ä"]
    assert await redis.zscore(keys.runs_ended("node"), "n2") == NOW + 6
    assert await service.get_distinct_workflow_names() == ["node", "w0", "w1"]
    assert (await service.reindex()).repairs == 0


async def test_lost_indexes_are_rebuilt_as_they_were(service, redis, keys):
    await own_runs(service, 30)
    before = await indexes(redis, keys)
    await redis.delete(*before)

    report = await service.reindex()

    assert (report.runs, report.indexed, report.repairs) == (30, 30, 30)
    assert await indexes(redis, keys) == before


async def test_entries_in_the_wrong_place_are_moved_and_dropped(service, redis, keys):
    await own_runs(service)
    right = await indexes(redis, keys)
    await redis.zadd(keys.runs, {"gone": 1, "own0": 5})
    await redis.zadd(keys.runs_by_status("failed"), {"own0": 5, "gone": 5})
    await redis.zadd(keys.runs_by_workflow("w1"), {"own0": 5})
    await redis.zadd(keys.runs_by_workflow_and_status("w1", "running"), {"own1": 5})
    await redis.zadd(keys.runs_by_status("banana"), {"own1": 5})
    await redis.zadd(keys.runs_by_workflow("nothing"), {"gone": 5})
    await redis.zadd(keys.workflows, {"nothing": 0, "never": 0})
    await redis.zadd(keys.runs_ended("w0"), {"own0": 5, "gone": 5})
    await redis.zrem(keys.runs_ended("w1"), "own1")
    await redis.zrem(keys.runs_by_status("completed"), "own3")

    report = await service.reindex()

    assert (report.indexed, report.moved, report.dropped) == (0, 3, 11)
    after = await indexes(redis, keys)
    # The time at which a run ended is that of its last change, where nothing else tells.
    assert after == right
    assert (await service.reindex()).repairs == 0


async def test_status_that_another_changed_is_followed(service, redis, keys):
    await own_runs(service)
    await redis.hset(keys.run("own0"), mapping={"status": "failed", "updatedAt": NOW})
    await redis.hset(keys.run("own1"), "status", "running")

    report = await service.reindex()

    assert (report.moved, report.dropped) == (2, 5)
    assert {run.id for run in (await service.list_runs(status="failed")).runs} == {"own0"}
    assert {run.id for run in (await service.list_runs(status="running")).runs} == {"own1", "own2"}
    await service.set_retention(None, max_runs=0)
    assert await service.apply_retention() == 2


async def test_what_is_left_of_runs_that_others_deleted_is_removed(service, redis, keys, prefix):
    await own_runs(service)
    await redis.set(keys.lock("own1"), "somebody", px=60_000)
    await foreign_run(redis, keys, "n", steps=["a", "b"])
    await redis.delete(keys.run("own0"), keys.run("own1"), keys.run("n"))
    await redis.hset(f"{keys.prefix}:step:phantom:", "status", "succeeded")
    await redis.delete(keys.steps("own1"))

    report = await service.reindex()

    for run_id in ("own0", "own1", "n", "phantom"):
        assert await keys_of_run(redis, prefix, run_id) == []
    # run-state, history, step, and where there were, steps, a lock, the history of two steps
    assert report.orphans == 4 + 4 + 4 + 1
    assert report.dropped == 9
    assert (await service.reindex()).repairs == 0
    assert [run.id for run in (await service.list_runs()).runs] == ["own3", "own2"]


async def test_steps_that_another_added_stand_where_they_were_made(service, redis, keys):
    await service.create_run("w", run_id="r")
    for name in ("first", "last"):
        await service.insert_step_state("r", name, "f")
    await redis.hset(keys.step("r", "last"), "createdAt", NOW * 2 + 10)
    for name, at in {"third": NOW * 2 + 5, "second": NOW * 2, "end": NOW * 3}.items():
        fields = {"stepId": f"r:{name}:1", "status": "pending", "createdAt": at, "updatedAt": at}
        await redis.hset(keys.step("r", name), mapping=fields)

    assert (await service.reindex()).steps == 3
    names = [step.step_name for step in await service.get_run_steps("r")]
    assert names == ["first", "second", "third", "last", "end"]


async def test_damaged_runs_are_named_and_listed_as_such(service, redis, keys):
    await foreign_run(redis, keys, "status", status="banana")
    await foreign_run(redis, keys, "time", createdAt="soon")
    await foreign_run(redis, keys, "id", id="other")
    await redis.hset(keys.run("half"), "status", "failed")
    await redis.set(keys.run("text"), "x")
    await foreign_run(redis, keys, "fine", steps=["a"])
    await redis.hset(keys.step("fine", "phantom"), "status", "succeeded")
    await redis.set(keys.steps("fine"), "not a list")

    report = await service.reindex()

    assert sorted(report.unreadable) == ["fine", "half", "id", "status", "text", "time"]
    page = await service.list_runs()
    assert [run.id for run in page.runs] == ["fine"]
    assert sorted(page.unreadable) == ["half", "id", "status", "text", "time"]
    assert (await service.reindex()).repairs == 0


async def test_dry_run_writes_nothing_and_foresees_the_repairs(service, redis, keys, prefix):
    await own_runs(service, 8)
    await foreign_run(redis, keys, "n1", steps=["a", "b"])
    await foreign_run(redis, keys, "n2", steps=["a"])
    await redis.delete(keys.run("n2"), keys.run("own0"))
    await redis.zadd(keys.runs_by_status("failed"), {"own3": 5})
    await redis.zrem(keys.runs_by_status("completed"), "own5")
    before = await snapshot(redis, prefix)

    foreseen = await service.reindex(dry_run=True)

    assert await snapshot(redis, prefix) == before
    done = await service.reindex()
    assert foreseen.dry_run
    foreseen.dry_run = False
    assert foreseen == done
    assert done.repairs == 1 + 1 + 5 + 2 + 6


@pytest.mark.allow_keys(r".*")
async def test_other_prefixes_are_left_alone(redis_url, redis, prefix):
    """K2, K5: neither a longer prefix nor a key of somebody's is looked at."""
    others = [f"{prefix}2", f"{prefix}:x", f"{prefix}.", f"x{prefix}", f"{{{prefix[:50]}}}"]
    for other in others:
        async with RedisWorkflowService(redis_url, key_prefix=other) as service:
            await own_runs(service)
            await redis.delete(service.keys.run("own0"), service.keys.runs)
    foreign = {f"{prefix}:mine:r": "x", f"{prefix}:history": "x", f"{prefix}:run:a:b": "x"}
    await redis.mset({**foreign, f"{prefix}:step:own9": "x", prefix: "x"})
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as service:
        await own_runs(service)
        before = {key: value async for key, value in dump_all(redis)}

        assert await service.reindex() == ReindexReport(runs=4)

    assert {key: value async for key, value in dump_all(redis)} == before


async def dump_all(redis):
    async for key in redis.scan_iter(count=1_000):
        yield key, await redis.dump(key)


async def test_prefix_of_a_cluster_is_no_pattern(redis_url, redis, prefix):
    tagged = f"{{{prefix[:60]}}}"
    async with RedisWorkflowService(redis_url, key_prefix=tagged) as service:
        await own_runs(service)
        await redis.delete(service.keys.runs)
        assert (await service.reindex()).indexed == 4
        for run_id in range(4):
            await service.delete_run(f"own{run_id}", force=True)
        await redis.delete(*[key async for key in redis.scan_iter(match=f"{tagged}:*")])


@pytest.mark.parametrize("seed", range(3))
async def test_reindexing_beside_writers_harms_nothing(service, redis, keys, prefix, seed):
    chance = random.Random(seed)
    await own_runs(service, 40)
    for number in range(20):
        await foreign_run(redis, keys, f"n{number}", steps=["a", "b"])
    finished = asyncio.Event()

    async def write(part):
        for number in range(40):
            run_id = f"new{part}-{number}"
            await service.create_run("w9", run_id=run_id)
            step = await service.insert_step_state(run_id, "s", "f")
            await service.set_step_result(step.step_id, 1)
            if chance.random() < 0.7:
                await service.update_run_status(run_id, chance.choice(["completed", "suspended"]))
            if chance.random() < 0.4:
                await service.delete_run(run_id, force=True)

    async def sweep():
        while not finished.is_set():
            await service.reindex()

    sweeping = asyncio.ensure_future(sweep())
    await asyncio.gather(*(write(part) for part in range(4)))
    finished.set()
    await sweeping

    assert (await service.reindex()).repairs == 0
    for run in (await service.list_runs(workflow_name="w9", limit=1_000)).runs:
        assert len(await service.get_run_steps(run.id)) == 1


async def test_progress_is_told_and_batches_are_bounded(service, redis, keys, redis_url):
    with sync_client(redis_url) as client:
        pipe = client.pipeline(transaction=False)
        for number in range(3_000):
            fields = {"id": f"r{number}", "workflow": "w", "status": "running", "createdAt": NOW}
            pipe.hset(keys.run(f"r{number}"), mapping=fields)
        pipe.execute()
    seen = []

    report = await service.reindex(progress=lambda so_far: seen.append(so_far.runs))

    assert (report.runs, report.indexed) == (3_000, 3_000)
    assert len(seen) >= 3
    assert seen == sorted(seen)


def test_keys_are_sorted_by_what_they_are():
    batch = [
        *(
            b"p:run:r",
            b"p:run:r:x",
            b"p:run:",
            b"p:run:-",
            b"p:step:r:a:b",
            b"p:step:r:",
            b"p:step:r",
        ),
        *(
            b"p:history:r",
            b"p:history:r:x",
            b"p:lock:r",
            b"p:step-lock:r:a",
            b"p:meta",
            b"p:version:a:b",
        ),
        *(b"p:step-history:r:a:1", b"p:step-history:r:a", b"p:runs", b"p:runs:status:failed"),
        *(
            b"p:runs:deleted",
            b"p:runs:usage:w",
            b"p:x:run:r",
            b"p:\xff:r",
            b"p:ctl:r",
            b"p:run-state:r",
        ),
    ]

    found = sorted_by_kind("p", batch)

    assert found.runs == ["r"]
    assert found.steps == [("r", "a:b"), ("r", "")]
    left = ["p:history:r", "p:step-history:r:a:1", "p:ctl:r", "p:run-state:r"]
    assert found.leftovers == {"r": left}
    assert found.indexes == ["", "status:failed"]
