"""Runs are started by a plain XADD; the same start sent twice starts one run."""

import redis as redis_py
from tests.apps.parts import JOURNEY, app
from tests.helpers.history_checker import check_all
from tests.helpers.waiting import wait_until

from askel import Client, RedisWorkflowService, StreamQueue
from askel.state import run_id_of_command, run_id_of_entry


async def test_a_plain_xadd_starts_a_run(deployment, redis_url, prefix):
    """The line of the manual, sent by a client that knows nothing of askel, runs a workflow."""
    line = f"XADD {prefix}:commands * type run.start workflow journey input".split()
    with redis_py.Redis.from_url(redis_url, protocol=2) as plain:
        plain.execute_command(*line, '{"email":"a@b.c"}')
    async with deployment.worker(app, queues=("", "warehouse")) as worker:
        (run_id,) = await wait_until(deployment.runs)
        record = await deployment.until(run_id, "completed")
        await deployment.quiet()
    assert record.run["workflow"] == "journey"
    assert record.run["input"] == '{"email":"a@b.c"}'
    assert await outcome(deployment, run_id) == [*JOURNEY, {"email": "a@b.c"}]
    assert worker.logged("run_ended", run_id=run_id, status="completed", workflow="journey")


async def outcome(deployment, run_id):
    async with RedisWorkflowService(deployment.url, key_prefix=deployment.prefix) as service:
        return (await service.get_run(run_id)).output


async def test_an_entry_that_is_delivered_again_starts_the_same_run(deployment):
    """Without any id the run id comes from the entry: a redelivery cannot make a second run."""
    entry = await deployment.send("run.start", workflow="one_step", input=5)
    stream = deployment.stream()
    await deployment.client.xgroup_create(stream, "askeld", "0")
    await deployment.client.xreadgroup("askeld", "a-dead-one", {stream: ">"})
    async with deployment.worker(app, claim_idle_ms=301, sweep_ms=10) as worker:
        (run_id,) = await wait_until(deployment.runs)
        await deployment.until(run_id, "completed")
        await deployment.quiet()
        assert worker.logged("entry_reclaimed", entry_id=entry, deliveries=2)
    # By that rule the id is foreseeable:
    assert run_id == run_id_of_entry(stream, entry)


async def test_a_start_with_an_id_is_applied_once_however_often_it_is_sent(deployment):
    """Sent three times, also after the run has ended: one run, nothing is dead-lettered."""
    async with deployment.worker(app):
        for _ in range(2):
            await deployment.send("run.start", workflow="one_step", input=1, id="order-42")
        run_id = run_id_of_command("order-42")
        await deployment.until(run_id, "completed")
        await deployment.send("run.start", workflow="one_step", input=1, id="order-42")
        await deployment.quiet(dead=0)
        assert await deployment.runs() == [run_id]
        (record,) = await check_all(deployment.client, deployment.prefix)
    assert record.count("running") == 1


async def test_the_same_id_with_another_input_is_a_conflict(deployment):
    """Two different orders under one id: the first runs, the second is kept with its reason."""
    async with deployment.worker(app):
        await deployment.send("run.start", workflow="one_step", input=1, id="order-42")
        await deployment.until(run_id_of_command("order-42"), "completed")
        await deployment.send("run.start", workflow="one_step", input=2, id="order-42")
        (letter,) = await deployment.dead_letters()
        await deployment.quiet(dead=1)
    assert letter["reason"] == "run_conflict"
    assert run_id_of_command("order-42") in letter["detail"]
    assert (letter["id"], letter["input"]) == ("order-42", "2")


async def test_a_run_id_is_taken_once(deployment):
    """Sent twice under a run id of the sender's, the second start is refused."""
    async with deployment.worker(app):
        await deployment.send("run.start", workflow="one_step", input=1, run_id="mine")
        await deployment.until("mine", "completed")
        await deployment.send("run.start", workflow="one_step", input=1, run_id="mine")
        (letter,) = await deployment.dead_letters()
        await deployment.quiet(dead=1)
    assert letter["reason"] == "run_exists"
    assert (letter["run_id"], letter["detail"]) == ("mine", "run 'mine' exists already")


async def test_if_exists_return_takes_what_there_is(deployment):
    """Whoever wants the run to be there, not to be made, is not refused."""
    async with deployment.worker(app):
        for _ in range(2):
            await deployment.send(
                "run.start", workflow="one_step", input=1, run_id="mine", if_exists="return"
            )
            await deployment.until("mine", "completed")
        await deployment.quiet(dead=0)
    assert await deployment.runs() == ["mine"]


async def test_an_unknown_policy_is_refused(deployment):
    """It is not taken for another one."""
    async with deployment.worker(app):
        await deployment.send("run.start", workflow="one_step", run_id="a", if_exists="whatever")
        (letter,) = await deployment.dead_letters()
        await deployment.quiet(dead=1)
    assert letter["reason"] == "invalid_command"
    assert "use one of reject, return, after-terminal" in letter["detail"]
    assert await deployment.runs() == []


async def test_a_start_for_later_waits_for_its_time(deployment):
    """With `at` nothing happens before; afterwards it happens once, by whoever is there then."""
    seconds, microseconds = await deployment.client.time()
    now = seconds * 1_000 + microseconds // 1_000
    async with deployment.worker(app) as worker:
        await deployment.send("run.start", workflow="one_step", run_id="soon", at=now + 120)
        await deployment.send("run.start", workflow="one_step", run_id="late", at=now + 3_600_000)
        await deployment.send("run.start", workflow="one_step", run_id="past", at=now - 1)
        record = await deployment.until("soon", "completed")
        assert record.entries[0]["at"] >= now + 120
        past = await deployment.until("past", "completed")
        assert past.entries[0]["at"] <= record.entries[0]["at"]
        assert await deployment.status("late") is None
        assert worker.reached["after_put_back"] == 3
    # An hour later:
    async with deployment.worker(app, clock_offset_ms=3_600_000):
        record = await deployment.until("late", "completed")
        await deployment.quiet()
    assert record.entries[0]["at"] >= now + 3_600_000


async def test_equal_commands_for_the_same_moment_are_as_many_commands(deployment):
    """Nothing is lost where commands without an id look the same."""
    seconds, _ = await deployment.client.time()
    soon = seconds * 1_000 + 3_000
    async with deployment.worker(app) as worker:
        await deployment.send("run.create", workflow="theirs", run_id="d")
        await deployment.until("d", "running")
        for _ in range(3):
            await deployment.send("run.start", workflow="one_step", input=1, at=soon)
            await deployment.send("run.signal", run_id="d", name="again", at=soon)
        await wait_until(lambda: worker.reached["after_put_back"] == 6)
    async with deployment.worker(app, clock_offset_ms=10_000):
        await deployment.until_completed(3)
        await deployment.quiet()
    record = await deployment.until("d", "running")
    assert [entry["name"] for entry in record.entries if entry["t"] == "signal"] == ["again"] * 3


async def test_the_client_starts_runs_and_awaits_their_results(deployment, redis_url, prefix):
    """The library's own way: a handle per run, results as values, failures as exceptions."""
    async with Client(redis_url, prefix) as client, deployment.worker(app):
        handles = [await client.start("one_step", {"n": n}) for n in range(20)]
        assert [await handle.result("10s") for handle in handles] == [{"n": n} for n in range(20)]
        await deployment.quiet()


async def test_an_app_started_through_a_queue_runs_in_the_daemon(deployment, redis_url, prefix):
    """The same call that runs a workflow here without a queue sends it to the daemons with one."""
    queue = StreamQueue(redis_url, prefix)
    async with (
        RedisWorkflowService(redis_url, queue, prefix) as service,
        deployment.worker(app, queues=("", "warehouse")) as worker,
    ):
        run_id = await app.start(service, "journey", "there")
        await deployment.until(run_id, "completed")
        await deployment.quiet()
        assert worker.reached["before_start"] == 1
    assert await outcome(deployment, run_id) == [*JOURNEY, "there"]
    await queue.close()
