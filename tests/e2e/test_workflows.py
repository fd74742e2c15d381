"""Workflows on workers: retries, queues, sleeps, waiting outside memory, replay, nudges."""

import json
from threading import Barrier

import pytest
from tests.apps.parts import JOURNEY, app
from tests.helpers.waiting import wait_until

from askel import App, Run

WAREHOUSE = ("", "warehouse")


def calls_of_steps():
    """An app that remembers which steps it executed, and how often the workflow code ran."""
    app, calls = App("counting"), []

    @app.step(retries=3, retry_delay="1ms")
    async def count(name: str) -> str:
        calls.append(name)
        return name.upper()

    @app.workflow
    async def long(run: Run, pause: str) -> list[str]:
        calls.append("replay")
        done = [await run.do(name, count, name) for name in ("a", "b")]
        await run.sleep("pause", pause)
        done.append(await run.do("c", count, "c"))
        await run.sleep("pause", pause)
        return [*done, *await run.gather(*(run.do("d", count, f"d{n}") for n in range(3)))]

    return app, calls


@pytest.mark.parametrize("linger_ms", [0, 50, 10_000])
async def test_everything_a_workflow_can_do(deployment, linger_ms):
    """The result is the same whether the run stays in memory or is replayed at every wait."""
    async with deployment.worker(app, queues=WAREHOUSE, linger_ms=linger_ms):
        await deployment.send("run.start", workflow="journey", input="end", run_id="r")
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert json.loads(record.run["output"]) == [*JOURNEY, "end"]
    assert record.path("first") == ["running 1", "succeeded 1"]
    assert record.path("tried") == [
        *("running 1", "failed 1", "pending 2", "running 2", "succeeded 2"),
    ]
    assert record.path("b") == ["running 1", "failed 1", "running 2", "succeeded 2"]
    assert record.path("rest") == ["scheduled 1", "succeeded 1"]
    assert record.path("packed") == [
        *("scheduled 1", "running 1", "failed 1", "pending 2", "running 2", "succeeded 2"),
    ]
    assert {name: step["fromStepName"] for name, step in list(record.steps.items())[1:4]} == {
        "tried": "first",
        "a": "tried",
        "b": "a",
    }


async def test_a_run_that_waits_is_given_up_and_its_steps_never_run_again(deployment):
    """After the linger the run is in Redis only; what it has done is read, not repeated."""
    app, calls = calls_of_steps()
    async with deployment.worker(app, linger_ms=50) as worker:
        await deployment.send("run.start", workflow="long", input="150ms", run_id="r")
        await deployment.until_step("r", "pause", "scheduled")
        await wait_until(lambda: len(worker.worker._actors) == 0)
        assert "owner" not in (await deployment.record("r")).ctl
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert json.loads(record.run["output"]) == ["A", "B", "C", "D0", "D1", "D2"]
    assert [name for name in calls if name != "replay"] == ["a", "b", "c", "d0", "d1", "d2"]
    assert calls.count("replay") == 3
    assert list(record.steps) == ["a", "b", "pause", "c", "pause#1", "d", "d#1", "d#2"]


async def test_a_run_that_lingers_goes_on_without_replay(deployment):
    """While it is in memory its code is not run from the beginning."""
    app, calls = calls_of_steps()
    async with deployment.worker(app) as worker:
        await deployment.send("run.start", workflow="long", input="20ms", run_id="r")
        await deployment.until("r", "completed")
        await deployment.quiet()
        assert worker.reached["before_activate"] == 0
    assert calls == ["replay", "a", "b", "c", "d0", "d1", "d2"]


async def test_a_run_is_replayed_by_a_worker_that_never_saw_it(deployment):
    """What the first worker did before it stopped is read by the second."""
    app, calls = calls_of_steps()
    async with deployment.worker(app):
        await deployment.send("run.start", workflow="long", input="300ms", run_id="r")
        await deployment.until_step("r", "pause", "scheduled")
    async with deployment.worker(app):
        await deployment.until("r", "completed")
        await deployment.quiet()
    assert [name for name in calls if name != "replay"] == ["a", "b", "c", "d0", "d1", "d2"]


@pytest.mark.parametrize("linger_ms", [0, 10_000])
async def test_a_queue_is_served_by_another_worker(deployment, linger_ms):
    """The step goes to whoever serves the queue; the result comes back to whoever drives."""
    async with (
        deployment.worker(app, linger_ms=linger_ms) as driver,
        deployment.worker(App("none"), queues=("elsewhere",)) as idle,
        deployment.worker(app, queues=("warehouse",)) as warehouse,
    ):
        await deployment.send("run.start", workflow="queued", input=[1], run_id="r")
        record = await deployment.until("r", "completed")
        await deployment.quiet()
        assert warehouse.reached["before_handler"] == 1
        assert driver.reached["before_handler"] == idle.reached["before_handler"] == 0
    assert record.run["output"] == "[1]"


async def test_an_owner_is_told_by_a_nudge_what_another_worker_recorded(deployment):
    """Not by its renewal, which comes every 20 s here, nor by anything it asks."""
    slow = {"lease_ms": 60_000, "claim_idle_ms": 120_000, "linger_ms": 60_000}
    async with (
        deployment.worker(app, **slow) as driver,
        deployment.worker(app, **slow, queues=("warehouse",)),
    ):
        await deployment.send("run.start", workflow="queued", input="hot", run_id="r")
        await deployment.until("r", "completed", timeout=5)
        await deployment.quiet()
        assert driver.reached["before_activate"] == 0


async def test_a_lost_nudge_costs_a_renewal_and_no_more(deployment, proxy):
    """Hints are hints: a worker that gets none looks for itself."""
    proxy.lose_next_request(lambda it: b"XADD" in it and b":nudge:" in it, times=1_000)
    async with deployment.worker(app) as driver:
        helper = {"queues": ("warehouse",), "url": proxy.url}
        async with deployment.worker(app, **helper):
            await deployment.send("run.start", workflow="queued", input="cold", run_id="r")
            await deployment.until("r", "completed")
            proxy.heal()
        await deployment.quiet()
        assert driver.reached["before_activate"] == 0
    assert proxy.faults["lose_request"] > 0


async def test_a_function_without_async_runs_beside_the_loop(deployment):
    """A hundred of them are bounded by the threads, not by one another."""
    app, pair, beside = App("threads"), Barrier(2), []
    inside: set[int] = set()

    @app.step
    def slow(number: int) -> int:
        inside.add(number)
        beside.append(len(inside))
        pair.wait(5)  # for another one, that is beside this
        inside.discard(number)
        return number * 2

    @app.workflow
    async def fan(run: Run) -> list[int]:
        return await run.gather(*(run.do("part", slow, n) for n in range(30)))

    async with deployment.worker(app, threads=4):
        await deployment.send("run.start", workflow="fan", run_id="r")
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert json.loads(record.run["output"]) == [2 * n for n in range(30)]
    assert len(beside) == 30
    assert max(beside) <= 4


async def test_a_large_fan_out_takes_several_turns(deployment):
    """More parts than one turn carries, here and in a queue."""
    fan = App("fan")

    @fan.step
    async def part(number: int) -> int:
        return number

    @fan.workflow
    async def wide(run: Run) -> int:
        here = [run.do("here", part, n) for n in range(300)]
        there = [run.do("there", part, n, queue="warehouse") for n in range(250)]
        return sum(await run.gather(*here, *there))

    async with deployment.worker(fan, queues=WAREHOUSE):
        await deployment.send("run.start", workflow="wide", run_id="r")
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert json.loads(record.run["output"]) == sum(range(300)) + sum(range(250))
    assert len(record.steps) == 550


@pytest.mark.parametrize(
    ("step", "name", "message"),
    [
        ("broken", "ValueError", "it was 9"),
        ("unspeakable", "PayloadError", "cannot be carried as JSON"),
        ("exits", "SystemExit", "3"),
        ("cancels_itself", "CancelledError", "the handler was cancelled from within"),
        ("not_an_exception", "Worse", "worse"),
        ("stops_iterating", "StopIteration", "over"),
        ("too_slow", "TimeoutError", "the attempt took longer than 10ms"),
        ("wants_text", "PayloadError", "Expected `str`, got `int`"),
    ],
)
async def test_whatever_a_handler_raises_is_a_failure_of_its_step(deployment, step, name, message):
    """Anything at all, from a function or a coroutine: recorded, and the worker goes on."""
    async with deployment.worker(app) as worker:
        await deployment.send("run.start", workflow="does", input=step, run_id="r")
        await deployment.send("run.start", workflow="one_step", input=1, run_id="neighbour")
        record = await deployment.until("r", "failed")
        await deployment.until("neighbour", "completed")
        await deployment.quiet()
        assert not worker.ended.is_set()
    error = json.loads(record.steps["it"]["error"])
    assert error["name"] == name
    assert message in error["message"]
    assert message in json.loads(record.run["error"])["message"]


@pytest.mark.parametrize(("step", "attempts"), [("broken", 2), ("unspeakable", 1)])
@pytest.mark.parametrize("queue", ["", "warehouse"])
async def test_what_cannot_succeed_later_is_not_tried_again(deployment, step, attempts, queue):
    """A result that JSON cannot carry fails for good at once, whatever the retries."""
    once = App("once")
    once.steps[step] = app.steps[step]

    @once.workflow
    async def does(run: Run) -> None:
        await run.do("it", step, 9, queue=queue or None, retries=1, retry_delay="1ms")

    async with deployment.worker(once, queues=WAREHOUSE):
        await deployment.send("run.start", workflow="does", run_id="r")
        record = await deployment.until("r", "failed")
        await deployment.quiet()
    assert record.of_step("it")[-1]["attempt"] == attempts
    assert record.of_step("it")[-1]["final"] is True


async def test_a_workflow_may_handle_the_failure_of_a_step(deployment):
    """The failure is an exception where the step was awaited, also after a replay."""
    async with deployment.worker(app, linger_ms=0):
        await deployment.send("run.start", workflow="gives_up", input="no", run_id="r")
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert "it was no" in json.loads(record.run["output"])
    assert list(record.steps) == ["it", "amends"]


@pytest.mark.parametrize("workflow", ["raises", "returns_an_object", "awaits_the_world"])
async def test_workflow_code_that_goes_wrong_fails_its_run(deployment, workflow):
    """An exception, an output that is no JSON, an await of something else: the run has failed."""
    async with deployment.worker(app) as worker:
        await deployment.send("run.start", workflow=workflow, run_id="r")
        await deployment.send("run.start", workflow="one_step", input=1, run_id="neighbour")
        record = await deployment.until("r", "failed")
        await deployment.until("neighbour", "completed")
        await deployment.quiet()
        assert not worker.ended.is_set()
    assert json.loads(record.run["error"])["message"]


async def test_input_that_does_not_fit_fails_the_run(deployment):
    """The workflow's annotation is checked before any of its code runs."""
    typed = App("typed")

    @typed.workflow
    async def wants(run: Run, data: dict[str, int]) -> None:
        await run.sleep("never", "1h")

    async with deployment.worker(typed):
        await deployment.send("run.start", workflow="wants", input=[1], run_id="r")
        record = await deployment.until("r", "failed")
        await deployment.quiet()
    assert "Expected `object`, got `array`" in json.loads(record.run["error"])["message"]
    assert record.step_names == []


async def test_code_that_changed_under_a_run_stalls_it_until_it_is_back(deployment):
    """The run says what is recorded and what was reached; `run.resume` tries again."""

    def version(name):
        changed = App("changing")
        changed.steps["echo"] = app.steps["echo"]

        @changed.workflow
        async def w(run: Run) -> str:
            await run.do(name, "echo", 1)
            await run.sleep("rest", "50ms")
            return await run.do("last", "echo", name)

        return changed

    async with deployment.worker(version("old"), linger_ms=0):
        await deployment.send("run.start", workflow="w", run_id="r")
        await deployment.until_step("r", "rest", "scheduled")
    async with deployment.worker(version("new")) as worker:
        record = await deployment.until("r", "stalled")
        error = json.loads(record.run["error"])
        assert "'old'" in error["message"]
        assert "'new'" in error["message"]
        await deployment.send("run.resume", run_id="r")  # in vain
        await wait_until(lambda: worker.reached["after_settle"] == 1)
        await deployment.until("r", "stalled")
        await deployment.quiet()
        await deployment.send("run.signal", run_id="r", name="news")  # drives it in vain, once
        await wait_until(lambda: worker.reached["after_record"] == 1)
        await deployment.quiet()
    async with deployment.worker(version("old")):
        await deployment.send("run.resume", run_id="r")
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert record.run["output"] == '"old"'
    assert "error" not in record.run
