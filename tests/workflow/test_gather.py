"""Side by side: `run.gather` of steps, sleeps, coroutines and gathers."""

import threading

import anyio
import pytest

from askel import App, Run, RunFailedError, StepContext, StepFailedError

pytestmark = pytest.mark.usefixtures("server")

app = App("side by side")
meeting: dict[str, anyio.Event] = {}
waiting: dict[str, set[str]] = {}


@pytest.fixture(autouse=True)
def nobody_waits():
    meeting.clear()
    waiting.clear()


@app.step(retries=0)
async def double(number: int) -> int:
    return 2 * number


@app.step(retries=0)
async def fail(why: str) -> None:
    raise ValueError(why)


@app.step(retries=0)
async def meet(count: int, ctx: StepContext) -> str:
    """Return when so many attempts of the run are here at the same time."""
    here = waiting.setdefault(ctx.run_id, set())
    here.add(ctx.step_name)
    event = meeting.setdefault(ctx.run_id, anyio.Event())
    if len(here) == count:
        event.set()
    await event.wait()
    return ctx.step_name


barrier = threading.Barrier(3)


@app.step(retries=0, timeout="5s")
def meet_in_threads() -> int:
    return barrier.wait(5)


@app.step(retries=1, retry_delay=0)
async def fails_first(count: int, ctx: StepContext) -> int:
    if ctx.attempt == 1:
        await meet(count, ctx)
        raise ConnectionError("first")
    return ctx.attempt


async def output(service, workflow, data=None):
    with anyio.fail_after(30):
        await app.start(service, workflow, data, "r")
    return (await service.get_run("r")).output


@app.workflow
async def together(run: Run) -> list[str]:
    return await run.gather(*(run.do(name, meet, 3) for name in ("a", "b", "c")))


async def test_parts_are_executed_at_the_same_time(service):
    assert await output(service, together) == ["a", "b", "c"]


@app.workflow
async def in_threads(run: Run) -> list[int]:
    return await run.gather(*(run.do(f"t{number}", meet_in_threads) for number in range(3)))


async def test_plain_functions_are_executed_at_the_same_time_too(service):
    barrier.reset()
    assert sorted(await output(service, in_threads)) == [0, 1, 2]


async def chain(run: Run, name: str, number: int) -> int:
    first = await run.do(f"{name}-1", double, number)
    return await run.do(f"{name}-2", double, first)


@app.workflow
async def chains(run: Run) -> list[int]:
    return await run.gather(chain(run, "a", 1), run.do("b", double, 10), chain(run, "c", 100))


async def test_parts_may_be_coroutines_made_of_steps(service):
    assert await output(service, chains) == [4, 20, 400]
    names = {a.step_name for a in await service.get_run_history("r")}
    assert names == {"a-1", "a-2", "b", "c-1", "c-2"}


@app.workflow
async def nested(run: Run) -> list:
    async def pair(number: int) -> list[int]:
        return await run.gather(run.do("x", double, number), run.do("y", double, -number))

    return await run.gather(
        run.gather(pair(1), run.do("z", double, 5)), pair(2), run.sleep("nap", 0)
    )


async def test_gathers_may_be_nested(service):
    assert await output(service, nested) == [[[2, -2], 10], [4, -4], None]


@app.workflow
async def some_fail(run: Run) -> str:
    async def later() -> None:
        await run.do("good", double, 1)
        await run.do("bad", fail, "second")

    try:
        await run.gather(run.do("slow", double, 1), later(), run.do("worse", fail, "third"))
    except StepFailedError as error:
        return error.step_name
    return "not reached"


async def test_all_parts_end_and_the_first_failure_in_their_order_is_raised(service):
    assert await output(service, some_fail) == "bad"

    outcomes = {a.step_name: str(a.status) for a in await service.get_run_history("r")}
    assert outcomes == {
        "slow": "succeeded",
        "good": "succeeded",
        "bad": "failed",
        "worse": "failed",
    }


@app.workflow
async def each_for_itself(run: Run) -> list[str]:
    async def safe(number: int) -> str:
        try:
            await run.do(
                f"s{number}", fail if number % 2 else double, f"{number}" if number % 2 else number
            )
        except StepFailedError as error:
            return error.error.message
        return "fine"

    return await run.gather(*(safe(number) for number in range(4)))


async def test_part_may_handle_its_own_failure(service):
    assert await output(service, each_for_itself) == ["fine", "1", "fine", "3"]


@app.workflow
async def wide(run: Run, width: int) -> int:
    return sum(await run.gather(*(run.do("n", double, number) for number in range(width))))


@pytest.mark.parametrize("width", [1, 200, 201, 700])
async def test_fan_out_may_be_wider_than_one_turn(service, width):
    assert await output(service, wide, width) == width * (width - 1)

    history = await service.get_run_history("r")
    assert [a.step_name for a in history] == ["n", *(f"n#{number}" for number in range(1, width))]
    assert {str(a.status) for a in history} == {"succeeded"}


@app.workflow
async def all_fail_first(run: Run, width: int) -> int:
    return sum(await run.gather(*(run.do("n", fails_first, width) for _ in range(width))))


async def test_all_parts_may_fail_at_once_and_be_tried_again(service):
    width = 450

    assert await output(service, all_fail_first, width) == 2 * width
    history = await service.get_run_history("r")
    assert [a.attempt_count for a in history].count(1) == width
    assert [a.attempt_count for a in history].count(2) == width


@app.workflow
async def one_object_twice(run: Run) -> list[int]:
    call = run.do("n", double, 4)
    return await run.gather(call, call, call)


async def test_same_operation_awaited_again_is_another_step(service):
    assert await output(service, one_object_twice) == [8, 8, 8]
    assert [a.step_name for a in await service.get_run_history("r")] == ["n", "n#1", "n#2"]


@app.workflow
async def of_nothing(run: Run) -> None:
    await run.gather()


@app.workflow
async def of_something_else(run: Run) -> None:
    await run.gather(run.do("n", double, 1), 7)


@pytest.mark.parametrize(
    ("workflow", "name", "message"),
    [
        (of_nothing, "InvalidOptionError", "at least one part"),
        (of_something_else, "WorkflowCodeError", "takes what run offers"),
    ],
)
async def test_gather_of_what_it_cannot_run_fails_at_once(service, workflow, name, message):
    with pytest.raises(RunFailedError, match=message) as caught:
        await app.start(service, workflow, run_id="r")
    assert caught.value.error.name == name
    assert await service.get_run_history("r") == []
