"""Commands with what only workers write: whoever may send commands can send these, to no avail."""

from __future__ import annotations

import pytest
from tests.apps.parts import app
from tests.helpers.waiting import wait_until

FAR = 2**53


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
        await wait_until(lambda: deployed_entries(deployment, 1))
        assert await deployment.client.hget(f"{deployment.prefix}:ctl:r", "owner") == owner
        gate.touch()
        record = await deployment.until("r", "completed")
        await deployment.quiet(dead=0)
        assert one.ended.is_set() is False
    assert record.path("gate") == ["running 1", "succeeded 1"]


async def deployed_entries(deployment, count):
    return await deployment.client.xlen(deployment.stream()) == count
