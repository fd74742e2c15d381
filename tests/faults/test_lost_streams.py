"""Streams, groups and entries that somebody deletes: nothing is stuck, nothing happens twice.

Each test names the row of the fault table that it holds.
"""

import json

import pytest
from tests.apps.parts import app
from tests.helpers.history_checker import check_all
from tests.helpers.state import snapshot
from tests.helpers.waiting import wait_until
from tests.helpers.workers import WorkerProcess

from askel import StoreReplyError, StoreWipedError

QUICK = {"lease_ms": 150, "claim_idle_ms": 250, "block_ms": 200, "retention_ms": 100}


async def completes(deployment, run_id):
    await deployment.send("run.start", workflow="one_step", run_id=run_id)
    return await deployment.until(run_id, "completed")


def counted(worker, event):
    return worker.worker._store.counts[event]


async def is_blocked(deployment):
    """Wait until the worker waits for entries."""

    async def there():
        return any(
            client["name"] == "askel-read" and client["cmd"].startswith("xreadgroup")
            for client in await deployment.client.client_list()
        )

    await wait_until(there)


def meta(deployment):
    return f"{deployment.prefix}:meta"


async def test_flushall_while_blocked(alone):
    """Row `FLUSHALL while blocked`: UNBLOCKED from 7.0 on, silence before; a store reset."""
    async with alone.worker(app, **QUICK) as worker:
        await completes(alone, "before")
        before = await alone.client.hget(meta(alone), "store")
        await is_blocked(alone)
        await alone.client.flushall()
        await wait_until(lambda: worker.logged("store_wiped"))

        await completes(alone, "after")

        after = await alone.client.hget(meta(alone), "store")
        assert after not in {None, before}
        (said,) = worker.logged("store_wiped")
        assert (said["level"], said["expected"], said["found"]) == ("error", before.decode(), "")
        assert counted(worker, "store_wiped") == 1
        assert counted(worker, "group_missing") >= 1
        await alone.quiet()
        assert not worker.ended.is_set()
        assert worker.worker.health.obstacles() == []


async def test_a_wiped_store_ends_a_worker_that_was_told_so(alone):
    """Row `restart without persistence`: with `--on-wiped-store exit` it ends with an error."""
    error = await end_of(alone, alone.client.flushall, on_wiped_store="exit")
    assert isinstance(error, StoreWipedError)


async def end_of(deployment, act, **settings):
    """Return what a worker ends with when *act* is done to its Redis."""

    async def work():
        async with deployment.worker(app, **QUICK, **settings) as worker:
            await completes(deployment, "before")
            await is_blocked(deployment)
            await act()
            await worker.ended.wait()

    with pytest.raises(ExceptionGroup) as caught:
        await work()
    error = caught.value
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    return error


@pytest.mark.parametrize("act", ["DEL", "XGROUP DESTROY"])
async def test_a_stream_or_its_group_deleted_while_blocked(alone, act):
    """Rows `DEL stream while blocked`, `XGROUP DESTROY while blocked`, `group/key missing`."""
    async with alone.worker(app, **QUICK) as worker:
        await completes(alone, "before")
        await is_blocked(alone)
        words = [*act.split(), alone.stream(), *(["askeld"] if "GROUP" in act else [])]
        assert await alone.client.execute_command(*words) == 1

        await completes(alone, "after")

        assert counted(worker, "group_missing") >= 1
        assert not worker.logged("store_wiped")
        await alone.quiet()
        assert not worker.ended.is_set()


async def test_text_over_the_stream_is_fatal_and_says_which_key(alone):
    """Row `SET over the stream`: no reading goes on; the key is named."""
    error = await end_of(alone, lambda: alone.client.set(alone.stream(), "junk"))
    assert isinstance(error, StoreReplyError)
    assert str(error).startswith(f"WRONGTYPE {alone.stream()} is no stream")


async def test_a_result_lands_although_its_entry_can_no_longer_be_acknowledged(alone, tmp_path):
    """Row `XACK on a missing key`: it answers 0; what fences the result is the attempt."""
    gate = tmp_path / "gate"
    async with alone.worker(app, **QUICK) as worker:
        await alone.send("run.create", workflow="w", run_id="d")
        await alone.until("d", "running")
        fields = {"step_name": "s", "rpc_name": "wait_for_file", "data": str(gate)}
        await alone.send("step.execute", run_id="d", **fields)
        await wait_until((tmp_path / "gate.begun").exists)
        assert await alone.client.delete(alone.stream()) == 1
        gate.touch()
        await alone.until_step("d", "s", "succeeded")
        await alone.send("run.complete", run_id="d", output=1)
        record = await alone.until("d", "completed")
        assert record.path("s") == ["running 1", "succeeded 1"]
        assert not worker.ended.is_set()


async def test_a_group_made_anew_delivers_what_was_applied_again(alone):
    """Row `DESTROY + CREATE at 0`: applied entries come again, and change nothing."""
    sent = {}
    async with alone.worker(app, **QUICK):
        start = {"type": "run.start", "workflow": "one_step", "run_id": "r"}
        sent[await alone.send(**start)] = start
        await alone.until("r", "completed")
        await alone.send("run.create", workflow="w", run_id="d")
        await alone.until("d", "running")
        step = {"type": "step.execute", "run_id": "d", "step_name": "s", "rpc_name": "echo"}
        sent[await alone.send(**step)] = step
        await alone.until_step("d", "s", "succeeded")
        await alone.quiet()
    before = await snapshot(alone.client, f"{alone.prefix}:history")
    # The scripts delete what they acknowledge; one that only acknowledged would have left this.
    await alone.client.delete(alone.stream())
    for entry, fields in sent.items():
        await alone.client.xadd(alone.stream(), fields, id=entry)
    async with alone.worker(app, **QUICK) as worker:
        await wait_until(lambda: worker.reached["after_begin"] and worker.reached["after_start"])
        await alone.quiet()
    assert await snapshot(alone.client, f"{alone.prefix}:history") == before
    await check_all(alone.client, alone.prefix)


async def pending_for_the_dead(deployment, **fields):
    """Send a command and deliver it to a consumer that is no more."""
    await deployment.client.xgroup_create(deployment.stream(), "askeld", "0", mkstream=True)
    entry = await deployment.send(**fields)
    await deployment.client.xreadgroup("askeld", "dead-1", {deployment.stream(): ">"})
    return entry


async def test_an_entry_deleted_while_it_was_pending_for_a_dead_worker(alone):
    """Row `trimmed/deleted while pending`: what is known becomes a dead letter, once."""
    entry = await pending_for_the_dead(alone, type="run.cancel", run_id="r")
    assert await alone.client.xdel(alone.stream(), entry) == 1
    async with alone.worker(app, **QUICK):
        (letter,) = await alone.dead_letters(1)
        await alone.quiet(dead=1)
        await completes(alone, "after")
    assert letter.keys() == {"reason", "detail", "stream", "entry", "deliveries", "at"}
    assert (letter["reason"], letter["entry"]) == ("body_lost", entry)
    assert letter["stream"] == alone.stream()
    assert "deleted" in letter["detail"]


async def test_an_entry_deleted_while_it_was_pending_for_its_reader(alone):
    """The same row: `XREADGROUP 0` gives an entry without fields to whoever asks for its own."""
    await alone.client.xgroup_create(alone.stream(), "askeld", "0", mkstream=True)
    entry = await alone.send("run.cancel", run_id="r")
    await alone.client.xreadgroup("askeld", "me", {alone.stream(): ">"})
    await alone.client.xdel(alone.stream(), entry)
    async with alone.worker(app, **{**QUICK, "claim_idle_ms": 60_000}, consumer="me"):
        (letter,) = await alone.dead_letters(1)
        await alone.quiet(dead=1)
    assert letter["reason"] == "body_lost"


@pytest.mark.parametrize("act", ["XDEL", "XTRIM", "DEL", "DELCONSUMER"])
async def test_a_run_whose_token_was_deleted_under_a_dead_owner_goes_on(alone, act, tmp_path):
    """Rows `trimmed/deleted while pending`, `DELCONSUMER with pending`: its token or another."""
    first = doomed_worker(alone, tmp_path)
    async with first:
        await first.wait_ready()
        await alone.send("run.start", workflow="waits", input=str(tmp_path / "gate"), run_id="r")
        await alone.until_step("r", "gate", "running")
        first.kill()
        await first.wait()
    await delete_entries(alone, act)
    (tmp_path / "gate").touch()
    async with alone.worker(app, **QUICK) as worker:
        record = await alone.until("r", "completed")
        mended = worker.logged("token_remade", run_id="r")
        if act == "DELCONSUMER":
            mended += worker.logged("entry_orphaned")  # one or the other sees it first
        assert mended
        assert record.path("gate") == ["running 1", "lost 1", "running 2", "succeeded 2"]
        await completes(alone, "after")


def doomed_worker(deployment, directory):
    return WorkerProcess(
        "tests.apps.parts:app",
        redis_url=deployment.url,
        prefix=deployment.prefix,
        directory=directory,
        args=("--lease", "150ms", "--claim-idle", "250ms"),
    )


async def delete_entries(deployment, act):
    """Delete all entries of the default stream as an operator might."""
    stream = deployment.stream()
    if act == "DEL":
        await deployment.client.delete(stream)
    elif act == "DELCONSUMER":
        for consumer in await deployment.client.xinfo_consumers(stream, "askeld"):
            await deployment.client.xgroup_delconsumer(stream, "askeld", consumer["name"])
    elif act == "XTRIM":
        await deployment.client.xtrim(stream, maxlen=0, approximate=False)
    else:
        for entry, _ in await deployment.client.xrange(stream):
            await deployment.client.xdel(stream, entry)


@pytest.mark.parametrize("act", ["XDEL", "XTRIM", "DELCONSUMER"])
async def test_a_run_whose_token_was_deleted_under_its_living_owner_goes_on(alone, act, tmp_path):
    """The same rows: nobody can have taken the run, so its owner goes on without the entry."""
    gate = tmp_path / "gate"
    async with alone.worker(app, **QUICK) as worker, alone.worker(app, **QUICK):
        await alone.send("run.start", workflow="waits", input=str(gate), run_id="r")
        await alone.until_step("r", "gate", "running")
        await delete_entries(alone, act)
        calls = await calls_of(alone, "xpending")

        async def renewed_often():
            return await calls_of(alone, "xpending") >= calls + 40

        await wait_until(renewed_often)
        gate.touch()
        record = await alone.until("r", "completed")
    assert record.path("gate") == ["running 1", "succeeded 1"]
    assert not worker.logged("token_remade")


@pytest.mark.parametrize("act", ["nothing", "XDEL"])
async def test_a_token_on_a_queue_is_looked_for_there(alone, act, tmp_path):
    """By workers that do not serve the queue, too: an owner that lives is left alone."""
    gate = tmp_path / "gate"
    async with (
        alone.worker(app, **QUICK, queues=("",)) as other,
        alone.worker(app, **QUICK, queues=("warehouse",)) as owner,
    ):
        fields = {"workflow": "waits", "input": str(gate), "run_id": "r"}
        entry = await alone.send("run.start", "warehouse", **fields)
        await alone.until_step("r", "gate", "running")
        if act == "XDEL":
            await alone.client.xdel(alone.stream("warehouse"), entry)
        looks = other.reached["after_remake_tokens"] + 20
        await wait_until(lambda: other.reached["after_remake_tokens"] >= looks)
        assert not other.logged("token_remade")
        assert not owner.logged("token_remade")
        gate.touch()
        record = await alone.until("r", "completed")
    assert record.path("gate") == ["running 1", "succeeded 1"]


async def calls_of(deployment, command):
    stats = await deployment.client.info("commandstats")
    return stats.get(f"cmdstat_{command}", {"calls": 0})["calls"]


async def test_unread_commands_that_a_producer_trims_are_noticed(alone):
    """Row `XADD MAXLEN after unread commands`: invisible to lag once the rest was read."""
    async with alone.worker(app, **QUICK):
        await completes(alone, "before")
        await alone.quiet()
    for number in range(10):
        command = {"type": "run.start", "workflow": "one_step", "run_id": f"r{number}"}
        await alone.client.xadd(alone.stream(), command, maxlen=3, approximate=False)
    async with alone.worker(app, **QUICK) as worker:
        await alone.until_completed(4)
        await alone.quiet()
    said = worker.logged("commands_trimmed")
    if (await alone.client.info("server"))["redis_version"].startswith("6."):
        assert said == []  # it does not count what was added to a stream: nobody can know
        return
    assert [(one["level"], one["stream"], one["lost"]) for one in said] == [
        ("error", alone.stream(), 7)
    ]


async def test_a_timer_for_a_stream_that_is_none_is_kept(alone):
    """Row `WRONGTYPE in Lua`: refused before the timer is removed; others go on."""
    await alone.client.set(alone.stream("broken"), "junk")
    fields = {"type": "step.execute", "run_id": "r", "step_name": "s", "rpc_name": "echo"}
    words = [word for pair in fields.items() for word in pair]
    await alone.client.zadd(f"{alone.prefix}:timers", {json.dumps(["broken", *words]): 1})
    async with alone.worker(app, **QUICK) as worker:
        await alone.send("run.start", workflow="rests", input="10ms", run_id="other")
        await alone.until("other", "completed")
        (letter,) = await alone.dead_letters(1)
        assert worker.logged("timer_stream_refused", stream=alone.stream("broken"))
        assert await alone.client.getdel(alone.stream("broken")) == b"junk"
        await alone.quiet(dead=1)
    assert json.loads(letter["timer"]) == ["broken", *words]
