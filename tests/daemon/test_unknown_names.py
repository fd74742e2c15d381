"""A name that a worker lacks is a rolling deploy: the command waits for who has it, for a time."""

import json

import pytest
from tests.apps.parts import app, nothing
from tests.helpers.waiting import wait_until

from askel import App
from askel.state import run_id_of_command
from askel.wire import DeadLetters

LONG = {"unknown_after_ms": 60_000}


def only_steps():
    """The app of a deploy that has the steps but not yet the workflows."""
    half = App("half")
    half.steps.update(app.steps)
    return half


@pytest.mark.parametrize("fields", [{}, {"run_id": "r"}, {"id": "order-1"}])
async def test_a_start_goes_back_until_a_worker_has_the_workflow(deployment, fields):
    """It is tried again and again without being a fault, and its run is started once."""
    async with deployment.worker(nothing, **LONG) as lacking:
        await deployment.send("run.start", workflow="one_step", input=1, **fields)
        await wait_until(lambda: len(lacking.logged("unknown_name")) >= 3)
        assert await deployment.runs() == []
        async with deployment.worker(app, **LONG):
            (run_id,) = await wait_until(deployment.runs)
            await deployment.until(run_id, "completed")
            await deployment.quiet(dead=0)
        assert not lacking.logged("command_dead_lettered")
    tries = [record["tries"] for record in lacking.logged("unknown_name")]
    assert tries == list(range(1, len(tries) + 1))
    if fields.get("id"):
        assert run_id == run_id_of_command("order-1")


async def test_more_refusals_than_deaths_are_allowed_are_no_poison(deployment):
    """A command that many workers lack is not mistaken for one that kills them."""
    async with deployment.worker(app, max_deliveries=2, linger_ms=0):
        await deployment.send("run.start", workflow="rests", input="150ms", run_id="r")
        await deployment.until_step("r", "rest", "scheduled")
    async with deployment.worker(only_steps(), max_deliveries=2, **LONG) as lacking:
        await deployment.until_step("r", "rest", "succeeded")
        await wait_until(lambda: len(lacking.logged("unknown_name", run_id="r")) >= 4)
        async with deployment.worker(app, max_deliveries=2):
            await deployment.until("r", "completed")
            await deployment.quiet(dead=0)


@pytest.mark.parametrize("fields", [{"run_id": "r"}, {"id": "order-1"}, {}])
async def test_a_started_run_survives_workers_that_lack_its_code(deployment, fields):
    """Its token is passed on: the run is neither lost nor started a second time."""
    run_id = await started_by_a_dead_worker(deployment, fields)
    async with deployment.worker(nothing, **LONG) as lacking:
        await wait_until(lambda: len(lacking.logged("unknown_name")) >= 2)
    async with deployment.worker(with_nobody(), queues=("", "nobody")):
        await deployment.until(run_id, "completed")
        await deployment.quiet(dead=0)
    assert await deployment.runs() == [run_id]


async def started_by_a_dead_worker(deployment, fields):
    """Start a run whose token is its start, still pending for a worker that is no more."""
    entry = await deployment.send("run.start", workflow="waits_for_nobody", input=1, **fields)
    async with deployment.worker(with_nobody(), lease_ms=500, claim_idle_ms=60_000) as first:
        (run_id,) = await wait_until(deployment.runs)
        await deployment.until_step(run_id, "never", "scheduled")
        stream = deployment.stream()
        await deployment.client.xclaim(stream, "askeld", "a-dead-one", 0, [entry])
        await wait_until(lambda: first.logged("entry_lost"))
    return run_id


def with_nobody():
    later = App("later")

    @later.step
    async def late(data: int) -> int:
        return data

    @later.workflow
    async def waits_for_nobody(run, data: int) -> int:
        return await run.do("never", "late", data, queue="nobody")

    return later


async def test_a_start_that_nobody_can_serve_is_kept_in_the_end(deployment):
    """After `unknown_after` it is a dead letter that says what to deploy."""
    async with deployment.worker(nothing, unknown_after_ms=200):
        await deployment.send("run.start", workflow="one_step", input=7, run_id="r", tenant="t")
        (letter,) = await deployment.dead_letters()
        await deployment.quiet(dead=1)
    assert letter["reason"] == "unknown_workflow"
    assert "no worker has 'one_step'" in letter["detail"]
    assert (letter["input"], letter["run_id"], letter["tenant"]) == ("7", "r", "t")
    assert await deployment.runs() == []


async def test_a_step_goes_back_until_a_worker_has_the_function(deployment):
    """The step is not begun, no attempt is spent."""
    async with deployment.worker(nothing, **LONG) as lacking:
        await deployment.send("run.create", workflow="w", run_id="d")
        await deployment.until("d", "running")
        await deployment.send("step.execute", run_id="d", step_name="s", rpc_name="echo", data=1)
        await wait_until(lambda: len(lacking.logged("unknown_name")) >= 3)
        assert await deployment.step("d", "s") == {}
        async with deployment.worker(app, **LONG):
            await deployment.until_step("d", "s", "succeeded")
            await deployment.quiet(dead=0)
    record = await deployment.until("d", "running")
    assert record.path("s") == ["running 1", "succeeded 1"]


async def test_a_step_that_nobody_can_execute_stalls_its_run(deployment):
    """The command is kept, the run says why it stands still, and goes on after `run.resume`."""
    async with deployment.worker(nothing, unknown_after_ms=200):
        await deployment.send("run.create", workflow="w", run_id="d")
        await deployment.until("d", "running")
        await deployment.send("step.execute", run_id="d", step_name="s", rpc_name="echo", data=1)
        record = await deployment.until("d", "stalled")
        (letter,) = await deployment.dead_letters()
        await deployment.quiet(dead=1)
    assert letter["reason"] == "unknown_step"
    assert "no worker has 'echo'" in json.loads(record.run["error"])["message"]
    async with deployment.worker(app):
        await deployment.send("run.resume", run_id="d")
        await deployment.until("d", "running")
        await deployment.send("step.execute", run_id="d", step_name="s", rpc_name="echo", data=1)
        await deployment.until_step("d", "s", "succeeded")
        await deployment.send("run.complete", run_id="d")
        record = await deployment.until("d", "completed")
        await deployment.quiet(dead=1)
    assert "error" not in record.run


async def test_what_the_letter_advises_executes_the_step(deployment):
    """Deploy the function, redrive the letter, resume the run: the step is not lost with it."""
    async with deployment.worker(app, unknown_after_ms=0, linger_ms=0):
        await deployment.send("run.start", workflow="foreign", input=1, run_id="r")
        await deployment.until_step("r", "pack", "scheduled")
    (sent,) = await deployment.client.xrange(deployment.stream("rust"))
    has_rust = {"queues": ("", "rust")}
    async with deployment.worker(app, unknown_after_ms=0, **has_rust):
        record = await deployment.until("r", "stalled")
        (letter,) = await deployment.dead_letters()
    advice = "deploy one that has, redrive the dead letter of this command (askel dead ls --run r)"
    assert advice in letter["detail"]
    assert advice in json.loads(record.run["error"])["message"]
    assert letter["rpc_name"].encode() == sent[1][b"rpc_name"]
    deployed = App("deployed")
    deployed.workflows.update(app.workflows)
    deployed.step(name=letter["rpc_name"])(echo)
    async with DeadLetters(deployment.url, deployment.prefix) as letters:
        async for each in letters.all(run_id="r"):
            assert await letters.redrive(each)
    async with deployment.worker(deployed, **has_rust):
        await deployment.send("run.resume", run_id="r")
        await deployment.until("r", "completed")
        await deployment.quiet(dead=0)


async def echo(data):
    return data


async def test_a_lock_of_another_program_does_not_keep_a_run_from_being_stalled(deployment):
    """Its end is waited for: the command is a dead letter and the run stalled, or neither."""
    await deployment.send("run.create", workflow="w", run_id="d")
    async with deployment.worker(nothing):
        await deployment.until("d", "running")
    lock = f"{deployment.prefix}:lock:d"
    async with deployment.worker(nothing, unknown_after_ms=0) as worker:
        await deployment.client.set(lock, "somebody", px=60_000)
        await deployment.send("step.execute", run_id="d", step_name="s", rpc_name="echo", data=1)
        await wait_until(lambda: worker.reached["after_stall"] >= 2)
        assert await deployment.client.xlen(f"{deployment.prefix}:dead") == 0
        await deployment.client.delete(lock)
        await deployment.until("d", "stalled")
        await deployment.quiet(dead=1)


async def test_an_unknown_step_of_a_former_run_stalls_none_of_its_id(deployment):
    """The command says for which run it was sent: nobody waits for it any more."""
    async with deployment.worker(nothing, unknown_after_ms=0) as worker:
        await deployment.send("run.create", workflow="w", run_id="d")
        await deployment.until("d", "running")
        words = {"run_id": "d", "step_name": "s", "rpc_name": "echo", "born": "1"}
        await deployment.send("step.execute", **words)
        await wait_until(lambda: worker.logged("unknown_name_given_up"))
        await deployment.quiet(dead=0)
        assert await deployment.status("d") == "running"


async def test_a_run_whose_workflow_nobody_has_any_more_is_stalled_and_resumed(deployment):
    """An existing run is never thrown away: it waits for its code and for `run.resume`."""
    async with deployment.worker(app, linger_ms=0):
        await deployment.send("run.start", workflow="rests", input="20ms", run_id="r")
        await deployment.until_step("r", "rest", "scheduled")
    async with deployment.worker(only_steps(), unknown_after_ms=150):
        record = await deployment.until("r", "stalled")
        await deployment.quiet(dead=0)
    assert "no worker has 'rests'" in json.loads(record.run["error"])["message"]
    async with deployment.worker(app):
        await deployment.send("run.resume", run_id="r")
        record = await deployment.until("r", "completed")
        await deployment.quiet(dead=0)
    assert "error" not in record.run
    assert list(record.steps) == ["before", "rest", "after"]


@pytest.mark.parametrize("fields", [{"run_id": "r"}, {"id": "order-1"}, {}])
async def test_a_started_run_is_stalled_not_thrown_away_with_its_start(deployment, fields):
    """Its token is the start itself; given up, the run is stalled and can be resumed."""
    run_id = await started_by_a_dead_worker(deployment, fields)
    async with deployment.worker(nothing, unknown_after_ms=100):
        await deployment.until(run_id, "stalled")
    async with deployment.worker(with_nobody(), queues=("", "nobody")):
        await deployment.send("run.resume", run_id=run_id)
        await deployment.until(run_id, "completed")
        await deployment.quiet(dead=0)


async def test_a_suspended_run_that_nobody_knows_waits_for_its_resumption(deployment):
    """Suspended is suspended: giving up on a name does not change that, nor go round in circles."""
    async with deployment.worker(app, linger_ms=0):
        await deployment.send("run.start", workflow="rests", input="1h", run_id="r")
        await deployment.until_step("r", "rest", "scheduled")
        await deployment.send("run.suspend", run_id="r")
        await deployment.until("r", "suspended")
        await wait_until(lambda: stream_empty(deployment))
    async with deployment.worker(only_steps(), unknown_after_ms=100) as lacking:
        await deployment.send("run.signal", run_id="r", name="hello")
        await wait_until(lambda: lacking.logged("unknown_name_given_up"))
        await wait_until(lambda: stream_empty(deployment))
        await deployment.until("r", "suspended")
        assert len(lacking.logged("unknown_name_given_up")) == 1
    async with deployment.worker(app, clock_offset_ms=3_600_000):
        await deployment.send("run.resume", run_id="r")
        await deployment.until("r", "completed")


async def stream_empty(deployment):
    return not await deployment.client.xlen(deployment.stream())


async def test_a_draining_worker_gives_back_what_it_cannot_serve_at_once(deployment):
    """Not after the pause it would have made."""
    async with deployment.worker(nothing, unknown_after_ms=600_000) as lacking:
        await deployment.send("run.start", workflow="one_step", run_id="r", tries=12)
        await wait_until(lambda: lacking.logged("unknown_name", tries=13))
        assert lacking.reached["before_put_back"] == 0, "it pauses for 5 s"
        await lacking.stopped()
    async with deployment.worker(app):
        await deployment.until("r", "completed", timeout=3)
        await deployment.quiet(dead=0)


async def test_a_command_of_a_newer_version_waits_for_newer_workers_and_is_kept_in_the_end(
    deployment,
):
    """Row `unknown newer version`: a rolling deploy has senders that are newer than a worker."""
    fields = {"type": "run.begin", "v": "2", "workflow": "one_step", "surprise": "\u00e9"}
    sent = await deployment.client.xadd(deployment.stream(), fields)
    async with deployment.worker(app) as worker:
        await wait_until(lambda: len(worker.logged("newer_version")) >= 2)
        assert await deployment.client.xlen(f"{deployment.prefix}:dead") == 0
        (letter,) = await deployment.dead_letters(1)
        await deployment.quiet(dead=1)
    assert letter["reason"] == "unknown_version"
    assert letter["entry"] != sent.decode()
    assert letter.items() >= fields.items()
