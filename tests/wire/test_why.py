"""Why a run is where it is: every state, made on a real server and read from it."""

import pytest
from redis import ResponseError
from tests.apps.parts import app
from tests.helpers.daemon import deployment
from tests.helpers.state import service
from tests.helpers.waiting import wait_until

from askel import App, InvalidNameError, RunNotFoundError
from askel.state import run_id_of_command, run_id_of_entry
from askel.wire import RunNotStartedError, explain_run

pytestmark = pytest.mark.usefixtures("redis_server")

__all__ = ["deployment", "service"]

CALM = {"lease_ms": 60_000, "claim_idle_ms": 120_000, "linger_ms": 0, "unknown_after_ms": 600_000}
slow = App("slow")


@slow.step(retries=5, retry_delay="1h")
async def fails():
    raise ConnectionError("later")


@slow.workflow
async def tries(run):
    await run.do("it", fails)


@slow.workflow
async def many(run):
    await run.gather(
        run.do("far", "f", queue="rust"), run.sleep("nap", "1h"), run.do("near", fails)
    )


@pytest.fixture
def why(service):
    """Explain the run r."""
    return lambda: explain_run(service, "r")


async def start(deployment, workflow, given=None, queue="", **fields):
    await deployment.send("run.start", queue, workflow=workflow, input=given, run_id="r", **fields)


async def given_up(deployment, run_id="r"):
    """Wait until no worker has the run in memory."""

    async def passivated():
        ctl = await deployment.client.hgetall(f"{deployment.prefix}:ctl:{run_id}")
        return b"start" in ctl and b"owner" not in ctl

    await wait_until(passivated)


def states(explanation, *words, stuck=False):
    """Check the state, the run in the text, and words in it."""
    assert explanation.text.startswith("Run r of "), explanation
    for word in words:
        assert word in explanation.text, explanation
    assert explanation.stuck is stuck, explanation
    return explanation.state


async def test_there_is_no_such_run(why, service):
    with pytest.raises(RunNotFoundError):
        await why()
    with pytest.raises(InvalidNameError):
        await explain_run(service, "a:b")


@pytest.mark.parametrize(("given", "reason"), [(1, "unknown_workflow"), (b"{", "invalid_payload")])
@pytest.mark.parametrize("fields", [{"run_id": "r"}, {"id": "order-1"}, {}])
async def test_a_start_that_is_a_dead_letter(deployment, service, fields, given, reason):
    """Whatever the run's id is made of; other letters, and those of other runs, are none of its."""
    async with deployment.worker(App("nothing"), unknown_after_ms=0):
        await deployment.send("run.signal", run_id="r", name="n")
        entry = await deployment.send("run.start", workflow="w", input=given, **fields)
        await deployment.dead_letters(2)
    letters = await deployment.client.xrange(f"{deployment.prefix}:dead")
    ids = {said[b"reason"].decode(): letter.decode() for letter, said in letters}
    run_id = fields.get("run_id") or run_id_of_entry(deployment.stream(), entry)
    if "id" in fields:
        run_id = run_id_of_command("order-1")
    with pytest.raises(RunNotStartedError, match=f"its start is a dead letter .{reason}") as raised:
        await explain_run(service, run_id)
    told = raised.value.explanation
    assert (told.state, told.stuck) == ("start_dead_lettered", True)
    assert told.command == f"askel dead redrive {ids[reason]}"
    assert told.text == str(raised.value)
    assert told.text.endswith(f": {told.command}")
    with pytest.raises(RunNotFoundError, match="that no worker has read"):
        await explain_run(service, "another")


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_an_ended_run_needs_nothing(why, service, status):
    await service.create_run("w", run_id="r")
    error = ValueError("no luck") if status == "failed" else None
    await service.update_run_status("r", status, error=error)
    told = await why()
    assert states(told, status, "nothing is to be done") == "ended"
    assert ("no luck" in told.text) == (status == "failed")
    assert told.command == ""


async def test_a_suspended_run_waits_to_be_resumed(deployment, why):
    async with deployment.worker(app, **CALM):
        await start(deployment, "foreign")
        await deployment.until_step("r", "pack", "scheduled")
        await deployment.send("run.suspend", run_id="r")
        await deployment.until("r", "suspended")
    told = await why()
    assert states(told, "was suspended at") == "suspended"
    assert told.command == "askel send run.resume run_id r"


async def test_a_stalled_run_says_what_it_lacks(deployment, why):
    async with deployment.worker(app, unknown_after_ms=0):
        await deployment.send("run.create", workflow="w", run_id="r")
        await deployment.until("r", "running")
        await deployment.send("step.execute", run_id="r", step_name="x", rpc_name="nobody_has_it")
        await deployment.until("r", "stalled")
    told = await why()
    assert states(told, "stalled", "no worker has 'nobody_has_it'") == "stalled"
    assert told.command == "askel send run.resume run_id r"


async def test_a_run_of_another_program_waits_for_that(why, service):
    await service.create_run("w", run_id="r")
    await service.insert_step_state("r", "ship", "f")
    assert states(await why(), "'ship' is open") == "driven_by_program"


async def test_an_inline_run_whose_program_is_gone(why, service, redis, keys):
    await service.create_run("w", run_id="r", inline=True)
    assert states(await why(), "app.resume", stuck=True) == "inline_abandoned"
    await redis.set(keys.lock("r"), "somebody", px=60_000)
    assert states(await why(), "holds its lock for at most") == "inline"


@pytest.fixture
def keys(service):
    return service.keys


async def test_a_step_that_is_executed_here(deployment, why, tmp_path):
    async with deployment.worker(app, **CALM) as worker:
        await start(deployment, "waits", str(tmp_path / "gate"))
        await deployment.until_step("r", "gate", "running")
        told = await why()
        (tmp_path / "gate").touch()
        await deployment.until("r", "completed")
    assert states(told, f"worker {worker.name} executes step 'gate' since") == "running"
    assert told.holder == worker.name
    assert told.idle_ms < 60_000


async def test_a_step_on_a_queue(deployment, why):
    """Before anybody reads the queue, and when somebody does."""
    async with deployment.worker(app, **CALM):
        await start(deployment, "queued")
        await given_up(deployment)
    told = await why()
    assert states(told, "step 'far'", "queue 'warehouse'", "no worker reads that queue") == (
        "queue_without_worker"
    )
    assert told.command == "askel worker MODULE:APP --queue warehouse"
    stream = deployment.stream("warehouse")
    await deployment.client.xgroup_create(stream, "askeld", "0")
    await deployment.client.xgroup_createconsumer(stream, "askeld", "w1")
    assert states(await why(), "1 worker(s) there, 1 commands unread") == "queued"
    await deployment.client.delete(stream)
    told = await why()
    assert states(told, "that queue, and nothing is on it") == "queue_without_worker"
    assert told.command.startswith("askel send step.execute run_id r step_name far")


@pytest.mark.parametrize("resumed", [False, True])
async def test_a_step_whose_command_is_a_dead_letter(deployment, why, resumed):
    """Before and after somebody resumes the run without redriving the letter."""
    async with deployment.worker(app, **{**CALM, "unknown_after_ms": 0}, queues=("", "rust")):
        await start(deployment, "foreign")
        await deployment.until("r", "stalled")
        if resumed:
            await deployment.send("run.resume", run_id="r")
            await deployment.until("r", "running")
            await given_up(deployment)
        told = await why()
    ((letter, _),) = await deployment.client.xrange(f"{deployment.prefix}:dead")
    redrive = f"askel dead redrive {letter.decode()}"
    if resumed:
        words = ("step 'pack'", "whose command is a dead letter (unknown_step)")
        assert states(told, *words, stuck=True) == "step_dead_lettered"
        assert told.command == redrive
    else:
        assert states(told, "no worker has 'packOrder'") == "stalled"
        assert told.command == f"{redrive} && askel send run.resume run_id r"


async def test_a_step_that_another_worker_executes(deployment, why, tmp_path):
    """While it does, when it has died, and when somebody has meddled with its entry."""
    gate, stream = tmp_path / "gate", deployment.stream("warehouse")
    async with deployment.worker(app, **CALM, queues=("", "warehouse")) as worker:
        await deployment.send("run.create", workflow="w", run_id="r")
        await deployment.until("r", "running")
        words = {"run_id": "r", "step_name": "far", "rpc_name": "wait_for_file", "retries": "2"}
        entry = await deployment.send("step.execute", "warehouse", **words, data=str(gate))
        await deployment.until_step("r", "far", "running")
        told = await why()
        assert states(told, f"worker {worker.name} executes it since") == "executed_elsewhere"
        assert told.holder == worker.name
        await deployment.client.xclaim(stream, "askeld", "dead", 0, [entry], idle=60_000)
        told = await why()
        assert states(told, "worker dead has not been heard of for 60 s") == "dead_worker"
        assert told.idle_ms >= 60_000
        await deployment.client.xgroup_delconsumer(stream, "askeld", "dead")
        assert states(await why(), "pending for nobody", stuck=True) == "step_entry_orphaned"
        await deployment.client.xdel(stream, entry)
        told = await why()
        assert states(told, "whose entry was deleted", stuck=True) == "step_entry_gone"
        assert told.command == (
            "askel send step.execute run_id r step_name far rpc_name wait_for_file "
            "--queue warehouse"
        )
        gate.touch()
        await worker.stopped()


async def test_a_sleep_and_a_timer_that_is_gone(deployment, why):
    async with deployment.worker(app, **CALM):
        await start(deployment, "rests", "1h")
        await given_up(deployment)
    told = await why()
    assert states(told, "sleeps in 'rest' since", "is due at") == "sleeping"
    assert told.command == ""
    (timer, due), *_ = await deployment.client.zrange(
        f"{deployment.prefix}:timers", 0, -1, withscores=True
    )
    await deployment.client.zadd(f"{deployment.prefix}:timers", {timer: due - 4_000_000})
    assert states(await why(), "was due at", "does one run?") == "sleeping"
    await deployment.client.delete(f"{deployment.prefix}:timers")
    assert states(await why(), "a timer that is gone", stuck=True) == "timer_gone"


async def test_a_timer_that_is_gone_while_a_worker_keeps_the_run(deployment, why):
    """It is due when the history says, and set again when the worker gives the run up."""
    async with deployment.worker(app, **{**CALM, "linger_ms": 60_000}):
        await start(deployment, "rests", "1h")
        await deployment.until_step("r", "rest", "scheduled")
        before = await why()
        await deployment.client.delete(f"{deployment.prefix}:timers")
        told = await why()
    assert states(told, "sleeps in 'rest' since", "it is due at") == "sleeping"
    assert told.text == before.text


async def test_a_step_that_is_tried_again_later(deployment, why):
    async with deployment.worker(slow, **CALM):
        await start(deployment, "tries")
        await given_up(deployment)
    assert states(await why(), "tries step 'it' again (attempt 2 of 6): that is due") == "retrying"


async def test_of_many_steps_one_is_told_and_the_others_counted(deployment, why):
    async with deployment.worker(slow, **{**CALM, "linger_ms": 60_000}) as worker:
        await start(deployment, "many")
        await deployment.until_step("r", "near", "pending")
        told = await why()
    assert states(told, "and 2 other step(s) are open", f"{worker.name} keeps it in memory")
    assert told.holder == worker.name


async def test_a_start_that_nobody_has_read_is_no_run_yet(deployment, why):
    await start(deployment, "one_step")
    with pytest.raises(RunNotFoundError):
        await why()


@pytest.mark.parametrize("queue", ["", "warehouse"])
async def test_a_run_that_no_worker_has_taken_yet(deployment, why, queue):
    """Handed back by a worker that was stopped; nobody reads the stream, then somebody does."""
    async with deployment.worker(app, **{**CALM, "linger_ms": 60_000}, queues=(queue,)):
        await start(deployment, "rests", "1h", queue)
        await deployment.until_step("r", "rest", "scheduled")
    told = await why()
    assert states(told, "waits on the default queue to be read", "one of 1") == "no_reader"
    assert told.command == "askel worker MODULE:APP"
    stream = deployment.stream()
    if queue:
        await deployment.client.xgroup_create(stream, "askeld", "0")
    await deployment.client.xgroup_createconsumer(stream, "askeld", "w1")
    assert states(await why(), "the 1 worker(s) there") == "undelivered"


async def test_a_run_whose_token_is_on_a_queue_with_a_name(deployment, why):
    stream = deployment.stream("warehouse")
    settings = {**CALM, "linger_ms": 60_000, "queues": ("warehouse",)}
    async with deployment.worker(app, **settings) as worker:
        await start(deployment, "rests", "1h", "warehouse")
        await deployment.until_step("r", "rest", "scheduled")
        told = await why()
        assert states(told, "sleeps in 'rest'", f"{worker.name} keeps it") == "sleeping"
        (entry,) = await deployment.client.xpending_range(stream, "askeld", "-", "+", 1)
        await deployment.client.xclaim(
            stream, "askeld", "dead", 0, [entry["message_id"]], idle=60_000
        )
        told = await why()
    assert states(told, "in the hands of worker dead") == "dead_worker"
    assert told.command == "askel worker MODULE:APP --queue warehouse"


async def test_a_run_whose_workflow_no_worker_has(deployment, why):
    async with deployment.worker(app, **{**CALM, "linger_ms": 60_000}):
        await start(deployment, "foreign")
        await deployment.until_step("r", "pack", "scheduled")

    async def goes_round():
        told = await why()
        return told if told.state == "unknown_workflow" else None

    async with deployment.worker(App("nothing"), **CALM):
        told = await wait_until(goes_round)
    assert states(told, "none has its workflow", "after 10 minutes") == "unknown_workflow"


async def test_a_lock_of_another_program_stands_in_the_way(deployment, why):
    async with deployment.worker(app, **{**CALM, "linger_ms": 60_000}) as worker:
        await start(deployment, "rests", "1h")
        await deployment.until_step("r", "rest", "scheduled")
        await deployment.client.set(f"{deployment.prefix}:lock:r", "somebody", px=50_000)
        told = await why()
        await deployment.client.delete(f"{deployment.prefix}:lock:r")
    assert states(told, "another program holds it for at most", worker.name) == "locked"
    assert told.holder == worker.name


async def meddle(deployment, what):
    """Do what an operator should not: have a run that is driven by an entry, and take it away."""
    async with deployment.worker(app, **{**CALM, "linger_ms": 60_000}):
        await start(deployment, "rests", "1h")
        await deployment.until_step("r", "rest", "scheduled")
    stream, ctl = deployment.stream(), f"{deployment.prefix}:ctl:r"
    if what == "orphaned":
        await deployment.client.xreadgroup("askeld", "removed", {stream: ">"})
        assert await deployment.client.xgroup_delconsumer(stream, "askeld", "removed") == 1
    elif what == "gone":
        await deployment.client.xtrim(stream, maxlen=0)
    else:
        token = await deployment.client.hget(ctl, "token")
        await deployment.client.hdel(ctl, "token")
        await deployment.client.xdel(stream, token)
        await deployment.client.hset(f"{deployment.prefix}:step:r:rest", "status", "succeeded")


async def test_an_entry_that_was_taken_up_is_in_no_workers_hands(deployment, why):
    await meddle(deployment, "orphaned")
    async with deployment.worker(App("nothing"), **CALM, retention_ms=20) as worker:
        await wait_until(lambda: worker.logged("entry_orphaned"))
        told = await why()
    assert states(told, "was pending for nobody", "within 13 s") == "token_orphaned"
    assert told.holder == ""


@pytest.mark.parametrize(
    ("what", "state"),
    [("orphaned", "token_orphaned"), ("gone", "token_gone"), ("none", "no_token")],
)
async def test_a_run_that_nobody_would_ever_drive(deployment, why, what, state):
    await meddle(deployment, what)
    told = await why()
    assert states(told, "driven by no worker", "within a minute", stuck=True) == state


async def test_a_group_that_is_gone(deployment, why):
    """The entries are there, and nobody has read them as far as Redis knows."""
    await meddle(deployment, "orphaned")
    await deployment.client.xgroup_destroy(deployment.stream(), "askeld")
    assert states(await why(), "no worker reads it") == "no_reader"
    with pytest.raises(ResponseError):
        await deployment.client.xinfo_consumers(deployment.stream(), "askeld")


async def test_dead_letters_about_it_are_counted(deployment, why):
    async with deployment.worker(app, **CALM):
        await start(deployment, "rests", "1h")
        await given_up(deployment)
        for _ in range(2):
            await deployment.send("run.start", workflow="one_step", run_id="r")
        await deployment.dead_letters(2)
    told = await why()
    assert states(
        told, "2 dead letters are about it, the newest run_conflict (run.start): askel dead ls"
    )


async def test_two_round_trips_whatever_the_run_has(deployment, service):
    """And nothing is written: a replica answers as well."""
    for number in range(50):
        await deployment.send("run.create", workflow="w", run_id=f"r{number}")
    async with deployment.worker(app):
        await deployment.until("r49", "running")
    for number in range(200):
        await service.insert_step_state("r49", f"s{number}", "f")
    sent, plain = [], service.connection.send

    def counted(*words):
        sent.append(words[0])
        return plain(*words)

    service.connection.send = counted
    told = await explain_run(service, "r49")
    assert told.state == "driven_by_program"
    assert sent == ["EVALSHA", "EVALSHA"]
