"""A worker is killed at every named point; what the next one makes of it happened once."""

import json
import signal
from contextlib import suppress

import anyio
import pytest
from redis import ResponseError
from tests.apps.parts import JOURNEY, app
from tests.helpers.daemon import Deployment
from tests.helpers.forked import ForkedWorker
from tests.helpers.history_checker import check_run
from tests.helpers.state import keys_of_run
from tests.helpers.waiting import wait_until

from askel import RedisWorkflowService
from askel.state import load_scripts

#: How often an uninterrupted `journey` gets to each point, at least; before_ and after_ each.
JOURNEY_POINTS = {
    "start": 1,
    "activate": 3,
    "turn": 14,
    "begin": 2,
    "complete": 2,
    "due": 3,
    "fire": 3,
    "record": 2,
    "handler": 10,
}
#: Points of everything that a journey does not come by, each with the scenario that does.
OTHER_POINTS = {
    "driven": ("create_run", "begin", "complete", "settle"),
    "later": ("put_back", "fire", "start"),
    "elsewhere": ("put_back",),
    "twice": ("drop",),
    "garbage": ("bury",),
    "signalled": ("record",),
    "drained": ("requeue",),
    "reclaimed": ("sweep", "deliver"),
    "stuck": ("take_up", "watch", "revive", "rearm"),
    "poisonous": ("poison",),
    "unknown": ("stall",),
    "retained": ("measure_runs", "expired", "delete_run", "prune_index"),
}
#: Scripts that no process is killed at by name: they are the library's, or of a thread of its own.
OF_OTHERS = {
    *("acquire_lock", "release_lock", "renew_lock", "renew", "forget_consumer", "adopt"),
    *(
        "list_dead",
        "redrive",
        "read_facts",
        "read_run",
        "read_steps",
        "upsert_version",
        "move_version",
    ),
    *("list_runs", "set_retention", "index_runs", "index_steps", "prune_workflows", "erase_orphan"),
    *("prune_timers", "apply", "insert_step", "move_step", "finish_step"),
    *("self_test", "remake_tokens", "confirmed"),
}
CLAIMS_SOON = ("--lease", "100ms", "--claim-idle", "150ms")
#: The second worker finds what the first one left soon after its death.
RESCUE = {"lease_ms": 100, "claim_idle_ms": 150, "sweep_ms": 20, "queues": ("", "warehouse")}


def each(counts):
    return [
        f"{side}_{name}:{nth}"
        for name, count in counts.items()
        for side in ("before", "after")
        for nth in range(1, count + 1)
    ]


def doomed(deployment, directory, point, *, of="parts:app", linger="0ms", args=()):
    """A worker process that kills itself at the point."""
    module, _, attribute = of.partition(":")
    return ForkedWorker(
        f"tests.apps.{module}:{attribute}",
        redis_url=deployment.url,
        prefix=deployment.prefix,
        directory=directory,
        args=("--queue", "warehouse", "--linger", linger, *args),
        failpoint=point,
    )


async def died(worker):
    """Wait until the worker's point bit."""
    assert await worker.wait() == -signal.SIGKILL, worker.tail()


def attempts(record):
    """The attempts that each step had, and how many of them were lost."""
    steps = {name: record.of_step(name)[-1]["attempt"] for name in record.step_names}
    return steps, record.count("lost")


@pytest.mark.parametrize("linger", ["0ms", "10s"])
async def test_an_uninterrupted_journey_comes_by_every_point_of_the_table(deployment, linger):
    """The tables above are complete: no point of a run goes without a kill."""
    settings = {"queues": ("", "warehouse"), "linger_ms": int(linger[:1]) * 10_000}
    async with deployment.worker(app, **settings) as worker:
        await deployment.send("run.start", workflow="journey", input="end", run_id="r")
        await deployment.until("r")
        await deployment.quiet()
    for name, count in JOURNEY_POINTS.items():
        for side in ("before", "after"):
            if (name, linger) != ("activate", "10s"):
                assert worker.reached[f"{side}_{name}"] >= count - 2 * (name == "turn"), name
    killed = set(JOURNEY_POINTS) | {name for names in OTHER_POINTS.values() for name in names}
    assert {point.partition("_")[2] for point in worker.reached} <= killed


@pytest.mark.parametrize("point", each(JOURNEY_POINTS))
async def test_a_kill_anywhere_in_a_journey(deployment: Deployment, tmp_path, point):
    """Whatever was done is kept, whatever was not is done, nothing is done twice."""
    await deployment.send("run.start", workflow="journey", input="end", run_id="r")
    async with doomed(deployment, tmp_path, point) as first:
        await died(first)
    before = await deployment.record("r")
    async with deployment.worker(app, **RESCUE):
        record = await deployment.until("r")
        await deployment.quiet()
    assert json.loads(record.run["output"]) == [*JOURNEY, "end"]
    assert record.entries[: len(before.entries)] == before.entries
    steps, lost = attempts(record)
    tries = {"first": 1, "tried": 2, "a": 1, "b": 2, "c": 1, "rest": 1, "packed": 2, "last": 1}
    assert list(steps) == list(tries)
    # Only what was under way at the moment of the kill was tried once more.
    assert sum(steps.values()) <= sum(tries.values()) + lost
    assert lost <= 3
    if "handler" in point:
        assert lost >= 1


@pytest.mark.parametrize("point", ["before_record:1", "after_complete:2", "before_turn:7"])
async def test_a_kill_of_the_worker_that_keeps_a_waiting_run_in_memory(deployment, tmp_path, point):
    """A run that lingers is no less safe than one that was given up in time."""
    await deployment.send("run.start", workflow="journey", input="end", run_id="r")
    async with doomed(deployment, tmp_path, point, linger="10s") as first:
        await died(first)
    async with deployment.worker(app, **RESCUE):
        record = await deployment.until("r")
        await deployment.quiet()
    assert json.loads(record.run["output"]) == [*JOURNEY, "end"]


@pytest.mark.parametrize("point", each(dict.fromkeys(OTHER_POINTS["driven"], 1)))
async def test_a_kill_while_another_program_drives_the_run(deployment, tmp_path, point):
    """`run.create`, `step.execute` and `run.complete` are applied once each."""

    async def program():
        await deployment.send("run.create", workflow="other", run_id="d", input={"a": 1})
        await deployment.until("d", "running")
        await deployment.send("step.execute", run_id="d", step_name="s", rpc_name="echo", data=[7])
        await deployment.until_step("d", "s", "succeeded")
        await deployment.send("run.complete", run_id="d", output="fine")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(program)
        async with doomed(deployment, tmp_path, point) as first:
            await died(first)
        async with deployment.worker(app, **RESCUE):
            record = await deployment.until("d")
            await deployment.quiet()
    assert record.run["output"] == '"fine"'
    assert record.steps["s"]["rpcName"] == "echo"
    assert record.steps["s"]["result"] == "[7]"
    expected = ["running 1", "succeeded 1"]
    if point in {"after_begin:1", "before_complete:1"}:  # It was begun, so it is begun again.
        expected = ["running 1", "lost 1", "running 2", "succeeded 2"]
    assert record.path("s") == expected


@pytest.mark.parametrize("point", each(dict.fromkeys(OTHER_POINTS["later"], 1)))
async def test_a_kill_while_a_command_waits_for_its_time(deployment, tmp_path, point):
    """A command with `at` is neither lost on its way to the timers and back, nor doubled."""
    seconds, microseconds = await deployment.client.time()
    at = seconds * 1_000 + microseconds // 1_000 + 60
    await deployment.send("run.start", workflow="one_step", input="later", at=at)
    async with doomed(deployment, tmp_path, point) as first:
        await died(first)
    async with deployment.worker(app, **RESCUE):
        (run_id,) = await runs_that_ended(deployment)
        await deployment.quiet()
    record = await check_run(deployment.client, deployment.prefix, run_id)
    assert record.run["output"] == '"later"'
    assert record.entries[0]["at"] >= at


@pytest.mark.parametrize("point", each(dict.fromkeys(OTHER_POINTS["elsewhere"], 1)))
async def test_a_kill_while_a_command_is_passed_on_to_who_knows_its_name(
    deployment, tmp_path, point
):
    """A start that a worker cannot serve is served by another, once."""
    await deployment.send("run.start", workflow="one_step", input=1)
    async with doomed(deployment, tmp_path, point, of="parts:nothing") as first:
        await died(first)
    async with deployment.worker(app, **RESCUE):
        (run_id,) = await runs_that_ended(deployment)
        await deployment.quiet()
    assert await deployment.status(run_id) == "completed"


@pytest.mark.parametrize("point", each(dict.fromkeys(OTHER_POINTS["twice"], 1)))
async def test_a_kill_while_a_repeated_command_is_dropped(deployment, tmp_path, point):
    """A start sent three times under one id starts one run, and is no error."""
    for _ in range(3):
        await deployment.send("run.start", workflow="one_step", input=1, id="order-1")
    async with doomed(deployment, tmp_path, point) as first:
        await died(first)
    async with deployment.worker(app, **RESCUE):
        (run_id,) = await runs_that_ended(deployment)
        await deployment.quiet(dead=0)
    record = await check_run(deployment.client, deployment.prefix, run_id)
    assert record.entries[0]["command"] == "order-1"


@pytest.mark.parametrize("point", each(dict.fromkeys(OTHER_POINTS["garbage"], 1)))
async def test_a_kill_while_a_command_is_dead_lettered(deployment, tmp_path, point):
    """A command that cannot be applied is kept once, with its reason and its fields."""
    await deployment.send("run.start", workflow="one_step", input=b"{")
    async with doomed(deployment, tmp_path, point) as first:
        await died(first)
    async with deployment.worker(app, **RESCUE):
        await deployment.quiet(dead=1)
    (letter,) = await deployment.dead_letters()
    assert letter["reason"] == "invalid_payload"
    assert letter["input"] == "{"


@pytest.mark.parametrize("point", each(dict.fromkeys(OTHER_POINTS["signalled"], 1)))
async def test_a_kill_while_a_signal_is_recorded(deployment, tmp_path, point):
    """A signal is in the history once."""
    await deployment.send("run.create", workflow="other", run_id="d")
    async with deployment.worker(app):
        await deployment.until("d", "running")
    await deployment.send("run.signal", run_id="d", name="paid", data={"sum": 3}, id="s1")
    async with doomed(deployment, tmp_path, point) as first:
        await died(first)
    async with deployment.worker(app, **RESCUE):
        await deployment.quiet()
        await deployment.send("run.complete", run_id="d")
        record = await deployment.until("d")
    signals = [entry for entry in record.entries if entry["t"] == "signal"]
    assert [(entry["name"], entry["data"]) for entry in signals] == [("paid", {"sum": 3})]


@pytest.mark.parametrize("point", each(dict.fromkeys(OTHER_POINTS["drained"], 1)))
async def test_a_kill_while_a_run_is_handed_back(deployment, tmp_path, point):
    """A drain that is cut short leaves the run to be found."""
    await deployment.send("run.start", workflow="foreign", input=1, run_id="r")
    async with doomed(deployment, tmp_path, point, linger="1h") as first:
        await deployment.until_step("r", "pack", "scheduled")
        first.terminate()
        await died(first)
    await deployment.client.delete(deployment.stream("rust"))  # the foreign worker has taken it
    async with deployment.worker(app, **RESCUE):
        await deployment.send("step.complete", run_id="r", step_name="pack", attempt=1, result=5)
        record = await deployment.until("r")
        await deployment.quiet()
    assert record.run["output"] == "5"
    assert record.path("pack") == ["scheduled 1", "succeeded 1"]


@pytest.mark.parametrize("point", each(dict.fromkeys(OTHER_POINTS["reclaimed"], 1)))
async def test_a_kill_while_the_work_of_a_dead_worker_is_taken_over(deployment, tmp_path, point):
    """Then the next one takes it over, and nothing of it is counted as poison."""
    await deployment.send("run.start", workflow="one_step", input=1, run_id="r")
    await pending_for_a_dead_one(deployment)
    async with doomed(deployment, tmp_path, point, args=CLAIMS_SOON) as first:
        await died(first)
    async with deployment.worker(app, **RESCUE):
        record = await deployment.until("r", "completed")
        await deployment.quiet(dead=0)
    assert record.path("only") == ["running 1", "succeeded 1"]


@pytest.mark.parametrize("point", each(dict.fromkeys(OTHER_POINTS["stuck"], 1)))
async def test_a_kill_while_stuck_runs_are_mended(deployment, tmp_path, point):
    """What one worker has not mended, the next one mends; what it has is not mended twice."""
    gate, client, prefix = tmp_path / "gate", deployment.client, deployment.prefix
    await deployment.send("run.start", workflow="waits", input=str(gate), run_id="halfway")
    async with deployment.worker(app, linger_ms=0) as worker:
        await deployment.until_step("halfway", "gate", "running")
        await deployment.send("run.start", workflow="rests", input="100ms", run_id="asleep")
        await deployment.until_step("asleep", "rest", "scheduled")
        worker.stop()
        await wait_until(lambda: worker.logged("worker_draining"))
        gate.touch()
        await worker.ended.wait()
    await client.xtrim(deployment.stream(), maxlen=0)  # the token of one, perhaps of both
    for run_id in ("halfway", "asleep"):
        await client.hdel(f"{prefix}:ctl:{run_id}", "token")
    await client.delete(f"{prefix}:timers")
    await deployment.send("run.start", workflow="one_step", input=1, run_id="r")
    await client.xreadgroup("askeld", "removed", {deployment.stream(): ">"})
    await client.xgroup_delconsumer(deployment.stream(), "askeld", "removed")
    first = ForkedWorker(
        "tests.apps.parts:app",
        redis_url=deployment.url,
        prefix=prefix,
        directory=tmp_path,
        settings={**RESCUE, "retention_ms": 20},
        failpoint=point,
    )
    async with first:
        await died(first)
    async with deployment.worker(app, **RESCUE, retention_ms=20):
        for run_id in ("r", "halfway", "asleep"):
            record = await deployment.until(run_id, "completed")
            assert record.count("lost") <= 1
        await deployment.quiet(dead=0)


@pytest.mark.parametrize("point", each(dict.fromkeys(OTHER_POINTS["poisonous"], 1)))
async def test_a_kill_while_poison_is_buried(deployment, tmp_path, point):
    """It is a dead letter once, and its step has failed once."""
    await deployment.send("run.create", workflow="w", run_id="d")
    async with deployment.worker(app):
        await deployment.until("d", "running")
    await deployment.send("step.execute", run_id="d", step_name="s", rpc_name="echo")
    await pending_for_a_dead_one(deployment)
    args = (*CLAIMS_SOON, "--max-deliveries", "1")
    async with doomed(deployment, tmp_path, point, args=args) as first:
        await died(first)
    async with deployment.worker(app, **RESCUE, max_deliveries=1):
        await deployment.quiet(dead=1)
    record = await deployment.until("d", "running")
    assert record.path("s") == []
    (letter,) = await deployment.dead_letters()
    assert letter["reason"] == "poison"


@pytest.mark.parametrize("point", each(dict.fromkeys(OTHER_POINTS["unknown"], 1)))
async def test_a_kill_while_a_run_is_stalled_for_a_step(deployment, tmp_path, point):
    """It is stalled once, and the command is a dead letter once."""
    await deployment.send("run.create", workflow="w", run_id="d")
    async with deployment.worker(app):
        await deployment.until("d", "running")
    await deployment.send("step.execute", run_id="d", step_name="s", rpc_name="nobody_has_it")
    args = (*CLAIMS_SOON, "--unknown-after", "0ms")
    async with doomed(deployment, tmp_path, point, args=args) as first:
        await died(first)
    async with deployment.worker(app, **RESCUE, unknown_after_ms=0):
        record = await deployment.until("d", "stalled")
        await deployment.quiet(dead=1)
    assert [entry.get("status") for entry in record.entries].count("stalled") == 1
    (letter,) = await deployment.dead_letters()
    assert letter["reason"] == "unknown_step"


@pytest.mark.parametrize("point", each(dict.fromkeys(OTHER_POINTS["retained"], 1)))
async def test_a_kill_while_ended_runs_expire(deployment, tmp_path, point):
    """Each run is there whole or not at all, and the next worker goes on with the rest."""
    prefix = deployment.prefix
    async with RedisWorkflowService(deployment.url, key_prefix=prefix) as service:
        for number in range(4):
            await service.create_run("w", run_id=f"r{number}")
            await service.insert_step_state(f"r{number}", "s", "f")
            await service.update_run_status(f"r{number}", "completed")
        await deployment.client.zadd(f"{prefix}:runs:ended:w", {"gone": 5})
        await service.set_retention("w", max_runs=1, max_bytes="1GiB")
        async with doomed(deployment, tmp_path, point) as first:
            await died(first)
        for run_id in await deployment.runs():
            assert await service.get_step_state(run_id, "s")
        async with deployment.worker(app, **RESCUE, retention_ms=20):

            async def one_is_left():
                gone = ("r0", "r1", "r2", "gone")
                return not any([await keys_of_run(deployment.client, prefix, r) for r in gone])

            await wait_until(one_is_left)
        assert await deployment.runs() == ["r3"]
        assert (await service.reindex()).repairs == 0


async def pending_for_a_dead_one(deployment):
    """Have the entries of the stream pending for a consumer that is no more."""
    stream = deployment.stream()
    with suppress(ResponseError):  # it exists already
        await deployment.client.xgroup_create(stream, "askeld", "0", mkstream=True)
    assert await deployment.client.xreadgroup("askeld", "a-dead-one", {stream: ">"})


async def runs_that_ended(deployment):
    """Wait until there are runs and all have ended."""
    found = await wait_until(deployment.runs)
    for run_id in found:
        await deployment.until(run_id)
    return found


def test_every_script_of_the_daemon_has_a_point_that_is_killed_at():
    """A script that is added is added here."""
    killed = set(JOURNEY_POINTS) | {name for names in OTHER_POINTS.values() for name in names}
    assert killed - {"handler"} == set(load_scripts()) - OF_OTHERS
