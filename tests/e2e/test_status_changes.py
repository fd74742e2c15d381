"""Cancel, terminate, suspend, resume and signals, sent to runs that are under way."""

import json

import anyio
import pytest
from tests.apps.parts import app
from tests.helpers.waiting import wait_until

from askel import App, Run


@pytest.fixture
def gate(tmp_path):
    """The file for which a `waits` run waits."""
    return tmp_path / "gate"


async def begun(deployment, gate, run_id="r"):
    """Start a run, return when its handler waits at the gate."""
    await deployment.send("run.start", workflow="waits", input=str(gate), run_id=run_id)
    await deployment.until_step(run_id, "gate", "running")


def cancellable():
    """An app whose handler tells that it was cancelled."""
    app, told = App("cancellable"), []

    @app.step
    async def endless() -> None:
        told.append("begun")
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            told.append("cancelled")
            raise

    @app.workflow
    async def here(run: Run) -> None:
        await run.do("endless", endless)

    @app.workflow
    async def there(run: Run) -> None:
        await run.do("endless", endless, queue="warehouse")

    return app, told


@pytest.mark.parametrize("workflow", ["here", "there"])
@pytest.mark.parametrize("type", ["run.cancel", "run.terminate"])
async def test_a_cancelled_run_cancels_its_handler(deployment, workflow, type):
    """Recorded is effective: the run has ended at once, and whatever it executes is cancelled."""
    app, told = cancellable()
    async with deployment.worker(app, queues=("", "warehouse")):
        await deployment.send("run.start", workflow=workflow, run_id="r")
        await wait_until(lambda: told == ["begun"])
        await deployment.send(type, run_id="r", reason="changed my mind")
        record = await deployment.until("r", "cancelled")
        await wait_until(lambda: told == ["begun", "cancelled"])
        await deployment.quiet()
        assert (await deployment.record("r")).entries == record.entries
    assert record.entries[-1]["reason"] == "changed my mind"
    assert record.of_step("endless")[-1]["status"] == "running"


async def test_a_cancel_reaches_the_worker_that_runs_it_from_any_other(deployment):
    """The command is read by another worker; the owner is told by a nudge, not by its next turn."""
    app, told = cancellable()
    async with deployment.worker(app, lease_ms=60_000, claim_idle_ms=120_000):
        await deployment.send("run.start", workflow="here", run_id="r")
        await wait_until(lambda: told == ["begun"])
        async with deployment.worker(App("other"), queues=("desk",)):
            await deployment.send("run.cancel", "desk", run_id="r")
            await deployment.until("r", "cancelled")
            await wait_until(lambda: told == ["begun", "cancelled"])
    await deployment.quiet()


async def test_a_result_that_comes_after_the_cancel_is_not_recorded(deployment, gate):
    """A handler that cannot be cancelled (a thread) ends later; nobody takes its result."""
    async with deployment.worker(app) as worker:
        await deployment.send("run.start", workflow="does", input="thread_at_gate", run_id="r")
        # It waits in a thread for the file of its run's name.
        await deployment.until_step("r", "it", "running")
        await deployment.send("run.cancel", run_id="r")
        record = await deployment.until("r", "cancelled")
        await deployment.quiet()
        thread_gate("r").touch()
        await wait_until(lambda: thread_gate("r.done").exists())
        # The worker serves others, and the cancelled run is as it was.
        await deployment.send("run.start", workflow="one_step", input=1, run_id="next")
        await deployment.until("next", "completed")
        assert (await deployment.record("r")).entries == record.entries
        assert not worker.logged("turn_refused", answer="CONFLICT")


async def test_a_cancelled_sleep_does_not_wake(deployment):
    """A timer of a run that has ended fires into nothing."""
    async with deployment.worker(app):
        await deployment.send("run.start", workflow="rests", input="150ms", run_id="r")
        await deployment.until_step("r", "rest", "scheduled")
        await deployment.send("run.cancel", run_id="r")
        record = await deployment.until("r", "cancelled")
        await deployment.quiet()
        assert (await deployment.record("r")).entries == record.entries


async def test_cancelling_again_or_too_late_is_no_harm(deployment):
    """A cancel of a cancelled run is settled; one of a completed run is refused with its reason."""
    async with deployment.worker(app):
        await deployment.send("run.start", workflow="rests", input="1h", run_id="r")
        await deployment.until_step("r", "rest", "scheduled")
        for _ in range(3):
            await deployment.send("run.cancel", run_id="r")
        await deployment.until("r", "cancelled")
        await deployment.send("run.start", workflow="one_step", run_id="c")
        await deployment.until("c", "completed")
        await deployment.send("run.cancel", run_id="c", reason="too late")
        (letter,) = await deployment.dead_letters()
        assert await deployment.client.xlen(deployment.stream()) == 0
    assert letter["reason"] == "illegal_transition"
    assert letter["command.reason"] == "too late"
    assert letter["detail"] == "run 'c' is completed"


async def test_a_suspended_run_ends_what_it_does_and_begins_nothing(deployment, gate):
    """The handler's result is recorded; the next step waits for `run.resume`."""
    async with deployment.worker(app) as worker:
        await begun(deployment, gate)
        await deployment.send("run.suspend", run_id="r", reason="audit")
        await deployment.until("r", "suspended")
        gate.touch()
        await deployment.until_step("r", "gate", "succeeded")
        record = await deployment.until("r", "suspended")
        assert "after" not in record.steps
        await deployment.send("run.resume", run_id="r")
        record = await deployment.until("r", "completed")
        await deployment.quiet()
        assert worker.reached["before_handler"] == 2
    assert [e["status"] for e in record.entries if e["t"] == "run"] == [
        *("running", "suspended", "running", "completed")
    ]


async def test_a_run_is_suspended_in_its_sleep(deployment):
    """The sleep ends when it ends; the run goes on when it is resumed."""
    async with deployment.worker(app):
        await deployment.send("run.start", workflow="rests", input="100ms", run_id="r")
        await deployment.until_step("r", "rest", "scheduled")
        await deployment.send("run.suspend", run_id="r")
        await deployment.until("r", "suspended")
        await deployment.until_step("r", "rest", "succeeded")
        assert "after" not in (await deployment.until("r", "suspended")).steps
        await deployment.send("run.resume", run_id="r")
        await deployment.until("r", "completed")
        await deployment.quiet()


@pytest.mark.parametrize("linger_ms", [0, 40, 300])
async def test_a_suspended_run_is_not_kept_in_memory_for_ever(deployment, gate, linger_ms):
    """It is given up like any run that waits, also when it lingers for longer than renewals do."""
    async with deployment.worker(app, linger_ms=linger_ms, lease_ms=100) as worker:
        await begun(deployment, gate)
        await deployment.send("run.suspend", run_id="r")
        await deployment.until("r", "suspended")
        gate.touch()
        await deployment.until_step("r", "gate", "succeeded")
        await deployment.quiet()
        assert len(worker.worker._actors) == 0
        await deployment.send("run.resume", run_id="r")
        await deployment.until("r", "completed")
        await deployment.quiet()


async def test_queue_steps_of_a_suspended_run_wait(deployment):
    """A step that was sent before the suspension begins after the resumption."""
    async with deployment.worker(app):
        await deployment.send("run.start", workflow="queued", input=4, run_id="r")
        await deployment.until_step("r", "far", "scheduled")
        await deployment.send("run.suspend", run_id="r")
        await deployment.until("r", "suspended")
        async with deployment.worker(app, queues=("warehouse",)) as warehouse:
            await wait_until(lambda: warehouse.reached["after_begin"] >= 3)
            assert (await deployment.step("r", "far"))["status"] == "scheduled"
            await deployment.send("run.resume", run_id="r")
            await deployment.until("r", "completed")
            await deployment.quiet()
            assert warehouse.reached["before_handler"] == 1


async def test_a_failure_during_a_suspension_is_tried_again_after_it(deployment, gate):
    """The next attempt waits like every other step."""
    async with deployment.worker(app):
        await deployment.send("run.start", workflow="fails_at_gate", input=str(gate), run_id="r")
        await deployment.until_step("r", "gate", "running")
        await deployment.send("run.suspend", run_id="r")
        await deployment.until("r", "suspended")
        gate.touch()
        await deployment.until_step("r", "gate", "pending")
        await wait_until(lambda: timers_empty(deployment))
        record = await deployment.until("r", "suspended")
        assert record.of_step("gate")[-1]["status"] == "pending"
        await deployment.send("run.resume", run_id="r")
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert record.count("running") == 2


async def timers_empty(deployment):
    return not await deployment.client.zcard(f"{deployment.prefix}:timers")


async def test_a_suspended_run_can_be_cancelled(deployment, gate):
    """Its handler is cancelled as that of a running one."""
    async with deployment.worker(app):
        await begun(deployment, gate)
        await deployment.send("run.suspend", run_id="r")
        await deployment.until("r", "suspended")
        await deployment.send("run.cancel", run_id="r")
        await deployment.until("r", "cancelled")
        await deployment.quiet()


async def test_a_signal_is_recorded_once_per_id(deployment, gate):
    """Sent again under its id it changes nothing; without an id each one counts."""
    async with deployment.worker(app) as worker, deployment.worker(app):
        await begun(deployment, gate)
        for _ in range(3):
            await deployment.send("run.signal", run_id="r", name="paid", data={"sum": 1}, id="s-1")
        for number in range(2):
            await deployment.send("run.signal", run_id="r", name="seen", data=number)

        async def all_read():
            return await deployment.client.xlen(deployment.stream()) == 1

        await wait_until(all_read)
        gate.touch()
        record = await deployment.until("r", "completed")
        await deployment.quiet()
        assert not worker.ended.is_set()
    signals = [entry for entry in record.entries if entry["t"] == "signal"]
    assert [s["data"] for s in signals if s["name"] == "paid"] == [{"sum": 1}]
    assert sorted(s["data"] for s in signals if s["name"] == "seen") == [0, 1]


async def test_more_signals_than_one_reply_carries(deployment, gate):
    """A run learns of all that was recorded, in their order, however many there are at once."""
    async with deployment.worker(app):
        await begun(deployment, gate)
        pipe = deployment.client.pipeline(transaction=False)
        for number in range(1_300):
            fields = {"type": "run.signal", "run_id": "r", "name": "n", "data": str(number)}
            pipe.xadd(deployment.stream(), fields)
        await pipe.execute()
        gate.touch()
        record = await deployment.until("r", "completed")
        refused = sum(entry["t"] == "signal" for entry in record.entries) - 1_300
        await deployment.quiet(dead=-refused)
    numbers = [entry["data"] for entry in record.entries if entry["t"] == "signal"]
    assert len(set(numbers)) == len(numbers)


async def test_a_signal_that_comes_as_the_run_ends_is_seen_or_refused(deployment):
    """Never neither: what is not in the history before the end is a dead letter."""
    runs = [f"r{number}" for number in range(20)]
    async with deployment.worker(app), deployment.worker(app):
        for run_id in runs:
            await deployment.send("run.start", workflow="one_step", run_id=run_id)
        await deployment.until(runs[0])
        for run_id in runs:
            await deployment.send("run.signal", run_id=run_id, name="now", id=f"of-{run_id}")
        records = [await deployment.until(run_id, "completed") for run_id in runs]

        async def all_accounted_for():
            seen = sum(entry["t"] == "signal" for r in records for entry in r.entries)
            return seen + await deployment.client.xlen(f"{deployment.prefix}:dead") == len(runs)

        await wait_until(all_accounted_for)
    letters = await deployment.dead_letters(0)
    await deployment.quiet(dead=len(letters))
    assert {letter["reason"] for letter in letters} <= {"run_ended"}


async def test_a_run_that_another_program_ends_while_it_is_driven_here(deployment, gate):
    """`run.complete` of a daemon's run is final like any end; the handler is cancelled."""
    async with deployment.worker(app):
        await begun(deployment, gate)
        await deployment.send("run.complete", run_id="r", output={"by": "hand"})
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert json.loads(record.run["output"]) == {"by": "hand"}


def thread_gate(name):
    return app_gate / name


@pytest.fixture(autouse=True)
def gate_of_threads(tmp_path, monkeypatch):
    global app_gate  # noqa: PLW0603 - the handler in its thread looks there, too
    app_gate = tmp_path
    monkeypatch.setenv("ASKEL_TEST_GATES", str(tmp_path))


async def test_a_late_copy_of_a_command_that_had_nothing_to_do_does_nothing_later(deployment):
    """Its id is remembered all the same: what was sent between the two copies stands."""
    async with deployment.worker(app):
        await deployment.send("run.create", workflow="w", run_id="r")
        await deployment.until("r", "running")
        await deployment.send("run.resume", run_id="r", id="res1")
        await deployment.quiet()
        await deployment.send("run.suspend", run_id="r", id="sus1")
        await deployment.until("r", "suspended")
        await deployment.send("run.resume", run_id="r", id="res1")
        await deployment.quiet()
        assert await deployment.status("r") == "suspended"


@pytest.mark.parametrize("type", ["step.complete", "step.fail"])
async def test_the_outcome_of_a_step_sent_twice_under_one_id_is_applied_once(deployment, type):
    """The other copies are settled, no dead letters: while the run goes on, and when it ended."""
    answer = {"run_id": "r", "step_name": "pack", "attempt": 1, "id": "packed-1"}
    async with deployment.worker(app):
        await deployment.send("run.start", workflow="foreign", run_id="r")
        await deployment.until_step("r", "pack", "scheduled")
        await deployment.send(type, **answer)
        await deployment.send(type, **answer)
        await deployment.until("r", ("completed", "failed"))
        await deployment.client.delete(deployment.stream("rust"))
        await deployment.send(type, **answer)
        await deployment.quiet(dead=0)
