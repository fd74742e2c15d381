"""What cannot be written as things are ends no worker, and makes none spin."""

import json

import pytest
from tests.apps.parts import app
from tests.helpers.waiting import wait_until

from askeld import actors

#: More than one that lingers and renews sends while a run is loaded nine times.
MOST_COMMANDS = 400


async def pending(deployment):
    return (await deployment.client.xpending(deployment.stream(), "askeld"))["pending"]


async def test_a_dead_stream_of_another_type_ends_no_worker(deployment):
    """The entry stays pending, that is said once, and sweeps bring it again until it is mended."""
    dead = f"{deployment.prefix}:dead"
    await deployment.client.set(dead, "of another type")
    settings = {"lease_ms": 100, "claim_idle_ms": 150, "sweep_ms": 20, "max_deliveries": 3}
    async with deployment.worker(app, **settings) as worker:
        entry = await deployment.send("no.such.command")
        await deployment.send("run.signal", run_id="none", name="x", data=1)
        await wait_until(lambda: worker.logged("dead_letter_refused"))
        await deployment.send("run.start", workflow="one_step", input=1, run_id="r")
        await deployment.until("r", "completed")
        await wait_until(lambda: len(worker.logged("entry_reclaimed", entry_id=entry)) >= 5)
        assert await pending(deployment) == 2
        assert not worker.ended.is_set()
        (said,) = worker.logged("dead_letter_refused")
        assert said["error"] == "WRONGTYPE"
        assert dead in said["advice"]
        await deployment.client.delete(dead)
        letters = await deployment.dead_letters(2)
        assert {one["reason"] for one in letters} == {"unknown_command", "run_not_found"}
        await deployment.quiet(dead=2)


@pytest.fixture
def pauses(monkeypatch):
    """The pauses between one try and the next, each a hundredth of what it is."""
    made = []
    pause = actors.Actors._pause

    async def recorded(self, seconds):
        made.append(seconds)
        await pause(self, seconds / 100)

    monkeypatch.setattr(actors.Actors, "_pause", recorded)
    return made


async def test_a_run_whose_turns_never_fit_is_tried_ever_less_often_and_then_stalls(
    deployment, pauses
):
    """What was half written before, by a restore or by hand, is not tried all the time."""
    key = f"{deployment.prefix}:step:r:only"
    await deployment.client.hset(key, mapping={"status": "running", "attemptCount": "1"})
    async with deployment.worker(app) as worker:
        stats = await deployment.client.info("stats")
        await deployment.send("run.start", workflow="one_step", input=1, run_id="r")
        await wait_until(lambda: worker.logged("run_misfit"))
        sent = (await deployment.client.info("stats"))["total_commands_processed"]
        assert sent - stats["total_commands_processed"] < MOST_COMMANDS
        await wait_until(lambda: not worker.worker._actors)
        assert pauses == [0.05 * 2**n for n in range(7)]
        refused = worker.logged("turn_refused", answer="CONFLICT")
        assert len(refused) == worker.logged("run_misfit")[0]["tries"] == 9
        assert await deployment.status("r") == "stalled"
        run = await deployment.client.hget(f"{deployment.prefix}:run:r", "error")
        assert json.loads(run)["name"] == "RunMisfit"
        await deployment.client.delete(key)
        await deployment.send("run.resume", run_id="r")
        await deployment.until("r", "completed")
        await deployment.quiet()
