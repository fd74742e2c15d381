"""A server that refuses: full, read only, with keys of other types. Nothing is half-written."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.helpers.state import in_a_hurry, keys, service
from tests.helpers.twins import WRITES, Twins, arrange, fit_to_compare, impatient, twins

from askel import AskelError, StoreReplyError
from askeld.embedded import EmbeddedServer

__all__ = ["in_a_hurry", "keys", "service", "twins"]

pytestmark = pytest.mark.allow_keys(r".*")  # twins have prefixes of their own


async def finished_and_next(service):
    async with service.transaction("r") as tx:
        tx.set_step_result("r:s:id", 1)
        following = tx.insert_step_state("next", "f").step_id
        tx.set_step_running(following)
        tx.update_run_state("v", 1)


async def ended(service):
    async with service.transaction("r") as tx:
        tx.set_step_error("r:s:id", ValueError("no"))
        tx.update_run_status("failed", error=ValueError("no"))


#: What ends something: it lands whole, however full the server is.
FINISHING = {
    "completed": ("step", lambda s: s.update_run_status("r", "completed", output=[1])),
    "failed": ("step", lambda s: s.update_run_status("r", "failed", error=ValueError("no"))),
    "cancelled": ("step", lambda s: s.update_run_status("r", "cancelled")),
    "result": WRITES["set_step_result"],
    "error": WRITES["set_step_error"],
    "result of a retry": ("retry", WRITES["set_step_result"][1]),
    "failed while suspended": ("suspended", lambda s: s.update_run_status("r", "failed")),
    "result, then the next step": ("step", finished_and_next),
    "end in a transaction": ("step", ended),
    "delete_run": WRITES["delete_run"],
    "delete_run by force": WRITES["delete_run by force"],
}


#: What begins something: it is refused whole.
BEGINNING = {
    **{name: write for name, write in WRITES.items() if name not in {
        "update_run_status", "set_step_result", "set_step_error", "delete_run",
        "delete_run by force", "run_lock", "step_lock",
    }},
    "create_run after the end": (
        "end",
        lambda s: s.create_run("w", 2, run_id="r", if_exists="after-terminal"),
    ),
    "run_lock": ("step", lambda s: impatient(WRITES["run_lock"][1], s)),
    "step_lock": ("step", lambda s: impatient(WRITES["step_lock"][1], s)),
}  # fmt: skip


@asynccontextmanager
async def full(redis):
    """Let the server have no memory left for the body."""
    await redis.config_set("maxmemory", "1")
    try:
        yield
    finally:
        await redis.config_set("maxmemory", "0")


async def prepare(service, need):
    await arrange(service, need if need not in {"suspended", "retry"} else "step")
    if need == "suspended":
        await service.update_run_status("r", "suspended", error=ValueError("waits"))
    if need == "retry":
        await service.set_step_error("r:s:id", ValueError("no"))
        await service.create_retry_attempt("r:s:id", "running")


@pytest.mark.parametrize("write", FINISHING)
async def test_what_ends_something_lands_on_a_full_server(redis_server, twins, redis, write):
    need, call = FINISHING[write]
    states = []
    for is_full in (False, True):
        async with twins.made("nothing") as service:
            await prepare(service, need)
            service.resend_s = 0.0
            if is_full:
                async with full(redis):
                    await call(service)
            else:
                await call(service)
            states.append(await twins.state(service))
    assert states[1] == states[0]


async def test_a_lock_is_given_back_on_a_full_server(redis_server, twins, redis):
    async with twins.made("step") as service:
        async with service.run_lock("r"):
            await redis.config_set("maxmemory", "1")
        await redis.config_set("maxmemory", "0")
        assert not [name for name in await twins.state(service) if name.startswith("lock:")]


@pytest.mark.parametrize("write", BEGINNING)
async def test_what_begins_something_is_refused_whole_by_a_full_server(
    redis_server, twins, redis, write
):
    need, call = BEGINNING[write]
    async with twins.made(need) as service:
        before = await twins.state(service)
        service.resend_s = 0.0
        async with full(redis):
            with pytest.raises(StoreReplyError, match="OOM"):
                await call(service)
        assert await twins.state(service) == before
        service.resend_s = 5.0
        await call(service)  # there is room again


async def test_what_begins_something_lands_when_there_is_room_again(service, redis, keys):
    await service.create_run("w", run_id="r")
    async with full(redis):
        call = asyncio.create_task(service.insert_step_state("r", "s", "f"))
        await asyncio.sleep(0.03)  # it is refused a time or two
        assert not call.done()
        assert await redis.exists(keys.step("r", "s")) == 0
    assert (await call).status == "pending"


async def test_a_replica_refuses_and_a_promoted_one_takes_it(redis_server, tmp_path, in_a_hurry):
    """Every write waits out a failover."""
    with EmbeddedServer(tmp_path, binary=redis_server.binary, port=0) as private:
        client = redis.asyncio.Redis.from_url(private.url, protocol=2, retry=Retry(NoBackoff(), 0))
        twins = Twins(client, "p", None, private.url)
        for need, call in WRITES.values():
            async with twins.made(need, url=private.url) as service:
                before = await twins.state(service)
                await client.execute_command("REPLICAOF", "127.0.0.1", "1")
                service.resend_s = 0.0
                with pytest.raises(StoreReplyError, match="READONLY"):
                    await impatient(call, service)
                assert await twins.state(service) == before
                service.resend_s = 5.0
                waiting = asyncio.create_task(call(service))
                await asyncio.sleep(0.002)
                await client.execute_command("REPLICAOF", "NO", "ONE")
                await waiting
        await client.aclose()


async def keys_that_matter(twins, need, call):
    """Return the keys that there are before the call or after it, but for those of the indexes.

    Those belong to all runs: where another program broke them, `askel reindex` says so.
    """
    async with twins.made(need) as service:
        before = set(await twins.state(service))
        await call(service)
        names = before | set(await twins.state(service)) | {"lock:r", "ctl:r"}
        return sorted(name for name in names if not name.startswith("runs"))


@pytest.mark.parametrize("write", WRITES)
async def test_a_key_of_another_type_is_refused_before_anything_is_written(twins, redis, write):
    need, call = WRITES[write]
    told = []
    for name in await keys_that_matter(twins, need, call):
        async with twins.made(need) as service:
            key = f"{service.keys.prefix}:{name}"
            await redis.delete(key)
            await redis.sadd(key, "of another type")
            before = fit_to_compare(await twins.state(service), write)
            service.resend_s = 0.0
            try:
                await call(service)
            except AskelError as error:
                if fit_to_compare(await twins.state(service), write) != before:
                    told.append(f"{name}: {error}")
    assert told == []
