"""Signals: a workflow waits for them by name, whichever comes first, and each is taken once."""

import json
from functools import partial

import anyio
import pytest
from msgspec import Struct
from tests.helpers.waiting import wait_until

from askel import App, Run

CALM = {"linger_ms": 20}
app = App("signals")


class Payment(Struct):
    cents: int


@app.step(retries=0)
async def wait(seconds: float) -> None:
    await anyio.sleep(seconds)


@app.workflow
async def takes(run: Run, count: int) -> list:
    return [await run.wait_signal("paid", Payment) for _ in range(count)]


@app.step(retries=0)
async def wait_for_file(path: str) -> None:
    while not await anyio.Path(path).exists():  # noqa: ASYNC110 - a file tells nobody
        await anyio.sleep(0.005)


@app.workflow
async def takes_later(run: Run, path: str) -> list:
    await run.do("file", wait_for_file, path)
    return [await run.wait_signal("paid", int) for _ in range(3)]


@app.workflow
async def hurries(run: Run, timeout: str) -> list:
    told = []
    for _ in range(2):
        try:
            told.append(await run.wait_signal("ok", int, timeout=timeout))
        except TimeoutError as error:
            told.append(str(error))
        await run.sleep("pause", "1ms")
    return told


@app.workflow
async def side_by_side(run: Run) -> list:
    async def both(name: str) -> list:
        return [await run.wait_signal(name), await run.wait_signal(name)]

    return await run.gather(both("a"), both("b"), run.do("wait", wait, 0.05))


async def signals(deployment, name, *values, run_id="r"):
    for value in values:
        await deployment.send("run.signal", run_id=run_id, name=name, data=value)


def output(record):
    return json.loads(record.run["output"])


@pytest.mark.parametrize("linger_ms", [0, 60_000])
async def test_a_run_that_waits_goes_on_when_the_signal_comes(deployment, linger_ms):
    """From memory, or replayed by whoever has time."""
    async with deployment.worker(app, linger_ms=linger_ms):
        await deployment.send("run.start", workflow="takes", input=2, run_id="r")
        await deployment.until_step("r", "paid", "scheduled")
        await signals(deployment, "paid", {"cents": 1})
        await deployment.until_step("r", "paid#1", "scheduled")
        await signals(deployment, "news", "for nobody")
        await signals(deployment, "paid", {"cents": 2})
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert output(record) == [{"cents": 1}, {"cents": 2}]
    assert record.path("paid") == ["scheduled 1", "succeeded 1"]
    assert json.loads(record.steps["paid#1"]["result"]) == {"cents": 2}


async def test_signals_that_come_before_are_kept_in_their_order(deployment, tmp_path):
    """They need no step: what the run was told stands in its history."""
    gate = tmp_path / "gate"
    async with deployment.worker(app, **CALM):
        await deployment.send("run.start", workflow="takes_later", input=str(gate), run_id="r")
        await deployment.until_step("r", "file", "running")
        await signals(deployment, "paid", *range(5))
        await wait_until(partial(has_signals, deployment, 5))
        gate.touch()
        record = await deployment.until("r", "completed")
    assert output(record) == [0, 1, 2]
    assert list(record.steps) == ["file"]


async def has_signals(deployment, count):
    return sum(e["t"] == "signal" for e in (await deployment.record("r")).entries) == count


async def test_a_signal_sent_twice_under_one_id_is_taken_once(deployment):
    async with deployment.worker(app, **CALM):
        await deployment.send("run.start", workflow="takes", input=2, run_id="r")
        await deployment.until_step("r", "paid", "scheduled")
        for _ in range(3):
            again = {"run_id": "r", "name": "paid", "data": {"cents": 1}, "id": "payment-1"}
            await deployment.send("run.signal", **again)
        await deployment.until_step("r", "paid#1", "scheduled")
        await signals(deployment, "paid", {"cents": 2})
        record = await deployment.until("r", "completed")
    assert [paid["cents"] for paid in output(record)] == [1, 2]


async def test_a_wait_ends_when_its_time_is_over(deployment):
    """The code is told by a TimeoutError; the step has failed, with that in its history."""
    async with deployment.worker(app, **CALM):
        await deployment.send("run.start", workflow="hurries", input="30ms", run_id="r")
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert output(record) == ["no signal 'ok' came within 30 ms"] * 2
    assert record.path("ok") == ["scheduled 1", "failed 1"]
    assert json.loads(record.steps["ok"]["error"])["name"] == "TimeoutError"


async def test_a_timer_that_need_not_fire_any_more_is_gone(deployment):
    """A run that waits again and again leaves nothing to fire in a month."""
    async with deployment.worker(app, **CALM):
        await deployment.send("run.start", workflow="hurries", input="30d", run_id="r")
        await deployment.until_step("r", "ok", "scheduled")
        assert await deployment.client.zcard(f"{deployment.prefix}:timers") == 1
        await signals(deployment, "ok", 1)
        await deployment.until_step("r", "ok#1", "scheduled")
        assert await deployment.client.zcard(f"{deployment.prefix}:timers") == 1
        await signals(deployment, "ok", 2)
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert output(record) == [1, 2]
    assert await deployment.client.zcard(f"{deployment.prefix}:timers") == 0


async def test_a_signal_that_is_late_for_one_wait_is_there_for_the_next(deployment):
    async with deployment.worker(app, **CALM):
        await deployment.send("run.start", workflow="hurries", input="150ms", run_id="r")
        await deployment.until_step("r", "ok", "failed")
        await signals(deployment, "ok", 7)
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert output(record) == ["no signal 'ok' came within 150 ms", 7]


async def test_data_of_another_type_fails_the_run_that_does_not_expect_it(deployment):
    async with deployment.worker(app, **CALM):
        await deployment.send("run.start", workflow="takes", input=1, run_id="r")
        await deployment.until_step("r", "paid", "scheduled")
        await signals(deployment, "paid", {"cents": "many"})
        record = await deployment.until("r", "failed")
        await deployment.quiet()
    assert "cents" in json.loads(record.run["error"])["message"]


async def test_waits_side_by_side(deployment):
    async with deployment.worker(app, **CALM):
        await deployment.send("run.start", workflow="side_by_side", run_id="r")
        for name, number in (("b", 1), ("a", 2), ("b", 3), ("a", 4)):
            await signals(deployment, name, number)
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert output(record) == [[2, 4], [1, 3], None]


async def test_signals_that_race_with_timers_are_taken_once_or_kept(deployment):
    """Forty runs, each with a limit about as long as the signals take."""
    async with deployment.worker(app, **CALM):
        for number in range(40):
            run_id = f"r{number}"
            await deployment.send("run.start", workflow="hurries", input="8ms", run_id=run_id)
            await signals(deployment, "ok", 1, 2, run_id=run_id)
        records = [await deployment.until(f"r{number}", "completed") for number in range(40)]
        await deployment.quiet(timeout=30)
    for record in records:
        taken = [told for told in output(record) if isinstance(told, int)]
        assert taken == [1, 2][: len(taken)]


async def test_a_suspended_run_keeps_what_comes(deployment):
    async with deployment.worker(app, **CALM):
        await deployment.send("run.start", workflow="takes", input=2, run_id="r")
        await deployment.until_step("r", "paid", "scheduled")
        await deployment.send("run.suspend", run_id="r")
        await deployment.until("r", "suspended")
        await signals(deployment, "paid", {"cents": 1}, {"cents": 2})
        await wait_until(partial(has_signals, deployment, 2))
        await deployment.send("run.resume", run_id="r")
        record = await deployment.until("r", "completed")
    assert [paid["cents"] for paid in output(record)] == [1, 2]
