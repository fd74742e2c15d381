"""Kinds of poison handlers that a worker survives: the attempt ends, its neighbours go on.

The rows are those of the fault table "poison handlers"; what takes the process down is tested in
`tests/faults/test_killers.py`.
"""

import json
import math
import threading

import pytest
from tests.apps import poison
from tests.helpers.waiting import wait_until

QUEUES = {"queues": ("", "warehouse")}

#: Row -> what becomes of the attempt: by an async handler, and by one in a thread.
ROWS = {
    "sys_exit": "SystemExit",
    "keyboard_interrupt": "KeyboardInterrupt",
    "generator_exit": "GeneratorExit",
    "base_exception": "Worse",
    "cancelled_error": "CancelledError",
    "cancels_its_task": "CancelledError",
    "stop_iteration": "RuntimeError",  # what Python makes of it in a coroutine
    "stop_iteration_sync": "StopIteration",
    "mute_error": "MuteError",
    "long_message": "ValueError",
    "exception_group": "BaseExceptionGroup",
    "returns_object": "PayloadError",
    "returns_lambda": "PayloadError",
    "returns_generator": "PayloadError",
    "returns_tuple_keys": "PayloadError",
    "returns_cycle": "PayloadError",
}
IN_LOOP_ONLY = {"cancels_its_task"}
STEPS = {
    name: error
    for row, error in ROWS.items()
    for name in (row, f"{row}_sync")
    if row.removesuffix("_sync") == row or name == row
    if name == row or (row not in IN_LOOP_ONLY and name not in ROWS)
}


@pytest.fixture(autouse=True)
def left_behind():
    """What a handler left behind ends with the test."""
    poison.released.clear()
    yield
    poison.released.set()


async def outcomes(deployment, step, **settings):
    """What a workflow sees of *step*, done here and by a queue, between neighbours that go on."""
    seen = []
    async with deployment.worker(poison.app, **QUEUES, **settings) as worker:
        for number, queue in enumerate(("", "warehouse")):
            await deployment.send("run.start", workflow="neighbour", input=1, run_id=f"a{number}")
            await deployment.send(
                "run.start", workflow="tries", input=[step, queue], run_id=f"r{number}"
            )
            await deployment.send("run.start", workflow="neighbour", input=1, run_id=f"b{number}")
            record = await deployment.until(f"r{number}", "completed")
            seen.append(json.loads(record.run["output"]))
            for name in "ab":
                await deployment.until(f"{name}{number}", "completed")
        await deployment.quiet()
        assert not worker.ended.is_set()
        poison.released.set()
    return seen, worker


@pytest.mark.parametrize("step", STEPS)
async def test_row_becomes_a_failed_attempt(deployment, step):
    """Whatever is raised, or returned that JSON cannot carry: a failed attempt, and no more."""
    seen, _ = await outcomes(deployment, step)
    assert seen == [["failed", STEPS[step]]] * 2


@pytest.mark.parametrize("step", ["long_message", "long_message_sync"])
async def test_row_10_megabytes_of_message_are_cut(deployment, step):
    """Row `10 MB message`: what is kept of an error is bounded."""
    await outcomes(deployment, step)
    state = await deployment.step("r0", "it")
    assert 1_000 < len(state["error"]) < 20_000


@pytest.mark.parametrize("step", ["mute_error", "mute_error_sync"])
async def test_row_an_error_that_cannot_be_shown_is_named(deployment, step):
    """Row `__str__ that raises`: its class stands where its message would."""
    await outcomes(deployment, step)
    error = json.loads((await deployment.step("r0", "it"))["error"])
    assert error["message"] == "(the error could not be shown)"


@pytest.mark.parametrize("step", ["returns_nan", "returns_infinity"])
async def test_row_nan_and_infinity(deployment, step):
    """Row `result NaN/inf`: JSON has no such number; the attempt fails, and says so."""
    seen, _ = await outcomes(deployment, step)
    assert not any(isinstance(value, float) and not math.isfinite(value) for _, value in seen)
    assert seen == [["failed", "PayloadError"]] * 2


@pytest.mark.parametrize("step", ["detached_task", "detached_thread", "detached_thread_sync"])
async def test_row_detached_task_or_thread(deployment, step):
    """Row `detached task or thread left behind`: it runs on, its attempt has ended."""
    seen, _ = await outcomes(deployment, step)
    assert seen == [["done", "left"]] * 2


@pytest.mark.parametrize(
    "step",
    ["swallows_cancellation", "swallows_cancellation_sync", "long_shield", "swallows_once"],
)
async def test_row_handler_that_swallows_its_cancellation_is_abandoned(deployment, step):
    """Rows `swallow-cancel loop`, `long shielded await`: after a grace its attempt is over."""
    seen, worker = await outcomes(deployment, step, cancel_grace_ms=50)
    assert seen == [["failed", "TimeoutError"]] * 2
    warned = [(line["run_id"], line["step"]) for line in worker.logged("handler_abandoned")]
    # What shields itself from scopes is not shielded from the cancellation of its task.
    # What takes its cancellation for an error is cancelled once more.
    ends = step in {"long_shield", "swallows_once"}
    expected = [] if ends else [("r0", "it"), ("r1", "it")]
    assert sorted(warned) == expected


@pytest.mark.parametrize(
    ("step", "limit", "name"),
    [
        ("swallows_cancellation_sync", {"threads": 2}, "threads"),
        ("swallows_cancellation", {"concurrency": 2}, "handlers"),
    ],
)
async def test_a_worker_full_of_what_was_given_up_is_not_healthy(deployment, step, limit, name):
    """No step that is not async would ever begin again: whoever supervises has to restart it.

    So with tasks: they would become ever more.
    """
    async with deployment.worker(poison.app, cancel_grace_ms=50, **limit) as worker:
        health = worker.worker.health
        for number in range(2):
            assert health.is_live
            what = [step, ""]
            await deployment.send("run.start", workflow="tries", input=what, run_id=f"r{number}")
            await deployment.until(f"r{number}", "completed")
        assert health.liveness().stuck == [name]
        poison.released.set()
        await wait_until(lambda: health.is_live)


async def test_a_run_that_is_lost_does_not_wait_for_its_handler(deployment):
    """A handler that swallows the cancellation does not keep a driver, or a place, for ever."""
    begun = threading.Event()
    mine = type(poison.app)("mine")

    @mine.step
    async def endless() -> None:
        begun.set()
        await poison.swallows_cancellation()

    @mine.workflow
    async def w(run) -> None:
        await run.do("endless", endless)

    async with deployment.worker(mine, cancel_grace_ms=50) as worker:
        await deployment.send("run.start", workflow="w", run_id="r")
        await wait_until(begun.is_set)
        await deployment.send("run.cancel", run_id="r")
        await deployment.until("r", "cancelled")
        await deployment.quiet()
        await wait_until(lambda: len(worker.worker._leases) == 0)
        assert len(worker.logged("handler_abandoned")) == 1
        poison.released.set()
