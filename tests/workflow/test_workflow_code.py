"""What workflow code may do, and what it is told when it does something else."""

import asyncio
import time

import anyio
import pytest

from askel import (
    App,
    Run,
    RunFailedError,
    StepFailedError,
    WorkflowCodeError,
)

pytestmark = pytest.mark.usefixtures("server")

app = App("code")
seen: list[str] = []


@pytest.fixture(autouse=True)
def nothing_seen():
    seen.clear()


@app.step(retries=0)
async def note(text: str) -> str:
    seen.append(text)
    return text


@app.step(retries=0)
async def fail() -> None:
    raise ValueError("no")


async def ended(service, workflow, data=None):
    """The error with which the run ends; None when it completes."""
    with anyio.fail_after(10):
        try:
            await app.start(service, workflow, data, "r")
        except RunFailedError as error:
            assert asyncio.current_task().cancelling() == 0
            return error.error
    return None


class Foreign:
    """Something that can be awaited and is no operation of the run."""

    def __await__(self):
        yield "something"


async def sleeps() -> None:
    await asyncio.sleep(0.01)


async def passes() -> None:
    await asyncio.sleep(0)


async def awaits_a_future() -> None:
    await asyncio.get_running_loop().create_future()


async def awaits_something() -> None:
    await Foreign()


async def gathers_of_asyncio() -> None:
    await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))


@app.workflow
async def strange(run: Run, which: str) -> None:
    await run.do("before", note, "before")
    await STRANGE[which]()
    await run.do("after", note, "after")


STRANGE = {
    fn.__name__: fn
    for fn in (sleeps, passes, awaits_a_future, awaits_something, gathers_of_asyncio)
}


@pytest.mark.parametrize("which", STRANGE)
async def test_awaiting_anything_but_the_run_fails_the_run_and_says_what_to_do(service, which):
    error = await ended(service, strange, which)

    assert error.name == "WorkflowCodeError"
    assert error.message == (
        "workflow code awaited something other than run.do, run.sleep, run.wait_signal or "
        "run.gather; move that work into a step"
    )
    assert seen == ["before"]


@app.workflow
async def forgiving(run: Run) -> str:
    try:
        await asyncio.sleep(0.01)
    except WorkflowCodeError:
        return await run.do("after", note, "went on")
    return "not reached"


async def test_code_may_go_on_after_that(service):
    assert await ended(service, forgiving) is None
    assert (await service.get_run("r")).output == "went on"


@app.workflow
async def with_timeout(run: Run) -> None:
    async with asyncio.timeout(0.02):
        await run.sleep("nap", "60ms")


@app.workflow
async def with_anyio_timeout(run: Run) -> None:
    with anyio.move_on_after(0.02):
        await run.sleep("nap", "60ms")


@app.workflow
async def with_task_group(run: Run) -> None:
    async with asyncio.TaskGroup():
        await run.sleep("nap", "1ms")


@app.workflow
async def cancelling(run: Run) -> None:
    asyncio.current_task().cancel()
    await run.sleep("nap", "1ms")


@app.workflow
async def with_anyio_sleep(run: Run) -> None:
    await anyio.sleep(0.01)


@app.workflow
async def with_anyio_group(run: Run) -> None:
    async with anyio.create_task_group():
        await run.sleep("nap", "1ms")


SEIZING = [
    with_timeout,
    with_anyio_timeout,
    with_task_group,
    cancelling,
    with_anyio_sleep,
    with_anyio_group,
]


@pytest.mark.parametrize("workflow", SEIZING)
async def test_tools_that_seize_the_current_task_never_reach_the_drivers(service, workflow):
    error = await ended(service, workflow)

    assert error is not None
    assert (await service.get_run("r")).status == "failed"
    assert await service.get_run_history("r") == []


@app.workflow
async def names(run: Run, name: str) -> None:
    await run.do(name, note, "reached")


@pytest.mark.parametrize("name", ["__x", "a#1", "a[0]", "a:onError", "", "a\n"])
async def test_names_that_the_engine_makes_are_refused(service, name):
    error = await ended(service, names, name)

    assert error.name == "InvalidNameError"
    assert seen == []


@app.workflow
async def napping(run: Run, name: str) -> None:
    await run.sleep(name, 0)


async def test_names_of_sleeps_are_checked_too(service):
    assert (await ended(service, napping, "a#1")).name == "InvalidNameError"


def not_a_step() -> None: ...


@app.workflow
async def unregistered(run: Run) -> None:
    await run.do("x", not_a_step)


async def test_function_that_is_no_step_is_named(service):
    error = await ended(service, unregistered)

    assert error.name == "RegistrationError"
    assert error.message == "'not_a_step' is not a step of app 'code': decorate it with @app.step"


@app.workflow
async def far_away(run: Run) -> None:
    await run.do("x", "elsewhere", 1)


async def test_inline_run_that_needs_a_step_it_lacks_stalls_and_names_it(service):
    error = await ended(service, far_away)

    assert error.name == "RegistrationError"
    assert error.message == "step 'x' needs 'elsewhere', which is not registered in this process"
    assert (await service.get_run("r")).status == "stalled"


@app.workflow
async def cleaning_up(run: Run) -> str:
    try:
        await run.do("try", fail)
    except StepFailedError:
        return await run.do("clean", note, "cleaned")
    finally:
        await run.do("finally", note, "finally")


async def test_steps_in_except_and_finally_are_ordinary_steps(service):
    assert await ended(service, cleaning_up) is None
    assert (await service.get_run("r")).output == "cleaned"
    assert seen == ["cleaned", "finally"]


@app.workflow
async def exits(run: Run) -> None:
    await run.do("note", note, "x")
    raise SystemExit(3)


@app.workflow
async def stops(run: Run) -> None:
    raise StopIteration


@app.workflow
async def cancelled_by_itself(run: Run) -> None:
    raise asyncio.CancelledError


@app.workflow
async def generator_exit(run: Run) -> None:
    raise GeneratorExit


@pytest.mark.parametrize(
    ("workflow", "name"),
    [
        (exits, "SystemExit"),
        (stops, "RuntimeError"),
        (cancelled_by_itself, "CancelledError"),
        (generator_exit, "GeneratorExit"),
    ],
)
async def test_whatever_workflow_code_raises_fails_the_run(service, workflow, name):
    assert (await ended(service, workflow)).name == name


@app.workflow
async def unjson(run: Run) -> str:
    try:
        await run.do("x", note, object())
    except Exception as error:  # noqa: BLE001 - the test asks which it is
        return type(error).__name__
    return "not reached"


async def test_data_that_json_cannot_carry_is_refused_where_it_is_given(service):
    assert await ended(service, unjson) is None
    assert (await service.get_run("r")).output == "PayloadError"
    assert await service.get_run_history("r") == []


@app.step(retries=0)
async def lies() -> int:
    return "seven"


@app.workflow
async def deceived(run: Run) -> int:
    return await run.do("x", lies)


async def test_result_that_is_not_what_the_step_promised_is_an_error_in_the_workflow(service):
    assert (await ended(service, deceived)).name == "PayloadError"
    assert (await service.get_step_state("r", "x")).status == "succeeded"


@app.workflow
async def many(run: Run, count: int) -> int:
    for _ in range(count):
        await run.do("n", note, "n")
    return count


async def test_step_costs_one_round_trip(distant, proxy):
    await app.start(distant, many, 5, "one")
    proxy.forget()

    await app.start(distant, many, 40, "two")

    # create, adopt, the run's last read; a first look at the clock; and a turn a step, and one more
    assert proxy.names.count("EVALSHA") <= 40 + 5


async def test_steps_are_not_slower_the_more_there_were(service):
    await app.start(service, many, 3, "warm")
    took = []
    for count in (100, 400):
        begun = time.perf_counter()
        await app.start(service, many, count, f"r{count}")
        took.append((time.perf_counter() - begun) / count)

    assert took[1] < 4 * took[0]
