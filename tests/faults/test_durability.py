"""Durability by run: what is told is confirmed; what is not confirmed is told as that."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
import redis.asyncio
from tests.apps.parts import app
from tests.helpers.cli import ASKEL, run_program
from tests.helpers.daemon import Deployment
from tests.helpers.replicas import replicated
from tests.helpers.waiting import wait_until

from askel import (
    App,
    Client,
    InvalidOptionError,
    NotConfirmedError,
    RedisWorkflowService,
    RunNotFoundError,
    StoreUnsafeError,
    StreamQueue,
    UnknownOutcomeError,
)
from askel.state import Durability, as_durability
from askeld.embedded import EmbeddedServer
from askeld.torture.fault_proxy import FaultProxy

ONE = "replicated(1)"
sure = App("sure")


@sure.workflow(durability=ONE)
async def careful(run):
    """Do nothing, but surely."""
    return "done"


@pytest.fixture
def pair(redis_server):
    with replicated(redis_server.binary) as pair:
        yield pair


@asynccontextmanager
async def working(url, app, **settings):
    """Run a worker on the server at *url*; provide the worker and the means to look."""
    client = redis.asyncio.Redis.from_url(url, protocol=2)
    deployment = Deployment(client, url, "p")
    async with deployment.worker(app, **settings) as worker:
        yield deployment, worker
    await client.aclose()


@asynccontextmanager
async def service_on(url, **options):
    service = RedisWorkflowService(url, key_prefix="p", **options)
    yield service
    await service.close()


@pytest.mark.parametrize(
    ("text", "level"),
    [
        (None, Durability()),
        ("memory", Durability()),
        ("fsync", Durability(fsync=True)),
        (ONE, Durability(replicas=1)),
        ("replicated(12)", Durability(replicas=12)),
    ],
)
def test_forms(text, level):
    assert as_durability(text) == level
    assert as_durability(str(level)) == level
    assert bool(level) is (text not in {None, "memory"})


@pytest.mark.parametrize("text", ["disk", "replicated", "replicated(0)", "replicated(-1)", 7])
def test_what_is_not_known_is_refused(text):
    with pytest.raises(InvalidOptionError, match=r"write memory, fsync or replicated\(n\)"):
        as_durability(text)


async def test_a_creation_is_confirmed_or_said_not_to_be(pair):
    """The replica that is frozen seems to be there; what it has not said it has, it has not."""
    async with service_on(pair.url) as service:
        await service.create_run("w", run_id="sure", durability=ONE)
        assert await service.unconfirmed_since("sure") is None
        assert (await service.get_run("sure")).durability == ONE
        pair.freeze()
        with pytest.raises(NotConfirmedError, match=r"run 'unsure' .*0 of 1 replicas") as caught:
            await service.create_run("w", run_id="unsure", durability=ONE)
        assert (caught.value.what, caught.value.durability) == ("run 'unsure'", ONE)
        assert (await service.get_run("unsure")).id == "unsure"
        assert await service.unconfirmed_since("unsure") is not None
        pair.thaw()
        assert (await service.confirm_run("unsure")).id == "unsure"
        assert await service.unconfirmed_since("unsure") is None


async def test_whoever_asks_for_nothing_waits_for_nobody(pair):
    """The connection of ordinary writes is not held up by those that wait, and pays nothing."""
    async with service_on(pair.url) as service:
        await service.create_run("w", run_id="before")
        await service.update_run_status("before", "completed")
        assert service.confirmer._connection is None
        pair.freeze()
        slow = asyncio.create_task(service.create_run("w", run_id="slow", durability=ONE))
        await wait_until(lambda: service.unconfirmed_since("slow"))
        for number in range(50):
            await service.create_run("w", run_id=f"quick{number}")
        assert not slow.done()
        with pytest.raises(NotConfirmedError):
            await slow


async def test_the_end_of_a_run_waits_for_its_confirmation(pair):
    async with (
        working(pair.url, sure) as (look, worker),
        Client(pair.url, "p") as client,
    ):
        handle = await client.start("careful", durability=ONE)
        assert await handle.result("10s") == "done"
        pair.freeze()
        with pytest.raises(NotConfirmedError, match=r"run\.start of run 'r' is not confirmed"):
            await client.start("careful", run_id="r", durability=ONE)
        await look.until("r", "completed")
        with pytest.raises(NotConfirmedError, match="the end of run 'r' is not confirmed"):
            await client.result("r", "10s")
        await wait_until(lambda: worker.logged("runs_not_confirmed"))
        assert await look.client.zscore("p:runs:unconfirmed", "r")
        pair.thaw()
        assert await client.result("r", "10s") == "done"
        await wait_until(lambda: worker.logged("runs_confirmed"), 20)
        assert not await look.client.exists("p:runs:unconfirmed")


async def test_a_workflow_that_declares_it_has_it_whoever_starts_it(pair):
    """Other programs' commands, the app itself, and inline runs."""
    async with working(pair.url, sure) as (look, _):
        await look.send("run.start", workflow="careful", run_id="sent")
        record = await look.until("sent", "completed")
        assert record.run["durability"] == ONE
        queue = StreamQueue(pair.url, "p")
        async with service_on(pair.url, queue=queue) as service:
            run_id = await sure.start(service, careful)
            record = await look.until(run_id, "completed")
            assert record.run["durability"] == ONE
            pair.freeze()
            with pytest.raises(NotConfirmedError, match=r"run\.start of run"):
                await sure.start(service, careful)
        await queue.close()
    async with service_on(pair.url) as service:
        with pytest.raises(NotConfirmedError, match="run 'inline' is not confirmed"):
            await sure.start(service, careful, run_id="inline")
        pair.thaw()
        assert await sure.start(service, careful, run_id="again") == "again"
        assert await service.unconfirmed_since("again") is None


async def test_signals_are_confirmed_where_asked(pair):
    async with service_on(pair.url) as service, Client(pair.url, "p") as client:
        await service.create_run("w", run_id="r")
        await client.signal("r", "go", durability=ONE)
        pair.freeze()
        with pytest.raises(NotConfirmedError, match=r"run\.signal of run 'r'"):
            await client.signal("r", "go", durability=ONE)
        assert await service.connection.send("XLEN", "p:commands") == 2


async def test_from_the_command_line(pair, tmp_path):
    where = ["--redis", pair.url, "--prefix", "p"]
    async with working(pair.url, sure) as (look, _):

        async def askel(*given):
            command = [ASKEL, *given, *where]
            return await asyncio.to_thread(run_program, command, cwd=tmp_path)

        assert (await askel("run", "careful", "--durability", ONE)).code == 0
        pair.freeze()
        refused = await askel("start", "careful", "--run-id", "r", "--durability", ONE)
        assert refused.code == 5
        assert "run.start of run 'r' is not confirmed as replicated(1)" in refused.err
        await look.until("r", "completed")
        assert "replicated(1), not confirmed since" in (await askel("show", "r")).out
        assert json.loads((await askel("show", "r", "--json")).out)["unconfirmed_since"]
        pair.thaw()

        async def confirmed():
            return not await look.client.exists("p:runs:unconfirmed")

        await wait_until(confirmed, 20)
        assert "replicated(1), confirmed" in (await askel("show", "r")).out
        assert json.loads((await askel("show", "r", "--json")).out)["unconfirmed_since"] is None
        assert (await askel("start", "careful", "--durability", "disk")).code == 2


async def test_a_lost_answer_is_not_confirmed_and_a_lost_command_unknown(pair):
    async with (
        FaultProxy("127.0.0.1", pair.primary.port) as proxy,
        Client(proxy.url, "p") as client,
    ):
        await client.start("careful", durability=ONE)
        proxy.lose_next_reply(lambda request: request.startswith(b"*3\r\n$4\r\nWAIT"))
        with pytest.raises(NotConfirmedError, match="is not confirmed"):
            await client.start("careful", durability=ONE)
        proxy.lose_next_reply(b"XADD")
        with pytest.raises(UnknownOutcomeError):
            await client.start("careful", durability=ONE)
        assert await client.start("careful", durability=ONE)


async def test_a_run_that_a_failover_took_is_never_called_confirmed(pair):
    """It was not replicated; the promoted replica has never heard of it."""
    pair.freeze()
    async with service_on(pair.url) as service:
        with pytest.raises(NotConfirmedError):
            await service.create_run("w", run_id="r", durability=ONE)
    pair.primary.kill()
    with EmbeddedServer(port=0, binary=pair.replica._binary) as successor:
        async with service_on(successor.url) as service:
            with pytest.raises(RunNotFoundError):
                await service.confirm_run("r")


async def test_what_became_of_a_marked_run(pair):
    """Its mark goes with it when it is deleted, and with the generation that it was."""
    async with service_on(pair.url) as service:
        pair.freeze()
        for run_id in ("gone", "former"):
            with pytest.raises(NotConfirmedError):
                await service.create_run("w", run_id=run_id, durability=ONE)
        pair.thaw()
        await service.delete_run("gone", force=True)
        await service.create_run("w", run_id="former", if_exists="terminate-existing")
        marked = await service.connection.send("ZRANGE", "p:runs:unconfirmed", 0, -1)
        assert marked == [b"former.g1"]
        assert (await service.confirm_run("former")).durability is None
        assert (await service.confirm_run("former.g1")).durability == ONE
        assert await service.unconfirmed_since("former.g1") is None


FSYNC = {
    # server -> what a server that appends every second answers
    "valkey-9": None,
    "redis-7.0": StoreUnsafeError,
    "redis-6.2": StoreUnsafeError,
}


async def test_fsync(redis_server):
    """By WAITAOF where there is one; else only where every write is synced before its answer."""
    binary = redis_server.binary
    with EmbeddedServer(port=0, binary=binary) as server:
        async with service_on(server.url) as service:
            refusal = FSYNC[redis_server.id]
            if refusal is None:
                await service.create_run("w", run_id="r", durability="fsync")
                assert await service.unconfirmed_since("r") is None
            else:
                with pytest.raises(refusal, match=r"no WAITAOF .*appendfsync is not 'always'"):
                    await service.create_run("w", run_id="r", durability="fsync")
                assert await service.get_run("r") is None
    with EmbeddedServer(port=0, binary=binary, options={"appendfsync": "always"}) as server:
        async with service_on(server.url) as service:
            await service.create_run("w", run_id="r", durability="fsync")
            assert await service.unconfirmed_since("r") is None
            if refusal is not None:
                await service.connection.send("CONFIG", "SET", "appendfsync", "everysec")
                with pytest.raises(StoreUnsafeError):
                    await service.confirm_run("r")


async def test_fsync_without_an_append_only_file_is_refused(redis_server):
    durable = App("durable")

    @durable.workflow(durability="fsync")
    async def kept(run):
        """Do nothing."""

    options = {"appendonly": "no"}
    with EmbeddedServer(port=0, binary=redis_server.binary, options=options) as server:
        async with service_on(server.url) as service:
            with pytest.raises(StoreUnsafeError):
                await service.create_run("w", run_id="r", durability="fsync")
            assert await service.get_run("r") is None
        with pytest.raises(BaseExceptionGroup) as caught:
            async with working(server.url, durable):
                pass
        assert caught.group_contains(StoreUnsafeError, match="fsync")


async def test_workers_need_nothing_for_ordinary_workflows(pair):
    async with working(pair.url, app) as (look, worker):
        await look.send("run.start", workflow="one_step", input=1, run_id="r")
        await look.until("r", "completed")
        assert worker.worker._confirmer._connection is None
