"""Fan-out: `run.map`, and a limit for how much of it is under way at the same time."""

import anyio
import pytest

from askel import App, InvalidOptionError, Run, RunFailedError, StepContext
from askel.workflow.context import Gather

pytestmark = pytest.mark.usefixtures("server")

app = App("fan-out")
under_way: dict[str, int] = {}
most: dict[str, int] = {}


@pytest.fixture(autouse=True)
def nobody_under_way():
    under_way.clear()
    most.clear()


async def output(service, workflow, data=None):
    with anyio.fail_after(240):
        await app.start(service, workflow, data, "r")
    return (await service.get_run("r")).output


@app.step(retries=0)
async def counted(number: int, ctx: StepContext) -> int:
    """Say how many were under way in this run at the same time."""
    now = under_way[ctx.run_id] = under_way.get(ctx.run_id, 0) + 1
    most[ctx.run_id] = max(most.get(ctx.run_id, 0), now)
    await anyio.sleep(0.001 * (number % 3))
    under_way[ctx.run_id] -= 1
    if number < 0:
        raise ValueError(str(number))
    return 2 * number


@app.workflow
async def fans_out(run: Run, limits: list) -> list:
    count, limit = limits
    return await run.map("double", counted, range(count), limit=limit)


@pytest.mark.parametrize(
    ("count", "limit"), [(0, 1), (1, 5), (40, 1), (40, 7), (40, 40), (9, None)]
)
async def test_no_more_than_the_limit_are_under_way(service, count, limit):
    assert await output(service, fans_out, [count, limit]) == [2 * n for n in range(count)]
    assert most.get("r", 0) == min(count, limit or count)


@app.workflow
async def fails(run: Run) -> list:
    return await run.map("double", counted, [1, -2, 3, -4, 5], limit=2)


async def test_with_a_limit_the_others_are_still_begun_and_the_first_failure_is_told(service):
    with pytest.raises(RunFailedError, match="-2"):
        await app.start(service, fails, run_id="r")
    attempts = await service.get_run_history("r")
    assert [attempt.status for attempt in attempts].count("succeeded") == 3
    assert [attempt.status for attempt in attempts].count("failed") == 2


@app.workflow
async def limited_coroutines(run: Run) -> list:
    async def two(number: int) -> int:
        first = await run.do("first", counted, number)
        return await run.do("second", counted, first)

    return await run.gather(*(two(n) for n in range(9)), run.sleep("nap", 0), limit=3)


async def test_a_limit_counts_parts_whatever_they_are_made_of(service):
    assert await output(service, limited_coroutines) == [*(4 * n for n in range(9)), None]
    assert most["r"] <= 3


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_ten_thousand_children(service):
    """Never more than fifty at work; joined once, by one turn that ends the run."""
    with anyio.fail_after(240):
        await app.start(service, fans_out, [10_000, 50], "r")
    run = await service.get_run("r")
    assert run.output == [2 * n for n in range(10_000)]
    assert most["r"] == 50
    history = await service.get_history_entries("r")
    assert sum(entry.status == "succeeded" for entry in history) == 10_000
    assert [entry.status for entry in history if entry.kind == "run"] == ["running", "completed"]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_at_least_one(limit):
    with pytest.raises(InvalidOptionError, match="at least one"):
        Gather((), limit)
