"""What is asked of the Redis server before it is trusted."""

import pytest
from tests.helpers.stubs import StubConnection

from askel import RedisWorkflowService, StoreReplyError, StoreUnavailableError, StoreUnsafeError
from askel.state import Keys
from askel.state.store.server import LAYOUT, inspect_server
from askeld.embedded import EmbeddedServer


class Told(StubConnection):
    """A server that says of itself what it is told to."""

    def __init__(self, info, meta=(b"1", b"1", b"id")):
        super().__init__()
        self.info, self.meta = info, meta

    async def send(self, *command):
        await super().send(*command)
        if command[0] == "INFO":
            if isinstance(self.info, Exception):
                raise self.info
            return self.info.encode()
        return list(self.meta)


async def inspected(info, *, allow_unsafe=False, meta=(b"1", b"1", b"id")):
    return await inspect_server(
        Told(info, meta), Keys("p"), store_id="new", allow_unsafe=allow_unsafe
    )


def info(version="7.0.15", policy="noeviction", aof="1"):
    return (
        f"# Server\r\nredis_version:{version}\r\nmaxmemory_policy:{policy}\r\naof_enabled:{aof}\r\n"
    )


async def test_facts_of_a_good_server():
    facts = await inspected(info())

    assert (facts.version, facts.eviction_policy, facts.append_only) == (
        "7.0.15",
        "noeviction",
        True,
    )
    assert facts.store_id == "id"
    assert not (await inspected(info(aof="0"))).append_only


@pytest.mark.parametrize("version", ["6.0.16", "5.0.7", "2.8", "6.1.240"])
async def test_server_older_than_6_2_is_refused(version):
    with pytest.raises(StoreUnsafeError, match=f"Redis {version} is too old: askel needs 6.2"):
        await inspected(info(version))
    assert (await inspected(info(version), allow_unsafe=True)).version == version


@pytest.mark.parametrize("version", ["6.2.0", "6.10.1", "7.0.15", "10.0.0", "9.1.2"])
async def test_newer_servers_are_accepted(version):
    assert (await inspected(info(version))).version == version


@pytest.mark.parametrize(
    "policy", ["allkeys-lru", "volatile-lru", "volatile-ttl", "allkeys-random"]
)
async def test_server_that_evicts_is_refused(policy):
    with pytest.raises(StoreUnsafeError, match=f"{policy}.*set maxmemory-policy noeviction"):
        await inspected(info(policy=policy))
    assert (await inspected(info(policy=policy), allow_unsafe=True)).eviction_policy == policy


@pytest.mark.parametrize("refusal", ["NOPERM no permission", "ERR unknown command 'INFO'"])
async def test_server_that_does_not_say_is_trusted(refusal):
    assert (await inspected(StoreReplyError(refusal))).version == ""


async def test_other_errors_are_not_swallowed():
    with pytest.raises(StoreReplyError, match="LOADING"):
        await inspected(StoreReplyError("LOADING dataset"))


@pytest.mark.parametrize("meta", [(b"2", b"1", b"id"), (b"1", b"4", b"id"), (b"0", b"1", b"id")])
async def test_prefix_with_another_layout_or_partitions_is_refused(meta):
    with pytest.raises(StoreUnsafeError, match="this version of askel knows layout 1 with 1"):
        await inspected(info(), meta=meta)


@pytest.mark.usefixtures("redis_server")
async def test_store_is_named_once(redis_url, prefix, redis, keys):
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as first:
        facts = await first.init()
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as second:
        assert (await second.init()).store_id == facts.store_id

    meta = await redis.hgetall(keys.meta)
    assert meta == {
        b"layout": str(LAYOUT).encode(),
        b"partitions": b"1",
        b"store": facts.store_id.encode(),
    }
    assert len(facts.store_id) >= 16


async def test_real_server_that_evicts_is_refused():
    options = {"appendonly": "no", "maxmemory": "50mb", "maxmemory-policy": "allkeys-lru"}
    with EmbeddedServer(options=options) as embedded:
        service = RedisWorkflowService(embedded.url)
        with pytest.raises(StoreUnsafeError, match="allkeys-lru"):
            await service.init()
        await service.close()
        async with RedisWorkflowService(embedded.url, allow_unsafe=True) as service:
            assert await service.get_run("nobody") is None


async def test_server_that_is_not_there_is_unavailable():
    service = RedisWorkflowService("redis://127.0.0.1:1")

    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1"):
        async with service:
            pytest.fail("there is no server")
