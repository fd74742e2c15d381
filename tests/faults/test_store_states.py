"""A server that is there but refuses: workers wait, say so once, and go on by themselves.

Each test names the row of the fault table that it holds. What was measured is printed: `pytest -s`.
"""

import asyncio
import json
import os
import signal
import threading
import time
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
import redis
from tests.apps.parts import app
from tests.helpers.history_checker import check_all
from tests.helpers.waiting import wait_until

from askel.state.store.connection import MAX_BACKOFF_S

QUICK = {"lease_ms": 600, "claim_idle_ms": 900, "block_ms": 200}
LONG = 20  # for what takes a second on a machine that does nothing else
#: More commands than this in a second, by one worker that can do nothing, are a hot loop.
MOST_PER_SECOND = 250


async def completes(deployment, run_id):
    await deployment.send("run.start", workflow="one_step", run_id=run_id)
    return await deployment.until(run_id, "completed", timeout=LONG)


@asynccontextmanager
async def an_attempt_under_way(deployment, gate, **settings):
    """A worker with a handler that ends when *gate* is made; yields the worker."""
    async with deployment.worker(app, **{**QUICK, **settings}) as worker:
        await deployment.send("run.start", workflow="waits", input=str(gate), run_id="waits")
        await deployment.until_step("waits", "gate", "running")
        yield worker


def calls_of(deployment):
    async def calls():
        return (await deployment.client.info("stats"))["total_commands_processed"]

    return calls


async def rides_out(deployment, worker, gate, event, mend):
    """What every trouble has in common, from the moment that it is there until after its end."""
    await wait_until(lambda: worker.logged(event), LONG, event)
    assert event in worker.worker.health.obstacles()
    gate.touch()
    await wait_until(lambda: worker.reached["after_handler"] >= 1)
    await mend()
    begun = time.monotonic()
    record = await deployment.until("waits", "completed", timeout=LONG)
    seconds = time.monotonic() - begun
    print(f"first commit {seconds:.2f} s after the end of {event}")  # noqa: T201
    assert seconds < LONG / 2
    assert record.path("gate") == ["running 1", "succeeded 1"]  # nobody was robbed
    await completes(deployment, "after")
    await wait_until(lambda: worker.logged("store_back"), LONG)
    said = [(one["event"], one.get("error")) for one in worker.logs if "store_" in one["event"]]
    assert [name for name, _ in said] == [event, "store_back"], said
    assert worker.worker.health.obstacles() == []
    assert not worker.ended.is_set()
    await deployment.quiet()
    await check_all(deployment.client, deployment.prefix)


async def is_calm(deployment, calls, asked=0):
    """Whether a worker that can do nothing sends no more than a few commands in a second."""
    before = await calls()
    await anyio.sleep(1)  # a second is what is looked at
    sent = await calls() - before - asked - 1
    print(f"{sent} commands in a second")  # noqa: T201
    return sent < MOST_PER_SECOND


async def config(deployment, **settings):
    for name, value in settings.items():
        await deployment.client.config_set(name.replace("_", "-"), value)


REFUSALS = {
    "OOM": ("store_full", {"maxmemory": "1"}, {"maxmemory": "0"}),
    "NOREPLICAS": (
        "store_unsafe",
        {"min_replicas_to_write": "1"},
        {"min_replicas_to_write": "0"},
    ),
}


@pytest.mark.parametrize("row", REFUSALS)
async def test_a_server_that_refuses_writes(alone, tmp_path, row):
    """Rows `OOM noeviction`, `NOREPLICAS`."""
    event, trouble, mended = REFUSALS[row]
    gate = tmp_path / "gate"
    async with an_attempt_under_way(alone, gate) as worker:
        await config(alone, **trouble)
        await wait_until(lambda: worker.logged(event), LONG)
        assert row in worker.worker._store.why
        assert await is_calm(alone, calls_of(alone))
        await rides_out(alone, worker, gate, event, lambda: config(alone, **mended))


async def reads_nothing(deployment):
    clients = await deployment.client.client_list()
    return not [
        client for client in clients if client["cmd"] == "xreadgroup" and "b" in client["flags"]
    ]


async def test_a_finished_result_lands_on_a_full_server_and_new_work_waits(alone, tmp_path):
    """Row `OOM noeviction`: nothing is read or claimed; what is finished lands."""
    gate = tmp_path / "gate"
    async with an_attempt_under_way(alone, gate) as worker:
        await config(alone, maxmemory="1")
        await wait_until(lambda: worker.logged("store_full"), LONG)
        await wait_until(lambda: reads_nothing(alone), LONG)
        # Redis judges memory until the first write of a script: so a full server takes these.
        body = "redis.call('DEL', KEYS[2]) return redis.call('XADD', KEYS[1], '*', unpack(ARGV))"
        words = ["type", "run.start", "workflow", "one_step", "run_id"]
        for name in ("dead", "unread"):
            await alone.client.eval(body, 2, alone.stream(), "none", *words, name)
            if name == "dead":
                await alone.client.xreadgroup("askeld", "dead-1", {alone.stream(): ">"})
        gate.touch()
        await alone.until_step("waits", "gate", "succeeded", timeout=LONG)

        async def is_idle_for_long():
            pending = await alone.client.xpending_range(
                alone.stream(), "askeld", "-", "+", 9, "dead-1"
            )
            return pending and pending[0]["time_since_delivered"] > 2 * QUICK["claim_idle_ms"]

        await wait_until(is_idle_for_long)
        (group,) = await alone.client.xinfo_groups(alone.stream())
        assert group["pending"] == 1  # what is the dead one's: the run has ended, full or not
        assert await alone.status("waits") == "completed"
        assert worker.worker._work.room == 0
        await config(alone, maxmemory="0")
        for run_id in ("dead", "unread"):
            await alone.until(run_id, "completed", timeout=LONG)
        await alone.quiet()


async def replicate(deployment, *where):
    await deployment.client.execute_command("REPLICAOF", *where)


async def test_a_server_that_was_demoted_while_the_worker_reads(alone, tmp_path):
    """Rows `READONLY`, `demotion while blocked`."""
    gate = tmp_path / "gate"
    async with an_attempt_under_way(alone, gate) as worker:
        await replicate(alone, "127.0.0.1", "1")
        await wait_until(lambda: worker.logged("store_read_only"), LONG)
        assert await is_calm(alone, calls_of(alone))
        back = lambda: replicate(alone, "NO", "ONE")  # noqa: E731
        await rides_out(alone, worker, gate, "store_read_only", back)


async def test_a_replica_that_knows_no_primary(alone, tmp_path):
    """Row `replica, stale-data no`: MASTERDOWN."""
    gate = tmp_path / "gate"
    async with an_attempt_under_way(alone, gate) as worker:
        await config(alone, replica_serve_stale_data="no")
        await replicate(alone, "127.0.0.1", "1")
        back = lambda: replicate(alone, "NO", "ONE")  # noqa: E731
        await rides_out(alone, worker, gate, "store_not_ready", back)


async def test_a_server_that_cannot_save(any_private, alone, tmp_path):
    """Row `MISCONF`: every write is refused, and PING, and XACK."""
    gate, gone = tmp_path / "gate", tmp_path / "gone"
    gone.mkdir()
    async with an_attempt_under_way(alone, gate) as worker:
        await config(alone, save="3600 1", dir=str(gone))
        gone.rmdir()

        async def bgsave():
            with suppress(redis.ResponseError):  # one is under way
                await alone.client.bgsave()
            return (await alone.client.info("persistence"))["rdb_last_bgsave_status"]

        async def fails():
            return await bgsave() == "err"

        await wait_until(fails, LONG)
        await wait_until(lambda: worker.logged("store_unsafe"), LONG)
        assert "MISCONF" in worker.worker._store.why
        assert await is_calm(alone, calls_of(alone))

        async def mend():
            await config(alone, dir=str(any_private.directory))

            async def saves():
                return await bgsave() == "ok"

            await wait_until(saves, LONG)

        await rides_out(alone, worker, gate, "store_unsafe", mend)


async def test_a_server_that_is_busy_with_a_script(any_private, alone, tmp_path):
    """Row `BUSY script`: PING is refused, too; the worker is not ended by it."""
    gate = tmp_path / "gate"
    await config(alone, lua_time_limit="50")
    async with an_attempt_under_way(alone, gate) as worker:

        def loop_for_ever():
            client = redis.Redis.from_url(any_private.url, retry=None)
            with client, suppress(redis.RedisError):  # killed, as is meant
                client.eval("while true do end", 0)

        thread = threading.Thread(target=loop_for_ever)
        thread.start()

        async def mend():
            await alone.client.script_kill()
            await asyncio.to_thread(thread.join)

        await rides_out(alone, worker, gate, "store_not_ready", mend)


@pytest.mark.parametrize("mode", ["ALL", "WRITE"])
async def test_clients_that_are_paused(alone, tmp_path, mode):
    """Row `CLIENT PAUSE`: replies come late; what was sent is applied once."""
    gate = tmp_path / "gate"
    async with an_attempt_under_way(alone, gate) as worker:
        await alone.client.execute_command("CLIENT", "PAUSE", 1_500, mode)
        gate.touch()
        record = await alone.until("waits", "completed", timeout=LONG)
        assert record.path("gate") == ["running 1", "succeeded 1"]
        await completes(alone, "after")
        assert not worker.ended.is_set()


async def test_a_server_that_is_stopped(any_private, alone, tmp_path):
    """Row `server SIGSTOP`: no reply in time means unknown; what was sent is applied once."""
    gate = tmp_path / "gate"
    slow = {"lease_ms": 20_000, "claim_idle_ms": 30_000}
    async with an_attempt_under_way(alone, gate, **slow) as worker:
        os.kill(any_private.pid, signal.SIGSTOP)

        async def mend():
            os.kill(any_private.pid, signal.SIGCONT)

        await rides_out(alone, worker, gate, "store_away", mend)


async def test_connections_that_are_killed(alone, tmp_path):
    """Row `CLIENT KILL`: each is opened again."""
    gate = tmp_path / "gate"
    async with an_attempt_under_way(alone, gate) as worker:
        for round_ in range(5):
            await alone.client.client_kill_filter(_type="normal", skipme=True)
            await completes(alone, f"r{round_}")
        (held,) = await alone.client.xpending_range(alone.stream(), "askeld", "-", "+", 9)
        assert held["times_delivered"] == 1  # looked for after each loss, but not made poison of
        gate.touch()
        record = await alone.until("waits", "completed", timeout=LONG)
        assert record.path("gate") == ["running 1", "succeeded 1"]
        assert not worker.ended.is_set()


async def test_a_server_that_lets_nobody_in(alone, tmp_path):
    """Row `maxclients`: connections are refused; the worker backs off."""
    gate = tmp_path / "gate"
    async with an_attempt_under_way(alone, gate) as worker:
        mine = [c for c in await alone.client.client_list() if not c["name"].startswith("askel")]
        await config(alone, maxclients=str(len(mine)))
        await alone.client.client_kill_filter(_type="normal", skipme=True)
        await wait_until(lambda: worker.logged("store_away"), LONG)

        async def connections():
            return (await alone.client.info("stats"))["total_connections_received"]

        before = await connections()
        await anyio.sleep(1)  # a second is what is looked at
        assert await connections() - before < 40
        mend = lambda: config(alone, maxclients="10000")  # noqa: E731
        await rides_out(alone, worker, gate, "store_away", mend)


@pytest.mark.parametrize("kill", [True, False], ids=["kill -9", "shutdown"])
async def test_a_server_that_restarts_and_takes_its_time_to_load(
    any_private, alone, tmp_path, kill
):
    """Rows `kill -9, AOF`, `LOADING`: scripts are gone, entries still pending, idle times go on."""
    gate = tmp_path / "gate"
    async with alone.client.pipeline(transaction=False) as many:
        for number in range(60):
            many.set(f"filler:{number}", os.urandom(100_000))
        await many.execute()
    await alone.client.execute_command("BGREWRITEAOF")

    async def rewritten():
        facts = await alone.client.info("persistence")
        return not facts["aof_rewrite_in_progress"] and facts["aof_last_bgrewrite_status"] == "ok"

    await wait_until(rewritten)
    any_private._options["key-load-delay"] = "30000"  # while it loads, it looks up every 2 MB
    async with an_attempt_under_way(alone, gate, lease_ms=5_000, claim_idle_ms=9_000) as worker:
        if kill:
            any_private.kill()
        else:
            any_private._halt(signal.SIGTERM)
        await wait_until(lambda: worker.logged("store_away"), LONG)
        loading = asyncio.create_task(asyncio.to_thread(any_private.start))
        await wait_until(lambda: worker.logged("store_not_ready"), LONG)
        gate.touch()
        await loading
        begun = time.monotonic()
        await alone.client.connection_pool.disconnect()
        record = await alone.until("waits", "completed", timeout=LONG)
        seconds = time.monotonic() - begun
        print(f"first commit {seconds:.2f} s after Redis had loaded")  # noqa: T201
        assert record.path("gate") == ["running 1", "succeeded 1"]
        await completes(alone, "after")
        await wait_until(lambda: worker.logged("store_back"), LONG)
        assert not worker.logged("store_wiped")
        assert not worker.ended.is_set()
    await check_all(alone.client, alone.prefix)


async def test_the_first_commit_after_a_long_absence(any_private, alone, tmp_path):
    """However long Redis was away: pauses between attempts have a bound, and do not add up."""
    gate = tmp_path / "gate"
    async with an_attempt_under_way(alone, gate, lease_ms=9_000, claim_idle_ms=20_000) as worker:
        any_private.kill()
        gate.touch()
        await wait_until(lambda: worker.reached["after_handler"] >= 1)
        commands = worker.worker._connections[0]
        await wait_until(lambda: commands._backoff_s == MAX_BACKOFF_S, LONG)
        await asyncio.to_thread(any_private.start)
        begun = time.monotonic()
        await alone.client.connection_pool.disconnect()
        record = await alone.until("waits", "completed", timeout=LONG)
        seconds = time.monotonic() - begun
        print(f"first commit {seconds:.2f} s after a long absence")  # noqa: T201
        assert seconds < LONG / 2
        assert record.path("gate") == ["running 1", "succeeded 1"]
        await completes(alone, "after")
        assert len(worker.logged("store_away")) == 1
        assert not worker.ended.is_set()


async def test_a_server_that_restarts_without_its_data(any_private, alone):
    """Row `restart without persistence`: NOGROUP, XACK 0, an empty database; never silently."""
    async with alone.worker(app, **QUICK) as worker:
        await completes(alone, "before")
        await config(alone, appendonly="no")
        any_private._options["appendonly"] = "no"
        any_private.kill()
        await asyncio.to_thread(any_private.start)
        await alone.client.connection_pool.disconnect()
        await wait_until(lambda: worker.logged("store_wiped"), LONG)
        await completes(alone, "after")
        assert len(worker.logged("store_wiped")) == 1
        assert not worker.ended.is_set()


async def test_a_server_that_begins_to_evict(alone, monkeypatch):
    """Row `eviction`: refused at the start, noticed later; nothing new is begun meanwhile."""
    monkeypatch.setattr("askeld.store_watch._LOOK_CLOSELY_EVERY", 1)
    async with alone.worker(app, **QUICK) as worker:
        await completes(alone, "before")
        await config(alone, maxmemory_policy="allkeys-lru")
        await wait_until(lambda: worker.logged("store_unsafe"), LONG)
        assert "allkeys-lru" in worker.logged("store_unsafe")[0]["error"]
        await wait_until(lambda: worker.worker._work.room == 0)
        await config(alone, maxmemory_policy="noeviction")
        await completes(alone, "after")


async def test_commands_of_the_largest_size_pass_a_server_of_the_smallest_limit(alone):
    """Row `over proto-max-bulk-len`: payloads are limited before they are sent."""
    await config(alone, proto_max_bulk_len="1048576")
    async with alone.worker(app, **QUICK) as worker:
        for number, size in enumerate((1_000_000, 1_040_000)):
            text = "x" * size
            await alone.send("run.start", workflow="one_step", input=text, run_id=f"r{number}")
            record = await alone.until(f"r{number}", "completed", timeout=LONG)
            assert json.loads(record.run["output"]) == text
        assert not worker.ended.is_set()


async def test_replies_beyond_the_output_buffer_are_read_in_smaller_parts(alone):
    """Row `reply over output-buffer limit`: the connection is closed, again and again."""
    text = "x" * 200_000
    for number in range(40):
        await alone.send("run.start", workflow="one_step", input=text, run_id=f"r{number}")
    await config(alone, client_output_buffer_limit="normal 1mb 0 0")
    async with alone.worker(app, **QUICK, concurrency=40) as worker:
        await alone.until_completed(40, timeout=LONG)
        await alone.quiet()
        assert not worker.ended.is_set()
