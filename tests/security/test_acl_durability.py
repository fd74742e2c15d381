"""Users for durable runs: what `askel acl --durability` adds is needed, and is enough."""

from contextlib import asynccontextmanager

import pytest
import redis.asyncio
from tests.helpers.daemon import Deployment
from tests.helpers.replicas import replicated

from askel import App, Client, RedisWorkflowService, StoreAccessError
from askeld.acl import DURABILITY, Extras, rule
from askeld.embedded import EmbeddedServer

ONE = "replicated(1)"
sure, synced = App("sure"), App("synced")


@sure.workflow(name="careful", durability=ONE)
async def careful(run):
    """Do nothing, but surely."""
    return "done"


@synced.workflow(name="careful", durability="fsync")
async def careful_here(run):
    """Do nothing, but on disk."""
    return "done"


@asynccontextmanager
async def hired(url, role, *durability):
    """Provide a deployment whose workers log in as a user of the role."""
    client = redis.asyncio.Redis.from_url(url, protocol=2)
    words = rule(role, "p", Extras(durability=durability))
    await client.execute_command("ACL", "SETUSER", role, "reset", "on", ">s", *words)
    try:
        yield Deployment(client, url.replace("redis://", f"redis://{role}:s@"), "p")
    finally:
        await client.aclose()


async def refusal(deployment, app):
    """Return what a worker says that does not start."""
    with pytest.raises(ExceptionGroup) as caught:
        async with deployment.worker(app):
            pass
    error = caught.value
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    return error


async def test_a_worker_that_may_not_wait_does_not_start(redis_server):
    """It would be ready, and none of its runs ever confirmed."""
    with replicated(redis_server.binary) as pair:
        async with hired(pair.url, "worker") as there:
            why = await refusal(there, sure)
            assert isinstance(why, StoreAccessError)
            assert "'wait'" in str(why)
            assert f"workflows that are {ONE} need it (askel acl --durability)" in str(why)
        async with (
            hired(pair.url, "worker", "replicated") as there,
            there.worker(sure) as worker,
        ):
            await there.send("run.start", workflow="careful", run_id="r")
            await there.until("r", "completed")
            assert not worker.logged("runs_not_confirmed")


@pytest.mark.parametrize("asked", ["fsync", "always"])
async def test_a_worker_that_may_not_ask_what_is_on_disk_does_not_start(redis_server, asked):
    has_waitaof = redis_server.binary.version >= (7, 2)
    if has_waitaof != (asked == "fsync"):
        pytest.skip("this server is asked by the other command")
    options = {"appendfsync": "always"}
    with EmbeddedServer(binary=redis_server.binary, port=0, options=options) as server:
        async with hired(server.url, "worker") as there:
            (command,) = DURABILITY[asked]
            assert command in str(await refusal(there, synced))
        async with hired(server.url, "worker", asked) as there, there.worker(synced):
            await there.send("run.start", workflow="careful", run_id="r")
            await there.until("r", "completed")


async def test_a_producer_that_may_not_wait_sends_nothing(redis_server):
    """Rather than something of which nobody knows whether it is kept."""
    with replicated(redis_server.binary) as pair:
        async with hired(pair.url, "producer") as there, Client(there.url, "p") as client:
            with pytest.raises(StoreAccessError, match="'wait'"):
                await client.start("careful", durability=ONE)
            assert not await there.client.exists("p:commands")
        async with hired(pair.url, "producer", "replicated") as there:
            async with Client(there.url, "p") as client:
                await client.start("careful", durability=ONE)
            assert await there.client.xlen("p:commands") == 1


async def test_a_creation_that_can_never_be_confirmed_is_refused_before_it_is_written(redis_server):
    with replicated(redis_server.binary) as pair:
        async with (
            hired(pair.url, "worker") as there,
            RedisWorkflowService(there.url, key_prefix="p") as service,
        ):
            with pytest.raises(StoreAccessError, match="'wait'"):
                await service.create_run("w", run_id="r", durability=ONE)
            assert await service.get_run("r") is None


@pytest.mark.parametrize("level", DURABILITY)
def test_the_program_prints_them(call, level):
    (command,) = DURABILITY[level]
    assert f"+{command}" not in call("acl", "--role", "worker").out.split()
    assert f"+{command}" in call("acl", "--role", "worker", "--durability", level).out.split()
    everybody = call("acl", "--durability", level).out.splitlines()
    having = {
        line.split()[1] for line in everybody if f" +{command}" in f"{line} ".replace("\n", " ")
    }
    assert having == {"askel-worker", "askel-producer"}
    refused = call("acl", "--role", "viewer", "--durability", level)
    assert (refused.code, "a viewer confirms nothing" in refused.err) == (2, True)
