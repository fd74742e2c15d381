"""What kills its worker each time ends as a dead letter; its neighbours finish."""

import json
import signal
from functools import partial

import pytest
from tests.apps.parts import app
from tests.helpers.deaths import feed_workers as deaths_of
from tests.helpers.forked import ForkedWorker
from tests.helpers.waiting import wait_until

#: After two deaths the third worker buries what killed them.
FAST = {
    "lease_ms": 150,
    "claim_idle_ms": 250,
    "sweep_ms": 20,
    "max_deliveries": 2,
    "queues": ("", "warehouse"),
}


async def feed_workers(deployment, directory, deaths, over):
    """Start workers until one lives; return how many died, each of its own SIGKILL."""
    died = await deaths_of(deployment, directory, "tests.apps.parts:app", FAST, over, deaths)
    assert {worker.returncode for worker in died} <= {-signal.SIGKILL}
    return len(died)


async def test_a_poison_step_command_is_buried_and_its_step_has_failed(deployment, tmp_path):
    """Two workers die of it, no third; whoever drives the run is told."""
    for number in range(5):
        await deployment.send("run.start", workflow="queued", input=number, run_id=f"n{number}")
    await deployment.send("run.create", workflow="w", run_id="d")
    await deployment.send(
        "step.execute", "warehouse", run_id="d", step_name="s", rpc_name="die_again"
    )

    async def over():
        return await deployment.client.xlen(f"{deployment.prefix}:dead") == 1

    assert await feed_workers(deployment, tmp_path, 2, over) == 2
    async with deployment.worker(app, queues=("", "warehouse")):
        for number in range(5):
            await deployment.until(f"n{number}", "completed")
        await deployment.quiet(dead=1)
        record = await deployment.until("d", "running")
    (letter,) = await deployment.dead_letters()
    assert letter["reason"] == "poison"
    assert letter["type"] == "step.execute"
    assert letter["deliveries"] == "2"
    assert record.path("s") == ["running 1", "lost 1", "running 2", "lost 2"]
    assert record.steps["s"]["status"] == "failed"
    assert json.loads(record.steps["s"]["error"])["name"] == "PoisonStep"


async def test_poison_of_a_former_generation_fails_no_step_of_the_next(deployment):
    """Its command is buried; the step of the same name that the next one waits for goes on."""
    calm = {"max_deliveries": 2, "unknown_after_ms": 60_000}
    async with deployment.worker(app, **calm):
        await deployment.send("run.start", workflow="foreign", input=1, run_id="r")
        await deployment.until_step("r", "pack", "scheduled")
        stream = deployment.stream("rust")
        await deployment.client.xgroup_create(stream, "askeld", "0")
        ((_, ((old, _),)),) = await deployment.client.xreadgroup("askeld", "dead", {stream: ">"})
        anew = {"workflow": "foreign", "input": 2, "if_exists": "terminate-existing"}
        await deployment.send("run.start", run_id="r", **anew)
        await deployment.until("r.g1", "cancelled")
        await deployment.until_step("r", "pack", "scheduled")
    await deployment.client.xclaim(stream, "askeld", "dead", 0, [old], retrycount=2, idle=60_000)
    async with deployment.worker(app, queues=("", "rust"), **calm):
        (letter,) = await deployment.dead_letters()
        assert (letter["entry"], letter["reason"]) == (old.decode(), "poison")
        assert (await deployment.step("r", "pack"))["status"] == "scheduled"
        assert await deployment.status("r") == "running"


async def test_a_workflow_goes_on_after_a_poison_step_of_a_queue(deployment, tmp_path):
    """It sees a failed step, like any other; nothing waits for ever."""
    await deployment.send("run.start", workflow="sends_poison", run_id="r")

    async def over():
        return await deployment.status("r") == "completed"

    assert await feed_workers(deployment, tmp_path, 2, over) == 2
    async with deployment.worker(app, queues=("", "warehouse")):
        await deployment.quiet(dead=1)
    record = await deployment.until("r", "completed")
    assert "its worker died" in json.loads(record.run["output"])


async def test_a_long_step_in_its_last_delivery_does_not_hold_back_the_others_for_ever(
    deployment, tmp_path
):
    """They are worked on one at a time, but for what has lived through a few leases."""
    gate = tmp_path / "gate"
    async with deployment.worker(app):
        await deployment.send("run.create", workflow="w", run_id="d")
        await deployment.until("d", "running")
    words = {"run_id": "d", "rpc_name": "wait_for_file", "data": str(gate)}
    await deployment.send("step.execute", "warehouse", step_name="long", **words)
    names = [f"s{number}" for number in range(3)]
    for name in names:
        words = {"run_id": "d", "rpc_name": "echo", "data": 1}
        await deployment.send("step.execute", "warehouse", step_name=name, **words)
    stream = deployment.stream("warehouse")
    await deployment.client.xgroup_create(stream, "askeld", "0")
    ((_, entries),) = await deployment.client.xreadgroup("askeld", "dead", {stream: ">"})
    ids = [entry for entry, _ in entries]
    await deployment.client.xclaim(stream, "askeld", "dead", 0, ids, retrycount=1, idle=60_000)
    async with deployment.worker(app, queues=("warehouse",), max_deliveries=2):
        await wait_until((tmp_path / "gate.begun").exists)
        assert not any([await deployment.step("d", name) for name in names])
        for name in names:
            await deployment.until_step("d", name, "succeeded")
        assert (await deployment.step("d", "long"))["status"] == "running"
        gate.touch()
        await deployment.until_step("d", "long", "succeeded")
        await deployment.quiet(dead=0)


@pytest.mark.parametrize(("retries", "deaths"), [(0, 1), (3, 4)])
async def test_a_local_step_that_kills_is_bounded_by_its_retries(
    deployment, tmp_path, retries, deaths
):
    """Each death is a lost attempt: the run fails when they are used up, and is never stuck."""
    await deployment.send("run.start", workflow="dies_here", input=retries, run_id="r")
    await deployment.send("run.start", workflow="one_step", input=1, run_id="neighbour")

    async def over():
        return await deployment.status("r") == "failed"

    assert await feed_workers(deployment, tmp_path, deaths, over) == deaths
    async with deployment.worker(app):
        await deployment.until("neighbour", "completed")
        await deployment.quiet(dead=0)
    record = await deployment.until("r", "failed")
    assert record.count("lost") == deaths
    assert "AttemptLost" in record.steps["it"]["error"]


async def test_workflow_code_that_kills_fails_its_run(deployment, tmp_path):
    """No turn ever lands: after two deaths the run has failed, with its token as a dead letter."""
    await deployment.send("run.start", workflow="kills", run_id="r")
    await deployment.send("run.start", workflow="one_step", input=1, run_id="neighbour")

    async def over():
        return await deployment.status("r") == "failed"

    assert await feed_workers(deployment, tmp_path, 2, over) == 2
    async with deployment.worker(app):
        await deployment.until("neighbour", "completed")
        await deployment.quiet(dead=1)
    (letter,) = await deployment.dead_letters()
    assert (letter["reason"], letter["type"]) == ("poison", "run.start")
    record = await deployment.until("r", "failed")
    assert json.loads(record.run["error"])["name"] == "PoisonRun"


async def test_a_run_whose_workers_die_of_other_things_is_not_poison(deployment, tmp_path):
    """A token that outlives many workers is delivered many times; what counts is progress."""
    gates = [tmp_path / f"gate{number}" for number in range(5)]
    await deployment.send("run.start", workflow="many_gates", input=[*map(str, gates)], run_id="r")
    for number, gate in enumerate(gates):
        worker = ForkedWorker(
            "tests.apps.parts:app",
            redis_url=deployment.url,
            prefix=deployment.prefix,
            directory=tmp_path,
            settings=FAST,
        )
        async with worker:
            await wait_until(partial(begun, deployment, number), 20, worker.tail)
            gate.touch()
            await deployment.until_step("r", key(number), "succeeded")
            # and is killed in the next step
    async with deployment.worker(app, max_deliveries=2):
        record = await deployment.until("r", "completed")
        await deployment.quiet(dead=0)
    assert record.count("succeeded") == 5


def key(number):
    return f"gate#{number}" if number else "gate"


async def begun(deployment, number):
    step = await deployment.step("r", key(number))
    return step.get("status") in {"running", "succeeded"}
