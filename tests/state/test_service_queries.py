"""Listing runs and steps: newest first, page by page, from the indexes."""

import asyncio
from datetime import timedelta

import pytest
from tests.helpers.state import snapshot

from askel import InvalidOptionError, RedisWorkflowService

pytestmark = pytest.mark.usefixtures("redis_server")


@pytest.fixture
async def runs(service):
    """Sixty runs of three workflows, many of the same millisecond; every third has failed."""
    ids = await asyncio.gather(
        *(
            service.create_run(f"w{number % 3}", number, run_id=f"r{number:02}")
            for number in range(60)
        )
    )
    for run_id in ids[::3]:
        await service.update_run_status(run_id, "failed")
    return ids


async def every_page(service, limit, **given):
    """All pages' run ids, one list a page."""
    pages, cursor = [], None
    while True:
        page = await service.list_runs(limit=limit, cursor=cursor, **given)
        pages.append([run.id for run in page.runs])
        cursor = page.cursor
        if cursor is None:
            return pages


async def test_runs_are_listed_newest_first(service, runs):
    page = await service.list_runs(limit=100)

    assert sorted(run.id for run in page.runs) == sorted(runs)
    order = [(run.created_at, run.id) for run in page.runs]
    assert order == sorted(order, reverse=True)
    assert (page.cursor, page.unreadable) == (None, [])


@pytest.mark.parametrize("limit", [1, 7, 20, 59, 60, 61])
async def test_pages_hold_every_run_once_in_the_same_order(service, runs, limit):
    whole = [run.id for run in (await service.list_runs(limit=100)).runs]

    pages = await every_page(service, limit)

    assert [run_id for page in pages for run_id in page] == whole
    assert all(len(page) == limit for page in pages[:-1])


async def test_runs_are_chosen_by_workflow_and_status(service, runs):
    def chosen(page):
        return sorted(run.id for run in page.runs)

    assert chosen(await service.list_runs(workflow_name="w1", limit=100)) == sorted(runs[1::3])
    assert chosen(await service.list_runs(status="failed", limit=100)) == sorted(runs[::3])
    assert chosen(await service.list_runs(status="failed", workflow_name="w0")) == sorted(runs[::3])
    assert chosen(await service.list_runs(status="failed", workflow_name="w1")) == []
    assert chosen(await service.list_runs(workflow_name="nothing")) == []
    assert chosen(await service.list_runs(status="completed")) == []


async def test_filtered_pages_hold_every_run_once(service, runs):
    pages = await every_page(service, 4, status="running", workflow_name="w1")

    assert sorted(run_id for page in pages for run_id in page) == sorted(runs[1::3])


async def test_runs_are_chosen_by_time(redis_url, prefix, service):
    await service.create_run("w", run_id="now")
    hour = 3_600_000
    async with RedisWorkflowService(redis_url, key_prefix=prefix, clock_offset_ms=hour) as later:
        await later.create_run("w", run_id="later")
    now, then = [(await service.get_run(run_id)).created_at for run_id in ("now", "later")]

    async def ids(**given):
        return [run.id for run in (await service.list_runs(**given)).runs]

    assert await ids() == ["later", "now"]
    assert await ids(since=then) == ["later"]
    assert await ids(until=then) == ["now"]
    assert await ids(since=now, until=then + timedelta(milliseconds=1)) == ["later", "now"]
    assert await ids(until=now) == []


async def test_new_runs_do_not_shift_the_pages(service, runs):
    first = await service.list_runs(limit=10)
    await service.create_run("w0", run_id="newcomer")
    second = await service.list_runs(limit=10, cursor=first.cursor)

    assert not {run.id for run in first.runs} & {run.id for run in second.runs}
    assert "newcomer" not in {run.id for run in second.runs}


async def test_damaged_run_is_named_and_hides_no_other(service, redis, keys, runs):
    await redis.hset(keys.run(runs[5]), "input", "{not json")
    await redis.hdel(keys.run(runs[7]), "workflow")
    await redis.delete(keys.run(runs[9]))

    page = await service.list_runs(limit=100)

    assert set(page.unreadable) == {runs[5], runs[7]}
    assert {run.id for run in page.runs} == set(runs) - {runs[5], runs[7], runs[9]}


@pytest.mark.parametrize(
    "given",
    [
        {"limit": 0},
        {"limit": -1},
        {"limit": 1_001},
        {"status": "done"},
        {"cursor": "x"},
        {"cursor": "5:"},
    ],
)
async def test_what_makes_no_sense_is_refused(service, given):
    with pytest.raises(InvalidOptionError):
        await service.list_runs(**given)


async def test_steps_are_listed_in_order_of_creation(service, redis, prefix):
    await service.create_run("w", run_id="r")
    for name in ("z", "a", "m"):
        await service.insert_step_state("r", name, "f")
    before = await snapshot(redis, prefix)

    steps = await service.get_run_steps("r")

    assert [step.step_name for step in steps] == ["z", "a", "m"]
    assert steps[1] == await service.get_step_state("r", "a")
    assert await service.get_run_steps("nobody") == []
    assert await snapshot(redis, prefix) == before
