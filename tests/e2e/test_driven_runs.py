"""Runs that another program drives step by step, and steps that other languages execute."""

import json

import pytest
from tests.apps.parts import app
from tests.helpers.waiting import wait_until

from askel import RedisWorkflowService
from askel.state import idempotency_key


async def create(deployment, run_id="d", **fields):
    await deployment.send("run.create", workflow="theirs", run_id=run_id, **fields)
    await deployment.until(run_id, "running")


async def execute(deployment, name, rpc="echo", run_id="d", queue="", **fields):
    await deployment.send(
        "step.execute", queue, run_id=run_id, step_name=name, rpc_name=rpc, **fields
    )


async def test_a_run_is_driven_by_commands_alone(deployment):
    """Created, three steps executed, completed: all of it by XADD, recorded under the rpc names."""
    async with deployment.worker(app) as worker:
        await create(deployment, input={"order": 7})
        for name, rpc, data in (("a", "echo", [1]), ("b c: é", "echo_sync", {}), ("d", "flaky", 2)):
            await execute(deployment, name, rpc, data=data)
            await deployment.until_step("d", name, "succeeded")
        await deployment.send("run.complete", run_id="d", output={"sum": 9})
        record = await deployment.until("d", "completed")
        await deployment.quiet()
        assert worker.reached["before_turn"] == 0, "nobody decides on a driven run"
    assert record.run["input"] == '{"order": 7}'
    assert json.loads(record.run["output"]) == {"sum": 9}
    assert record.step_names == ["a", "b c: é", "d"]
    assert [record.steps[name]["rpcName"] for name in record.step_names] == [
        "echo",
        "echo_sync",
        "flaky",
    ]
    assert record.path("d") == [
        *("running 1", "failed 1", "pending 2"),
        *("running 2", "failed 2", "pending 3"),
        *("running 3", "succeeded 3"),
    ]


async def test_the_service_reads_what_the_daemon_recorded(deployment):
    """The embedded library and the daemon mean the same by the same keys."""
    async with deployment.worker(app):
        await create(deployment)
        await execute(deployment, "s", "flaky", data=1)
        await deployment.until_step("d", "s", "succeeded")
    async with RedisWorkflowService(deployment.url, key_prefix=deployment.prefix) as service:
        step = await service.get_step_state("d", "s")
        attempts = await service.get_run_history("d")
    assert (step.rpc_name, step.result, step.attempt_count) == ("flaky", "ok", 2)
    assert [(a.attempt_count, str(a.status)) for a in attempts] == [(1, "failed"), (2, "succeeded")]
    assert attempts[0].error.message == "attempt 1"


async def test_a_step_is_executed_once_however_often_it_is_asked_for(deployment):
    """The step name is what it is done once for; the later commands are settled, not refused."""
    async with deployment.worker(app) as worker:
        await create(deployment)
        await execute(deployment, "s", data=1)
        await deployment.until_step("d", "s", "succeeded")
        for _ in range(3):
            await execute(deployment, "s", data=1)
        await deployment.quiet(dead=0)
        assert worker.reached["before_handler"] == 1
    record = await deployment.until("d", "running")
    assert record.path("s") == ["running 1", "succeeded 1"]


async def test_a_step_asked_for_twice_at_once_is_executed_once(deployment, tmp_path):
    """A second command for a step under way does not take the step from whoever executes it."""
    gate = tmp_path / "gate"
    async with deployment.worker(app) as worker, deployment.worker(app) as other:
        await create(deployment)
        await execute(deployment, "s", "wait_for_file", data=str(gate))
        await deployment.until_step("d", "s", "running")
        for _ in range(4):
            await execute(deployment, "s", "wait_for_file", data=str(gate))

        async def only_the_first_is_left():
            return await deployment.client.xlen(deployment.stream()) == 1

        await wait_until(only_the_first_is_left)
        gate.touch()
        await deployment.until_step("d", "s", "succeeded")
        await deployment.quiet(dead=0)
        assert worker.reached["before_handler"] + other.reached["before_handler"] == 1
    record = await deployment.until("d", "running")
    assert record.path("s") == ["running 1", "succeeded 1"]


async def test_a_step_that_keeps_failing_fails_for_good(deployment):
    """After the last attempt the error is the step's; the run stays with who drives it."""
    async with deployment.worker(app):
        await create(deployment)
        await execute(deployment, "s", "broken", data="bad", retries=2, retry_delay="1ms")
        await deployment.until_step("d", "s", "failed")
        await deployment.send("run.fail", run_id="d", error={"message": "s has failed"})
        record = await deployment.until("d", "failed")
        await deployment.quiet()
    assert [entry["attempt"] for entry in record.of_step("s") if entry["status"] == "failed"] == [
        *(1, 2, 3)
    ]
    error = json.loads(record.steps["s"]["error"])
    assert (error["name"], error["message"]) == ("ValueError", "it was bad")
    assert "parts.py" in error["stack"]
    assert json.loads(record.run["error"]) == {"message": "s has failed"}


@pytest.mark.parametrize(("fields", "tries"), [({}, 2), ({"retries": 0}, 1), ({"retries": 3}, 4)])
async def test_the_command_says_how_often_else_the_handler_does(deployment, fields, tries):
    """An explicit 0 means exactly one attempt."""
    async with deployment.worker(app):
        await create(deployment)
        await execute(deployment, "s", "broken", retry_delay="1ms", **fields)
        await deployment.until_step("d", "s", "failed")
        record = await deployment.until("d", "running")
    assert record.of_step("s")[-1]["attempt"] == tries


async def test_the_command_says_how_long_an_attempt_may_take(deployment, tmp_path):
    """A handler that takes longer has failed, and is tried again as often as the command says."""
    async with deployment.worker(app):
        await create(deployment)
        gate, limits = str(tmp_path / "never"), {"timeout": "20ms", "retries": 1}
        await execute(deployment, "s", "wait_for_file", data=gate, retry_delay="1ms", **limits)
        await deployment.until_step("d", "s", "failed")
        record = await deployment.until("d", "running")
        await deployment.quiet()
    errors = [entry["error"] for entry in record.of_step("s") if entry["status"] == "failed"]
    assert [error["message"] for error in errors] == ["the attempt took longer than 20ms"] * 2


async def test_the_same_step_name_for_another_function_is_refused(deployment):
    """The step of the first function stays as it is; the second command says why it was refused."""
    async with deployment.worker(app):
        await create(deployment)
        await execute(deployment, "s", "echo", data=1)
        await deployment.until_step("d", "s", "succeeded")
        await execute(deployment, "s", "echo_sync", data=1)
        (letter,) = await deployment.dead_letters()
        await deployment.quiet(dead=1)
    assert letter["reason"] == "step_conflict"
    assert (await deployment.step("d", "s"))["rpcName"] == "echo"


async def test_a_finished_run_takes_no_further_step(deployment):
    """What comes too late is kept with its reason; the run is as it was."""
    async with deployment.worker(app):
        await create(deployment)
        await deployment.send("run.complete", run_id="d")
        before = await deployment.until("d", "completed")
        await execute(deployment, "late", data=1)
        await deployment.send("run.signal", run_id="d", name="late")
        await deployment.send("run.fail", run_id="d")
        letters = await deployment.dead_letters(3)
        await deployment.quiet(dead=3)
        after = await deployment.until("d", "completed")
    assert {letter["type"]: letter["reason"] for letter in letters} == {
        "step.execute": "run_ended",
        "run.signal": "run_ended",
        "run.fail": "illegal_transition",
    }
    assert after == before


async def test_a_handler_gets_a_key_that_every_attempt_shares(deployment):
    """The idempotency key is the Node system's invocation id of run and step."""
    async with deployment.worker(app):
        await create(deployment)
        await execute(deployment, "s", "key_of_second_attempt", retry_delay="1ms")
        await deployment.until_step("d", "s", "succeeded")
    assert json.loads((await deployment.step("d", "s"))["result"]) == [
        idempotency_key("d", "s"),
        2,
    ]


# Workers in other languages


async def take(deployment, queue="rust"):
    """Read one step as a worker in another language does; return its fields."""
    stream = deployment.stream(queue)
    await deployment.client.xgroup_create(stream, "rustaceans", "0", mkstream=True)
    reply = await deployment.client.xreadgroup("rustaceans", "r1", {stream: ">"}, block=5_000)
    ((_, ((entry, fields),)),) = reply
    await deployment.client.xack(stream, "rustaceans", entry)
    await deployment.client.xdel(stream, entry)
    return {key.decode(): value.decode() for key, value in fields.items()}


@pytest.mark.parametrize("linger_ms", [0, 10_000])
async def test_another_language_serves_a_queue(deployment, linger_ms):
    """The step goes out as plain text and its result comes back as plain text."""
    async with deployment.worker(app, linger_ms=linger_ms):
        await deployment.send("run.start", workflow="foreign", input={"box": 3}, run_id="r")
        fields = await take(deployment)
        assert fields["type"] == "step.execute"
        assert (fields["run_id"], fields["step_name"]) == ("r", "pack")
        assert (fields["rpc_name"], json.loads(fields["data"])) == ("packOrder", {"box": 3})
        await deployment.send(
            "step.complete", run_id="r", step_name="pack", attempt=1, result={"packed": True}
        )
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert json.loads(record.run["output"]) == {"packed": True}
    assert record.path("pack") == ["scheduled 1", "succeeded 1"]


async def test_another_language_reports_a_failure(deployment):
    """The workflow sees it as it sees any failure of a step."""
    async with deployment.worker(app):
        await deployment.send("run.start", workflow="foreign", input=1, run_id="r")
        await take(deployment)
        await deployment.send(
            "step.fail", run_id="r", step_name="pack", attempt=1, error={"message": "too heavy"}
        )
        record = await deployment.until("r", "failed")
        await deployment.quiet()
    assert "too heavy" in json.loads(record.run["error"])["message"]
    assert json.loads(record.steps["pack"]["error"]) == {"message": "too heavy"}


async def test_a_result_is_taken_once_and_for_the_open_attempt_only(deployment):
    """A result sent twice, or for an attempt that is not open, is kept with its reason."""
    async with deployment.worker(app):
        await deployment.send("run.start", workflow="foreign_twice", input=1, run_id="r")
        await take(deployment)
        answer = {"run_id": "r", "step_name": "pack"}
        await deployment.send("step.complete", **answer, attempt=2, result="of the future")
        await deployment.dead_letters(1)
        await deployment.send("step.complete", **answer, attempt=1, result="first")
        await deployment.until_step("r", "pack", "succeeded")
        await deployment.send("step.complete", **answer, attempt=1, result="second")
        await deployment.send("step.fail", **answer, attempt=1)
        letters = await deployment.dead_letters(3)
        assert json.loads((await deployment.step("r", "pack"))["result"]) == "first"
        await deployment.send("run.cancel", run_id="r")
        await deployment.until("r", "cancelled")
    assert [letter["reason"] for letter in letters] == ["attempt_not_open"] * 3


async def test_a_result_from_elsewhere_for_a_step_that_is_executed_here(deployment, tmp_path):
    """Whoever is first settles the step; the worker whose handler is late goes on unharmed."""
    gate = tmp_path / "gate"
    async with deployment.worker(app) as worker:
        await deployment.send("run.start", workflow="waits", input=str(gate), run_id="r")
        await deployment.until_step("r", "gate", "running")
        await deployment.send(
            "step.complete", run_id="r", step_name="gate", attempt=1, result="by hand"
        )
        await deployment.until_step("r", "gate", "succeeded")
        await deployment.until_step("r", "after", "succeeded")
        gate.touch()
        record = await deployment.until("r", "completed")
        await deployment.send("run.start", workflow="one_step", input=1, run_id="next")
        await deployment.until("next", "completed")
        await deployment.quiet()
        assert not worker.ended.is_set()
    assert record.run["output"] == '"by hand"'
    assert record.path("gate") == ["running 1", "succeeded 1"]
