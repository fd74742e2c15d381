"""A start for a run id that is taken: its next generation, and what is left of the one before."""

import pytest
from tests.apps.parts import app
from tests.helpers.history_checker import check_all
from tests.helpers.waiting import wait_until


async def start(deployment, if_exists, input=1, workflow="one_step", **fields):
    given = {"workflow": workflow, "input": input, "run_id": "r", **fields}
    await deployment.send("run.start", **given, if_exists=if_exists)


async def generation(deployment, number):
    """Wait until run r is of this generation."""

    async def there():
        value = await deployment.client.hget(f"{deployment.prefix}:run:r", "generation")
        return int(value or 1) == number

    await wait_until(there)


async def test_after_terminal_runs_the_workflow_anew(deployment):
    """The former run stays whole under its own id; both histories hold."""
    async with deployment.worker(app):
        await start(deployment, "after-terminal", 1)
        await deployment.until("r", "completed")
        await start(deployment, "after-terminal", 2)
        await generation(deployment, 2)
        await deployment.until("r", "completed")
        await deployment.quiet(dead=0)
    assert sorted(await deployment.runs()) == ["r", "r.g1"]
    records = {r.run["id"]: r for r in await check_all(deployment.client, deployment.prefix)}
    assert records["r.g1"].run["input"] == "1"
    assert records["r"].run["input"] == "2"
    assert records["r"].entries[0]["previous"] == "r.g1"


async def test_after_terminal_is_refused_while_the_run_lives(deployment, tmp_path):
    """It waits for nothing: whoever sent it sees it among the dead letters."""
    gate = tmp_path / "gate"
    async with deployment.worker(app):
        await start(deployment, "reject", str(gate), "waits")
        await wait_until((tmp_path / "gate.begun").exists)
        await start(deployment, "after-terminal", str(gate), "waits")
        (letter,) = await deployment.dead_letters()
        assert letter["reason"] == "run_exists"
        gate.touch()
        await deployment.until("r", "completed")
        await deployment.quiet(dead=1)


async def test_terminate_existing_ends_what_is_executed_and_starts_anew(deployment, tmp_path):
    """The step of the former generation is abandoned; its result lands nowhere."""
    gate = tmp_path / "gate"
    async with deployment.worker(app) as worker:
        await start(deployment, "reject", str(gate), "waits")
        await wait_until((tmp_path / "gate.begun").exists)
        await start(deployment, "terminate-existing", 2)
        await generation(deployment, 2)
        record = await deployment.until("r", "completed")
        gate.touch()
        await deployment.quiet(dead=0)
        assert not worker.logged("run_ended", run_id="r", status="failed")
    assert record.run["workflow"] == "one_step"
    assert await deployment.status("r.g1") == "cancelled"


async def test_timer_of_a_former_generation_ends_no_sleep_of_the_next(deployment):
    """Both sleep under the same name: the second one sleeps as long as it says."""
    async with deployment.worker(app):
        await start(deployment, "reject", "400ms", "rests")
        await wait_until(lambda: deployment.client.zcard(f"{deployment.prefix}:timers"))
        await start(deployment, "terminate-existing", "900ms", "rests")
        await generation(deployment, 2)
        record = await deployment.until("r", "completed")
        await deployment.quiet(dead=0)
    slept = [e["at"] for e in record.entries if e["t"] == "step"]
    assert slept[-1] - slept[0] >= 900


@pytest.mark.parametrize("if_exists", ["after-terminal", "terminate-existing"])
async def test_start_with_an_id_sent_again_begins_no_further_generation(deployment, if_exists):
    """The id of a command is remembered as long as its run, whatever the policy."""
    async with deployment.worker(app):
        for _ in range(2):
            await start(deployment, if_exists, id="order-42")
            await deployment.until("r", "completed")
        await deployment.quiet(dead=0)
    assert await deployment.runs() == ["r"]
