"""Redis goes away, forgets, or loses replies: every run completes, nothing happens twice."""

import gc
import json
import random

import pytest
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.apps.parts import JOURNEY, app
from tests.helpers.daemon import Deployment
from tests.helpers.history_checker import check_all, check_run
from tests.helpers.waiting import wait_until

from askel import StoreUnavailableError
from askel.state import connect, load_scripts
from askeld.embedded import EmbeddedServer

WAREHOUSE = {"queues": ("", "warehouse")}
#: Every script that a journey and its passivations come by.
SCRIPTS = ["start", "activate", "turn", "begin", "complete", "due", "fire", "record"]


async def start(deployment, count, first=0):
    names = [f"r{number}" for number in range(first, first + count)]
    for name in names:
        await deployment.send("run.start", workflow="journey", input=name, run_id=name)
    return names


async def all_completed(deployment, names):
    """Every run has completed once, with its result, and with no more attempts than it needs."""
    for name in names:
        record = await deployment.until(name, "completed", timeout=20)
        assert json.loads(record.run["output"]) == [*JOURNEY, name]
    await deployment.quiet()
    return await check_all(deployment.client, deployment.prefix)


async def progress(deployment, names, done):
    """Wait until at least *done* of the runs have completed; return how many go on."""
    return len(names) - await deployment.until_completed(done)


@pytest.fixture
def private(server, tmp_path):
    """A server of the test's own that keeps what it acknowledged."""
    options = {"appendonly": "yes", "appendfsync": "always"}
    with EmbeddedServer(tmp_path, binary=server.binary, port=0, options=options) as private:
        yield private


@pytest.fixture
async def own(private):
    """A deployment on it."""
    client = redis.asyncio.Redis.from_url(private.url, protocol=2, retry=Retry(NoBackoff(), 0))
    yield Deployment(client, private.url, "own")
    await client.aclose()


@pytest.mark.parametrize("linger_ms", [0, 10_000])
async def test_a_server_that_crashes_and_comes_back(own, private, linger_ms):
    """Runs under way wait for it and go on; the workers reconnect by themselves."""
    settings = {**WAREHOUSE, "linger_ms": linger_ms}
    async with own.worker(app, **settings) as one, own.worker(app, **settings) as two:
        names, interrupted = [], 0
        for round_ in range(3):
            names += await start(own, 15, first=15 * round_)
            interrupted += await progress(own, names, 15 * round_ + 1)
            private.kill()
            private.start()
            await own.client.connection_pool.disconnect()
        assert interrupted > 0
        records = await all_completed(own, names)
        assert not one.ended.is_set()
        assert not two.ended.is_set()
    assert len(records) == 45
    # Nobody died, so nothing was lost: attempts were only waiting for their turn.
    assert sum(record.count("lost") for record in records) == 0


async def test_a_server_that_is_away_for_a_while(own, private):
    """Nobody gives up, and handlers that end meanwhile are not executed again."""
    calls = []
    counting = type(app)("counting")

    @counting.step
    async def slow(name: str) -> str:
        calls.append(name)
        await wait_until(lambda: private.running is False)
        return name

    @counting.workflow
    async def w(run, name: str) -> str:
        return await run.do("slow", slow, name)

    async with own.worker(counting, lease_ms=2_000, claim_idle_ms=4_000) as worker:
        for number in range(5):
            await own.send("run.start", workflow="w", input=f"r{number}", run_id=f"r{number}")
        await wait_until(lambda: len(calls) == 5)
        private.kill()
        await wait_until(lambda: worker.reached["after_handler"] == 5)
        await wait_until(lambda: worker.logged("read_interrupted"))
        private.start()
        await own.client.connection_pool.disconnect()
        for number in range(5):
            record = await own.until(f"r{number}", "completed")
            assert record.path("slow") == ["running 1", "succeeded 1"]
        await own.quiet()
    assert sorted(calls) == [f"r{number}" for number in range(5)]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_connection_that_is_cut_at_random(deployment, proxy, seed):
    """Dozens of replies are lost after the command was executed; each is asked for again."""
    dice = random.Random(seed)
    settings = {**WAREHOUSE, "url": proxy.url, "linger_ms": 20}
    async with deployment.worker(app, **settings), deployment.worker(app, **settings):
        proxy.lose_next_reply(lambda _: dice.random() < 0.03, times=30)
        names = await start(deployment, 25)
        records = await all_completed(deployment, names)
        proxy.heal()
    assert proxy.faults["lose_reply"] >= 20
    for record in records:
        assert record.count("succeeded") == 8


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_lost_reply_of_each_script(deployment, proxy, script):
    """The first, second and third reply of the script are lost: its effect is there once."""
    sha = sha_of(script)
    settings = {**WAREHOUSE, "url": proxy.url, "linger_ms": 0}
    async with deployment.worker(app, **settings):
        await start(deployment, 1)
        await all_completed(deployment, ["r0"])  # now every script is loaded
        rule = proxy.lose_next_reply(sha, times=3)
        await start(deployment, 3, first=1)
        records = await all_completed(deployment, ["r1", "r2", "r3"])
        assert rule.hits == 3
    assert sum(record.count("lost") for record in records) == 0
    assert [record.count("running") for record in records] == [10] * 4


def sha_of(script):
    return load_scripts()[script].sha.encode()


async def test_what_was_delivered_by_a_lost_reply_is_not_left_to_reclaim(deployment, proxy):
    """The reader asks for its own pending entries first: no lease has to run out for them."""
    long = {"lease_ms": 60_000, "claim_idle_ms": 120_000}
    async with deployment.worker(app, **long, url=proxy.url):
        await start_one(deployment, "before")
        lost = proxy.lose_next_reply(lambda it: b"XREADGROUP" in it and b"BLOCK" in it)
        await start_one(deployment, "first")
        await start_one(deployment, "second")
        await deployment.quiet()
    assert lost.hits == 1


@pytest.mark.parametrize("script", ["settle", "create_run", "put_back", "bury", "drop", "requeue"])
async def test_a_lost_reply_of_the_scripts_of_commands(deployment, proxy, script):
    """The same for commands that are no part of a journey."""
    rule = proxy.lose_next_reply(sha_of(script))
    async with deployment.worker(app, url=proxy.url) as worker:
        await deployment.send("run.create", workflow="w", run_id="d")
        await deployment.until("d", "running")
        await deployment.send("run.complete", run_id="d")
        await deployment.until("d", "completed")
        for _ in range(2):
            await deployment.send("run.start", workflow="one_step", id="twice", run_id="t")
            await deployment.until("t", "completed")
        seconds, microseconds = await deployment.client.time()
        at = seconds * 1_000 + microseconds // 1_000 + 200
        await deployment.send("run.start", workflow="one_step", run_id="later", at=at)
        await deployment.send("run.start", workflow="one_step", run_id="later")
        await deployment.until("later", "completed")
        await deployment.send("run.start", workflow="foreign", run_id="r")
        await deployment.until_step("r", "pack", "scheduled")
        await deployment.client.delete(deployment.stream("rust"))
        await deployment.dead_letters(1)
        await worker.stopped()
    assert rule.hits == 1
    async with deployment.worker(app):
        await deployment.send("run.cancel", run_id="r")
        await deployment.until("r", "cancelled")
        await deployment.quiet(dead=1)
    (letter,) = await deployment.dead_letters()
    assert letter["reason"] == "run_exists"
    for run_id in ("d", "t", "later", "r"):
        await check_run(deployment.client, deployment.prefix, run_id)


async def test_a_server_that_forgets_its_scripts(deployment):
    """SCRIPT FLUSH costs a round trip, for whoever is in the middle of something."""
    async with deployment.worker(app, **WAREHOUSE, linger_ms=0):
        names, interrupted = await start(deployment, 20), 0
        for done in range(1, 15, 3):
            interrupted += await progress(deployment, names, done)
            await deployment.client.script_flush()
        assert interrupted > 0
        records = await all_completed(deployment, names)
    assert sum(record.count("lost") for record in records) == 0


async def test_a_group_that_was_destroyed_is_made_again(deployment):
    """Entries that nobody has acknowledged are read again; what is under way goes on."""
    async with deployment.worker(app, **WAREHOUSE, linger_ms=10_000) as worker:
        names = await start(deployment, 10)
        await progress(deployment, names, 1)
        for queue in ("", "warehouse"):
            assert await deployment.client.xgroup_destroy(deployment.stream(queue), "askeld")
        names += await start(deployment, 10, first=10)
        await all_completed(deployment, names)
        assert not worker.ended.is_set()
        assert worker.logged("group_missing")
        assert len(worker.worker._leases) == 0


async def test_a_group_that_was_destroyed_while_handlers_run(deployment, tmp_path):
    """The same entry is delivered again to whoever works on it: it is not worked on twice."""
    gate = tmp_path / "gate"
    async with deployment.worker(app, lease_ms=60_000, claim_idle_ms=90_000) as worker:
        for number in range(3):
            await deployment.send(
                "run.start", workflow="waits", input=str(gate), run_id=f"r{number}"
            )
            await deployment.until_step(f"r{number}", "gate", "running")
        assert await deployment.client.xgroup_destroy(deployment.stream(), "askeld")
        await wait_until(lambda: worker.logged("group_missing"))

        async def delivered_again():
            groups = await deployment.client.xinfo_groups(deployment.stream())
            return [group["pending"] for group in groups] == [3]

        await wait_until(delivered_again)
        gate.touch()
        for number in range(3):
            record = await deployment.until(f"r{number}", "completed")
            assert record.path("gate") == ["running 1", "succeeded 1"]
        await deployment.quiet()
        assert len(worker.worker._leases) == 0


async def test_a_stream_that_was_deleted_is_made_again(deployment):
    """What was on it is gone; what comes later is served."""
    async with deployment.worker(app) as worker:
        await start_one(deployment, "before")
        await deployment.client.delete(deployment.stream())
        await wait_until(lambda: worker.logged("group_missing"))
        await start_one(deployment, "after")
        await deployment.quiet()


async def start_one(deployment, run_id):
    await deployment.send("run.start", workflow="one_step", run_id=run_id)
    await deployment.until(run_id, "completed")


async def test_a_worker_without_redis_says_so_and_one_that_loses_it_waits(deployment, proxy):
    """At the start there is nothing to wait for; later it goes on trying."""
    async with deployment.worker(app, url=proxy.url) as worker:
        await start_one(deployment, "before")
        proxy.refuse_connections()
        proxy.drop_connections()
        await wait_until(lambda: worker.logged("read_interrupted"))
        await deployment.send("run.start", workflow="one_step", run_id="meanwhile")
        proxy.accept_connections()
        await deployment.until("meanwhile", "completed")
        await deployment.quiet()
        assert not worker.ended.is_set()


async def test_a_connection_that_breaks_while_it_is_opened_is_one_error(proxy):
    """Whoever waits is told; nothing is left behind to be complained about."""
    connection = connect(proxy.url, name="greets")
    proxy.lose_next_reply(b"SETNAME")
    with pytest.raises(StoreUnavailableError):
        await connection.send("PING")
    gc.collect()  # an error that nobody has looked at would be reported now
    assert await connection.send("PING") == b"PONG"
    await connection.close()
