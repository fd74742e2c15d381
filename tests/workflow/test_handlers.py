"""Whatever a handler does becomes an outcome of its attempt and never harms its driver."""

import asyncio
import concurrent.futures
import functools

import anyio
import pytest

from askel import App, Run, SerializedError, StepFailedError
from askel.workflow.executor import failure

pytestmark = pytest.mark.usefixtures("server")

app = App("handlers")


class Worse(BaseException):
    pass


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class MuteForGood(BaseException):
    def __str__(self):
        raise SystemExit(9)


class BadNotesError(Exception):
    @property
    def __notes__(self):
        raise RuntimeError("no notes")


def raiser(kind):
    """An async and a plain handler that raise *kind*."""

    async def raises() -> None:
        raise kind()

    def raises_in_thread() -> None:
        raise kind()

    return raises, raises_in_thread


RAISED = [
    ValueError,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    StopIteration,
    StopAsyncIteration,
    asyncio.CancelledError,
    TimeoutError,
    asyncio.TimeoutError,
    concurrent.futures.CancelledError,
    RecursionError,
    MemoryError,
    Worse,
    MuteError,
    MuteForGood,
    functools.partial(ExceptionGroup, "g", [ValueError("a")]),
    functools.partial(BaseExceptionGroup, "g", [Worse()]),
]


async def cancels_itself() -> None:
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


async def cancels_itself_twice() -> None:
    asyncio.current_task().cancel()
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        asyncio.current_task().cancel()
        raise


async def cancels_itself_and_returns() -> str:
    asyncio.current_task().cancel()
    return "unheard"


async def awaits_what_was_cancelled() -> None:
    child = asyncio.create_task(asyncio.sleep(30))
    asyncio.get_running_loop().call_soon(child.cancel)
    await child


async def cancels_its_scope() -> str:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.sleep(30)
    return "went on"


async def group_that_fails() -> None:
    async with anyio.create_task_group() as tg:
        tg.start_soon(cancels_itself)
        tg.start_soon(anyio.sleep, 0)
    raise Worse


async def recurses() -> None:
    async def deeper(level: int) -> None:
        await deeper(level + 1)

    await deeper(0)


@app.workflow
async def survives(run: Run, name: str) -> str:
    try:
        result = await run.do("odd", name, retries=0)
    except StepFailedError as error:
        return f"failed: {error.error.name}"
    return f"returned {result}"


async def outcome(service, handler, run_id="r"):
    """What the workflow saw of *handler*; the run must complete, whatever that did."""
    app.steps.clear()
    app._by_function.clear()
    app.step(handler, name="odd one") if handler is None else app.step(name="odd one")(handler)
    with anyio.fail_after(10):
        await app.start(service, survives, "odd one", run_id)
    run = await service.get_run(run_id)
    assert run.status == "completed"
    assert asyncio.current_task().cancelling() == 0
    return run.output


@pytest.mark.parametrize("in_thread", [False, True], ids=["async", "thread"])
@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: getattr(kind, "__name__", "group"))
async def test_whatever_is_raised_is_a_failed_attempt(service, kind, in_thread):
    seen = await outcome(service, raiser(kind)[in_thread])

    # No coroutine may raise a StopIteration: Python makes it another error.
    turned = kind is StopIteration and not in_thread
    assert seen == f"failed: {'RuntimeError' if turned else type(kind()).__name__}"
    state = await service.get_step_state("r", "odd")
    assert (state.status, state.attempt_count) == ("failed", 1)


@pytest.mark.parametrize(
    "handler",
    [cancels_itself, cancels_itself_twice, cancels_itself_and_returns, awaits_what_was_cancelled],
)
async def test_cancellation_from_within_is_a_failed_attempt(service, handler):
    assert await outcome(service, handler) == "failed: CancelledError"
    assert (
        await service.get_step_state("r", "odd")
    ).error.message == "the handler was cancelled from within"


async def test_scopes_of_the_handlers_own_are_its_own(service):
    assert await outcome(service, cancels_its_scope) == "returned went on"


async def test_group_of_the_handlers_own_may_fail(service):
    assert (await outcome(service, group_that_fails)).startswith("failed: ")


async def test_endless_recursion_is_a_failed_attempt(service):
    assert await outcome(service, recurses) == "failed: RecursionError"
    assert len((await service.get_step_state("r", "odd")).error.stack) <= 4_096


def test_error_whose_own_code_is_broken_is_still_a_failure():
    outcome = failure(BadNotesError("text"))

    assert outcome.error == SerializedError("text", name="BadNotesError")
    assert not outcome.permanent


async def test_stack_shows_the_handler_and_not_the_library(service):
    async def unlucky() -> None:
        raise ValueError("here")

    await outcome(service, unlucky)

    stack = (await service.get_step_state("r", "odd")).error.stack
    assert "in unlucky" in stack
    assert "executor.py" not in stack
    assert stack.endswith("ValueError: here\n")


def wrapped(function):
    """A decorator that does not say that what it wraps is async."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)

    return call


@wrapped
async def hidden() -> str:
    await asyncio.sleep(0)
    return "from a coroutine"


class Callable:
    __name__ = "callable"

    async def __call__(self) -> str:
        return "from an object"


async def test_coroutine_that_a_decorator_hid_is_awaited(service):
    assert await outcome(service, hidden) == "returned from a coroutine"


async def test_object_that_can_be_called_is_a_handler(service):
    assert await outcome(service, Callable()) == "returned from an object"


async def test_handler_is_cancelled_with_its_caller(service):
    cancelled = []
    begun = asyncio.Event()

    async def patient() -> None:
        begun.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    task = asyncio.create_task(outcome(service, patient))
    await begun.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled == [True]
    assert (await service.get_step_state("r", "odd")).status == "running"


async def test_handler_that_resists_its_timeout_counts_as_what_it_did(service):
    async def stubborn() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "resisted"
        return "not reached"

    @app.workflow(name=f"stubborn-{id(stubborn)}")
    async def impatient(run: Run) -> str:
        return await run.do("odd", "odd one", timeout="20ms", retries=0)

    app.steps.clear()
    app._by_function.clear()
    app.step(name="odd one")(stubborn)
    await app.start(service, f"stubborn-{id(stubborn)}", run_id="r")

    assert (await service.get_run("r")).output == "resisted"
