"""Time and chance for workflow code: `run.now`, `run.random`, `run.uuid`."""

import threading
from datetime import UTC, datetime, timedelta
from functools import partial

import anyio
import pytest
from tests.helpers.waiting import wait_until

from askel import App, Run, StepContext

pytestmark = pytest.mark.usefixtures("server")

app = App("time and chance")
#: What code was told in each execution of a run, in order.
told: list[list[object]] = []
LIVES = 3
reached = threading.Event()


@pytest.fixture(autouse=True)
def nothing_told():
    told.clear()


@app.step(retries=0)
async def wait(seconds: float) -> None:
    await anyio.sleep(seconds)


@app.workflow
async def asks(run: Run) -> list:
    draws: list[object] = [run.now(), run.random(), run.uuid()]
    told.append(draws)
    await run.do("wait", wait, 0.05)
    draws += [run.now(), run.random(), run.uuid()]
    await run.sleep("nap", "20ms")
    draws += [run.now(), run.random(), run.uuid()]
    return draws


async def test_time_goes_on_with_what_happens(service):
    """It is the server's clock: that of the creation, of a step's end, of a timer."""
    await app.start(service, asks, run_id="r")

    (draws,) = told
    first, second, third = draws[::3]
    run = await service.get_run("r")
    assert first == run.created_at
    assert second - first >= timedelta(milliseconds=50)
    assert third - second >= timedelta(milliseconds=20)
    assert third <= run.updated_at + timedelta(milliseconds=5)
    assert abs(third - datetime.now(UTC)) < timedelta(minutes=5)


async def test_chance_is_each_runs_own(service):
    for run_id in ("r", "s"):
        await app.start(service, asks, run_id=run_id)

    one, other = told
    assert all(0 <= number < 1 for number in one[1::3])
    assert {uuid.version for uuid in one[2::3]} == {4}
    assert len({*one[1::3], *one[2::3], *other[1::3], *other[2::3]}) == 12


@app.step(retries=9, retry_delay=0)
async def hang(ctx: StepContext) -> int:
    reached.set()
    if ctx.attempt < LIVES:
        await anyio.sleep_forever()
    return ctx.attempt


@app.workflow
async def is_killed(run: Run) -> int:
    told.append([run.now(), run.random(), run.uuid()])
    await run.do("wait", wait, 0.02)
    told[-1] += [run.now(), run.random(), run.uuid()]
    await run.sleep("nap", "10ms")
    told[-1] += [run.now(), run.random(), run.uuid()]
    attempt = await run.do("hang", hang)
    told[-1].append(run.now())
    return attempt


async def test_whatever_was_told_is_told_again(service):
    """Two processes end in the middle; the third tells the code what the first one did."""
    for go_on in (partial(app.start, service, is_killed), partial(app.resume, service)):
        reached.clear()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(go_on, run_id="r"))
            await wait_until(reached.is_set)
            tasks.cancel_scope.cancel()
    await app.resume(service, "r")

    assert (await service.get_run("r")).output == LIVES
    first, second, third = told
    assert len(first) == 9
    assert first == second == third[:9]
    assert third[9] >= third[6]
