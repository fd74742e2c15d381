"""Stuck runs: made by meddling with Redis, found, explained, mended, and taken to their end."""

from itertools import pairwise

import pytest
from tests.apps.parts import app, wait_for_file
from tests.helpers.forked import ForkedWorker
from tests.helpers.state import snapshot
from tests.helpers.waiting import wait_until

from askel import App, RedisWorkflowService

pytestmark = pytest.mark.usefixtures("redis_server")

CALM = {"lease_ms": 60_000, "claim_idle_ms": 120_000, "linger_ms": 0}
#: Looks all the time.
WATCHFUL = {"retention_ms": 20, "queues": ("", "warehouse")}
later = App("later")


@later.step(retries=3, retry_delay="400ms")
async def flaky(data, ctx):
    if ctx.attempt == 1:
        raise ConnectionError("once")
    return data


@later.workflow
async def tries(run, data):
    return await run.do("it", flaky, data)


@later.workflow
async def far(run, path):
    return await run.do("far", "wait_for_file", path, queue="warehouse")


async def until_passive(deployment, run_id="r"):
    """Wait until no worker has the run in memory."""

    async def passive():
        ctl = await deployment.client.hgetall(f"{deployment.prefix}:ctl:{run_id}")
        return b"start" in ctl and not {b"owner", b"token"} & set(ctl)

    await wait_until(passive)


async def rests(deployment, duration, *, of=app, workflow="rests", linger_ms=0):
    """Have a run that sleeps and that no worker has; with linger, its token is on the stream."""
    async with deployment.worker(of, **{**CALM, "linger_ms": linger_ms}):
        await deployment.send("run.start", workflow=workflow, input=duration, run_id="r")
        if linger_ms:
            await deployment.until_step("r", "rest", "scheduled")
        else:
            await until_passive(deployment)


async def removed_by_hand(deployment, queue=""):
    """Have all that is on the stream delivered to a consumer, and remove that."""
    stream = deployment.stream(queue)
    await deployment.client.xreadgroup("askeld", "removed", {stream: ">"})
    return await deployment.client.xgroup_delconsumer(stream, "askeld", "removed")


async def ends(deployment, worker, status="completed"):
    record = await deployment.until("r", status)
    await deployment.quiet()
    assert not worker.logged("run_stuck", mended=False)
    return record


async def test_a_run_whose_consumer_was_removed_goes_on(deployment):
    """DELCONSUMER with pending entries: Redis gives them to nobody any more."""
    await rests(deployment, "50ms", linger_ms=60_000)
    assert await removed_by_hand(deployment) >= 1
    async with deployment.worker(app, **WATCHFUL) as worker:
        await ends(deployment, worker)
        assert worker.logged("entry_orphaned", stream=deployment.stream())


async def test_every_command_of_a_removed_consumer_is_applied_once(deployment):
    """Starts, signals, steps: what was accepted is not lost."""
    async with deployment.worker(app):
        await deployment.send("run.create", workflow="w", run_id="d")
        await deployment.until("d", "running")
    await deployment.client.xgroup_create(deployment.stream("warehouse"), "askeld", mkstream=True)
    await deployment.send("run.start", workflow="one_step", input=1, run_id="r")
    await deployment.send("run.signal", run_id="d", name="n", id="s-1")
    words = {"run_id": "d", "step_name": "s", "rpc_name": "echo", "data": 5}
    await deployment.send("step.execute", "warehouse", **words)
    assert await removed_by_hand(deployment) == 2
    assert await removed_by_hand(deployment, "warehouse") == 1
    async with deployment.worker(app, **WATCHFUL) as worker:
        await ends(deployment, worker)
        await deployment.until_step("d", "s", "succeeded")
        record = await deployment.record("d")
    assert [entry["t"] for entry in record.entries].count("signal") == 1
    assert record.path("s") == ["running 1", "succeeded 1"]
    assert len(worker.logged("entry_orphaned")) == 3


async def test_a_group_that_was_moved_on_leaves_nothing_behind(deployment):
    """XGROUP SETID $: what was never read counts as read."""
    await deployment.client.xgroup_create(deployment.stream(), "askeld", mkstream=True)
    for number in range(25):
        await deployment.send("run.start", workflow="one_step", input=1, run_id=f"r{number}")
    await deployment.client.xgroup_setid(deployment.stream(), "askeld", "$")
    async with deployment.worker(app, **WATCHFUL):
        await deployment.until_completed(25)
        await deployment.quiet()


async def test_a_run_without_a_token_is_driven_on(deployment, tmp_path):
    """Handed back between two steps; then its entry was trimmed, and its name got lost."""
    gate = tmp_path / "gate"
    async with deployment.worker(app, **CALM) as worker:
        await deployment.send("run.start", workflow="waits", input=str(gate), run_id="r")
        await deployment.until_step("r", "gate", "running")
        worker.stop()
        await wait_until(lambda: worker.logged("worker_draining"))
        gate.touch()
        await worker.ended.wait()
    assert await deployment.client.xtrim(deployment.stream(), maxlen=0) == 1
    assert await deployment.client.hdel(f"{deployment.prefix}:ctl:r", "token") == 1
    async with deployment.worker(app, **WATCHFUL) as worker:
        record = await ends(deployment, worker)
        (told,) = worker.logged("run_stuck", mended=True)
    assert (told["state"], told["level"]) == ("no_token", "warning")
    assert "waits for nothing that could come" in told["why"]
    assert record.run["output"] == '"opened"'


@pytest.mark.parametrize(("workflow", "of"), [("rests", app), ("tries", later)])
async def test_a_timer_that_is_gone_is_set_again_for_its_time(deployment, workflow, of):
    """A sleep and a retry: not earlier than they were to be, once."""
    await rests(deployment, "400ms", of=of, workflow=workflow)
    due = [entry["due"] for entry in (await deployment.record("r")).entries if "due" in entry]
    assert await deployment.client.delete(f"{deployment.prefix}:timers") == 1
    async with deployment.worker(of, **WATCHFUL) as worker:
        record = await ends(deployment, worker)
        (told,) = worker.logged("run_stuck", state="timer_gone", mended=True)
    assert "a timer that is gone" in told["why"]
    over = [
        entry["at"]
        for entry in record.entries
        if entry["t"] == "timer" or (entry.get("name"), entry["status"]) == ("rest", "succeeded")
    ]
    assert len(over) == len(due) == 1
    assert over[0] >= due[0]


async def test_what_waits_legally_is_left_alone(deployment):
    """Nothing is written and nothing is said: asleep, on a queue, suspended, of other programs."""
    async with deployment.worker(app, **CALM):
        for run_id, workflow, given in (
            ("asleep", "rests", "1h"),
            ("far", "foreign", 1),
            ("held", "foreign", 1),
        ):
            await deployment.send("run.start", workflow=workflow, input=given, run_id=run_id)
            await until_passive(deployment, run_id)
        await deployment.send("run.suspend", run_id="held")
        await deployment.until("held", "suspended")
        await until_passive(deployment, "held")
    async with RedisWorkflowService(deployment.url, key_prefix=deployment.prefix) as service:
        await service.create_run("w", run_id="program")
        await service.insert_step_state("program", "s", "f")
        await service.create_run("w", run_id="inline", inline=True)
    own = ("run:", "ctl:", "step:", "history:", "steps:", "timers", "commands:rust")

    async def look():
        everything = await snapshot(deployment.client, deployment.prefix)
        start = len(deployment.prefix) + 1
        return {key: value for key, value in everything.items() if key[start:].startswith(own)}

    before = await look()
    async with deployment.worker(app, **WATCHFUL, **CALM) as worker:
        await wait_until(lambda: worker.reached["before_watch"] > 10)
        assert await look() == before
    assert not worker.logged("run_stuck")
    assert not worker.logged("entry_orphaned")


async def test_what_cannot_be_mended_is_told(deployment, tmp_path):
    """The entry of a step was deleted while a worker had it, and that worker died."""
    gate, stream = tmp_path / "gate", deployment.stream("warehouse")
    async with deployment.worker(later, **CALM):
        await deployment.send("run.start", workflow="far", input=str(gate), run_id="r")
        await until_passive(deployment)
    doomed = ForkedWorker(
        "tests.apps.parts:app",
        redis_url=deployment.url,
        prefix=deployment.prefix,
        directory=tmp_path,
        args=("--queue", "warehouse"),
    )
    async with doomed:
        await deployment.until_step("r", "far", "running")
        doomed.kill()
        await doomed.wait()
    ((entry, _),) = await deployment.client.xrange(stream)
    await deployment.client.xack(stream, "askeld", entry)
    await deployment.client.xdel(stream, entry)
    gate.touch()
    everything = App("everything")
    everything.step(retries=3)(wait_for_file)
    everything.workflows["far"] = later.workflows["far"]
    async with deployment.worker(everything, **WATCHFUL) as worker:
        told, *_ = await wait_until(lambda: worker.logged("run_stuck", mended=False))
        assert (told["run_id"], told["state"], told["level"]) == ("r", "step_entry_gone", "error")
        command = told["why"].partition("To unstick it: askel send ")[2].split()
        assert command[0] == "step.execute"
        words = dict(zip(command[1:7:2], command[2:8:2], strict=True))
        await deployment.send(command[0], command[-1], **words)
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert record.path("far") == ["scheduled 1", "running 1", "lost 1", "running 2", "succeeded 2"]


async def test_one_worker_an_interval_looks(deployment):
    """Of three, and at all runs in turn, a page at a time."""
    settings = {"retention_ms": 100}
    async with (
        deployment.worker(app, **settings) as one,
        deployment.worker(app, **settings) as two,
    ):
        looked = []

        async def ten_times():
            at = await deployment.client.hget(f"{deployment.prefix}:watch", "at")
            if at is not None and at not in looked:
                looked.append(at)
            return len(looked) >= 10

        await wait_until(ten_times)
        asked = one.reached["before_watch"] + two.reached["before_watch"]
    between = [int(b) - int(a) for a, b in pairwise(looked)]
    assert min(between) >= 100
    assert asked >= 10


async def test_many_dead_letters_are_told_of_once_and_when_they_double(deployment):
    dead = f"{deployment.prefix}:dead"

    async def add(count):
        pipeline = deployment.client.pipeline(transaction=False)
        for _ in range(count):
            pipeline.xadd(dead, {"reason": "x"})
        await pipeline.execute()

    await add(1_100)
    async with deployment.worker(app, **WATCHFUL) as worker:

        async def looked(times=3):
            seen = worker.reached["before_watch"]
            await wait_until(lambda: worker.reached["before_watch"] >= seen + times)
            return [line["count"] for line in worker.logged("dead_letters_many")]

        assert await looked() == [1_100]
        await add(1_100)
        assert await looked() == [1_100, 2_200]
        assert await looked() == [1_100, 2_200]
        await deployment.client.delete(dead)
        await looked()
        await add(1_000)
        assert await looked() == [1_100, 2_200, 1_000]
