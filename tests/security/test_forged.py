"""Commands with what only workers write: whoever may send commands can send these, to no avail."""

from __future__ import annotations

import pytest
from tests.apps.parts import app
from tests.helpers.waiting import wait_until

from askel import App, Run

FAR = 2**53

patient = App("patient")


@patient.step(retries=1, retry_delay="1d")
async def stumble() -> None:
    """Fail."""
    raise ValueError


@patient.workflow
async def retries_tomorrow(run: Run) -> None:
    """Do a step whose second attempt is far away."""
    await run.do("it", stumble)


@pytest.mark.parametrize("tries", [0, -FAR, FAR])
async def test_a_command_nobody_knows_is_given_up_whatever_it_says_of_its_age(deployment, tries):
    """Sent as if it were from the future it would go round for ever."""
    forged = {"unknown_since": FAR, "tries": tries, "put_back": "x"}
    async with deployment.worker(app, unknown_after_ms=50):
        await deployment.send("run.start", workflow="nonesuch", run_id="r", **forged)
        (letter,) = await deployment.dead_letters()
        await deployment.quiet(dead=1)
    assert letter["reason"] == "unknown_workflow"


async def test_a_forged_advance_takes_no_run_away(deployment, tmp_path):
    """It is not the run's token: it is dropped, and the run goes on where it is."""
    gate = tmp_path / "gate"
    async with deployment.worker(app) as one, deployment.worker(app):
        await deployment.send("run.start", workflow="waits", input=str(gate), run_id="r")
        await wait_until((tmp_path / "gate.begun").exists)
        owner = await deployment.client.hget(f"{deployment.prefix}:ctl:r", "owner")
        for _ in range(20):
            await deployment.send("run.advance", run_id="r")
        await deployment.send("run.advance", run_id="nobody")
        await wait_until(lambda: entries_left(deployment, 1))
        assert await deployment.client.hget(f"{deployment.prefix}:ctl:r", "owner") == owner
        gate.touch()
        record = await deployment.until("r", "completed")
        await deployment.quiet(dead=0)
        assert one.ended.is_set() is False
    assert record.path("gate") == ["running 1", "succeeded 1"]


async def entries_left(deployment, count):
    return await deployment.client.xlen(deployment.stream()) == count


async def test_a_forged_timer_ends_no_sleep_before_its_time(deployment):
    """Although it names the run, the step, the attempt and the generation."""
    async with deployment.worker(app):
        await deployment.send("run.start", workflow="rests", input="1d", run_id="r")
        await deployment.until_step("r", "rest", "scheduled")
        born = await deployment.client.hget(f"{deployment.prefix}:run:r", "createdAt")
        for fields in (
            {"born": born},
            {"born": born, "attempt": 1, "tries": 1, "id": "x"},
            {},
            {"born": 1},
        ):
            await deployment.send("timer.fire", run_id="r", step_name="rest", **fields)
        letters = await deployment.dead_letters(3)
        await wait_until(lambda: entries_left(deployment, 1))  # the run's own token
        assert (await deployment.step("r", "rest"))["status"] == "scheduled"
        assert await deployment.status("r") == "running"
        await deployment.send("run.terminate", run_id="r")
        await deployment.until("r", "cancelled")
    assert {letter["reason"] for letter in letters} == {"not_due"}


async def test_a_forged_timer_lets_no_retry_begin_before_its_time(deployment):
    async with deployment.worker(patient):
        await deployment.send("run.start", workflow="retries_tomorrow", run_id="r")
        await deployment.until_step("r", "it", "pending")
        born = await deployment.client.hget(f"{deployment.prefix}:run:r", "createdAt")
        await deployment.send("timer.fire", run_id="r", step_name="it", attempt=2, born=born)
        (letter,) = await deployment.dead_letters()
        assert (await deployment.step("r", "it"))["attemptCount"] == "2"
        assert (await deployment.step("r", "it"))["status"] == "pending"
        await deployment.send("run.terminate", run_id="r")
        await deployment.until("r", "cancelled")
    assert letter["reason"] == "not_due"
