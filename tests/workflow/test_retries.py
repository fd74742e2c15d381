"""Retries, timeouts and permanent failures of steps."""

import threading
from collections import Counter

import anyio
import pytest

from askel import App, InvalidOptionError, Run, RunFailedError, StepContext, StepFailedError
from askel.workflow import DEFAULT_RETRIES, RetryPolicy

pytestmark = pytest.mark.usefixtures("server")

app = App("retries")
calls: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def fresh_counter():
    calls.clear()


@app.step(retries=2, retry_delay="20ms")
async def flaky(succeeds_at: int, ctx: StepContext) -> int:
    calls[ctx.run_id] += 1
    if ctx.attempt < succeeds_at:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return ctx.attempt


@app.step(retries=0)
async def once(ctx: StepContext) -> None:
    calls[ctx.run_id] += 1
    raise ValueError("once")


@app.step(retries=3, retry_delay=0)
async def hasty(ctx: StepContext) -> int:
    if ctx.attempt < 4:
        raise ValueError("again")
    return ctx.attempt


@app.step(retries=5, retry_delay=0)
async def unserialisable(ctx: StepContext) -> object:
    calls[ctx.run_id] += 1
    return object()


@app.step(retries=5, retry_delay=0)
async def picky(number: int, ctx: StepContext) -> None:
    calls[ctx.run_id] += 1


@app.step(retries=1, retry_delay=0, timeout="30ms")
async def slow(ctx: StepContext) -> str:
    calls[ctx.run_id] += 1
    if ctx.attempt == 1:
        await anyio.sleep(30)
    return "in time"


released = threading.Event()


@app.step(retries=0, timeout="30ms")
def slow_thread() -> None:
    released.wait(10)


@app.workflow
async def do_flaky(run: Run, succeeds_at: int) -> int:
    return await run.do("flaky", flaky, succeeds_at)


def outcomes(history):
    return [(a.attempt_count, a.status, a.error and a.error.message) for a in history]


async def test_failed_attempt_is_followed_by_another(service):
    await app.start(service, do_flaky, 3, "r")

    assert (await service.get_run("r")).output == 3
    history = await service.get_run_history("r")
    assert outcomes(history) == [
        (1, "failed", "attempt 1"),
        (2, "failed", "attempt 2"),
        (3, "succeeded", None),
    ]
    assert calls["r"] == 3


async def test_delay_passes_between_attempts(service):
    await app.start(service, do_flaky, 3, "r")

    one, two, three = await service.get_run_history("r")
    assert (two.running_at - one.failed_at).total_seconds() >= 0.02
    assert (three.running_at - two.failed_at).total_seconds() >= 0.02


async def test_last_failure_is_final_and_reaches_the_workflow(service):
    with pytest.raises(RunFailedError, match="step 'flaky' failed: attempt 3"):
        await app.start(service, do_flaky, 9, "r")

    assert outcomes(await service.get_run_history("r")) == [
        (number, "failed", f"attempt {number}") for number in (1, 2, 3)
    ]
    step = await service.get_step_state("r", "flaky")
    assert (step.status, step.attempt_count, step.retries, step.retry_delay) == (
        "failed",
        3,
        2,
        "20ms",
    )


@app.workflow
async def do_once(run: Run) -> None:
    await run.do("once", once)


async def test_zero_retries_mean_exactly_one_attempt(service):
    with pytest.raises(RunFailedError):
        await app.start(service, do_once, run_id="r")
    assert calls["r"] == 1


@app.workflow
async def do_hasty(run: Run) -> int:
    return await run.do("hasty", hasty)


async def test_no_delay_means_at_once(service):
    await app.start(service, do_hasty, run_id="r")

    assert (await service.get_run("r")).output == 4
    history = await service.get_run_history("r")
    assert [a.status for a in history] == ["failed", "failed", "failed", "succeeded"]
    assert [a.attempt_count for a in history] == [1, 2, 3, 4]


@app.workflow
async def overridden(run: Run, given: dict) -> None:
    await run.do("flaky", flaky, 9, **given)


@pytest.mark.parametrize(
    ("given", "attempts"),
    [({"retries": 0}, 1), ({"retries": 4, "retry_delay": "1ms"}, 5), ({"retry_delay": 0}, 3)],
)
async def test_workflow_may_say_otherwise_for_one_use(service, given, attempts):
    with pytest.raises(RunFailedError):
        await app.start(service, overridden, given, "r")
    assert calls["r"] == attempts


@app.workflow
async def misused(run: Run, given: dict) -> None:
    await run.do("flaky", flaky, 1, **given)


@pytest.mark.parametrize(
    "given", [{"retries": -1}, {"retries": True}, {"retry_delay": "soon"}, {"timeout": "x"}]
)
async def test_option_that_makes_no_sense_fails_before_anything_is_done(service, given):
    with pytest.raises(RunFailedError) as caught:
        await app.start(service, misused, given, "r")
    assert caught.value.error.name == "InvalidOptionError"
    assert calls["r"] == 0


@app.workflow
async def do_unserialisable(run: Run) -> str:
    try:
        await run.do("odd", unserialisable)
    except StepFailedError as error:
        return error.error.name
    return "not reached"


async def test_result_that_json_cannot_carry_is_not_tried_again(service):
    await app.start(service, do_unserialisable, run_id="r")

    assert (await service.get_run("r")).output == "PayloadError"
    assert calls["r"] == 1


@app.workflow
async def do_picky(run: Run) -> str:
    try:
        await run.do("picky", picky, "seven")
    except StepFailedError as error:
        return error.error.message
    return "not reached"


async def test_data_that_does_not_fit_is_not_tried_again(service):
    await app.start(service, do_picky, run_id="r")

    assert "Expected `int`, got `str`" in (await service.get_run("r")).output
    assert calls["r"] == 0
    assert len(await service.get_run_history("r")) == 1


@app.workflow
async def do_slow(run: Run) -> str:
    return await run.do("slow", slow)


async def test_attempt_that_takes_too_long_is_cancelled_and_tried_again(service):
    await app.start(service, do_slow, run_id="r")

    assert outcomes(await service.get_run_history("r")) == [
        (1, "failed", "the attempt took longer than 30ms"), (2, "succeeded", None)
    ]  # fmt: skip
    assert (await service.get_run_history("r"))[0].error.name == "TimeoutError"


@app.workflow
async def do_slow_thread(run: Run) -> str:
    try:
        await run.do("slow", slow_thread)
    except StepFailedError as error:
        return error.error.message
    return "not reached"


async def test_thread_that_takes_too_long_is_abandoned(service):
    released.clear()
    with anyio.fail_after(5):
        await app.start(service, do_slow_thread, run_id="r")
    released.set()

    assert (await service.get_run("r")).output == "the attempt took longer than 30ms"


@app.workflow
async def flaky_pair(run: Run) -> list[int]:
    return await run.gather(run.do("a", flaky, 2), run.do("b", flaky, 3), run.do("c", flaky, 1))


async def test_steps_side_by_side_are_retried_each_by_itself(service):
    await app.start(service, flaky_pair, run_id="r")

    assert (await service.get_run("r")).output == [2, 3, 1]
    numbers = Counter(a.step_name for a in await service.get_run_history("r"))
    assert numbers == {"a": 2, "b": 3, "c": 1}


# The policy itself.


def test_default_policy_is_that_of_the_node_system():
    assert (DEFAULT_RETRIES, RetryPolicy().retries, RetryPolicy().delay) == (5, 5, "exponential")
    assert RetryPolicy().attempts == 6


def test_exponential_delay_doubles_and_is_capped():
    policy = RetryPolicy(1_000_000)

    assert [policy.delay_ms(attempt) for attempt in (1, 2, 3, 4)] == [1_000, 2_000, 4_000, 8_000]
    assert policy.delay_ms(10) == 512_000
    assert {policy.delay_ms(attempt) for attempt in (11, 50, 10**6)} == {600_000}


@pytest.mark.parametrize(("delay", "milliseconds"), [("5s", 5_000), ("0ms", 0), ("1500", 1_500)])
def test_fixed_delay_is_the_same_each_time(delay, milliseconds):
    policy = RetryPolicy(3, delay)

    assert {policy.delay_ms(attempt) for attempt in (1, 2, 9)} == {milliseconds}


def test_policy_is_changed_only_in_what_is_given():
    policy = RetryPolicy(2, "5s")

    assert policy.changed(None, None) == policy
    assert policy.changed(0, None) == RetryPolicy(0, "5s")
    assert policy.changed(None, 0.5) == RetryPolicy(2, "500ms")
    assert policy.changed(None, "exponential") == RetryPolicy(2, "exponential")
    for retries, delay in ((-1, None), (1.5, None), ("2", None), (None, "fast"), (None, -1)):
        with pytest.raises(InvalidOptionError):
            policy.changed(retries, delay)
