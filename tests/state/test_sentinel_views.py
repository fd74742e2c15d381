"""What a connection makes of what sentinels say: sentinels that are told what to say."""

import contextlib

import pytest
from tests.helpers.fake_sentinel import FakeSentinel
from tests.helpers.sentinels import plain_client
from tests.helpers.waiting import wait_until

from askel import StoreError, StoreReplyError, StoreUnavailableError
from askel.state import RedisWorkflowService, connect
from askel.state.store import sentinel
from askeld.embedded import EmbeddedServer


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    """Let connections ask sentinels ten times as often."""
    monkeypatch.setattr(sentinel, "VERIFY_S", 0.1)


@pytest.fixture
def pair(redis_server):
    """Two servers of the same kind, apart from each other."""
    with (
        EmbeddedServer(port=0, binary=redis_server.binary, options={"appendonly": "no"}) as one,
        EmbeddedServer(port=0, binary=redis_server.binary, options={"appendonly": "no"}) as other,
    ):
        yield one, other


def following(*sentinels):
    """Return a connection that asks these."""
    hosts = ",".join(f"127.0.0.1:{one.port}" for one in sentinels)
    return connect(f"redis+sentinel://{hosts}/m")


async def server_of(connection):
    """Return the port of the server that answers."""
    text = await connection.send("CONFIG", "GET", "port")
    return int(text[1])


async def until_at(connection, port):
    async def there():
        with contextlib.suppress(StoreError):
            return await server_of(connection) == port

    await wait_until(there)


async def test_an_idle_connection_leaves_a_primary_that_was_replaced(pair):
    """Nobody sends anything and the old primary still takes writes: it is not believed."""
    one, other = pair
    async with FakeSentinel(one.port) as told:
        connection = following(told)
        assert await server_of(connection) == one.port
        told.primary, told.epoch = other.port, 2
        await wait_until(lambda: connection._link is None)
        assert await server_of(connection) == other.port
        assert connection.connects == 2
        await connection.close()


async def test_a_command_under_way_then_is_unknown(pair):
    one, other = pair
    async with FakeSentinel(one.port) as told:
        connection = following(told)
        await connection.send("PING")
        waiting = connection.send("BLPOP", "nothing", 0)
        told.primary, told.epoch = other.port, 2
        with pytest.raises(StoreError, match=f"now 127.0.0.1:{other.port}, no longer") as caught:
            await waiting
        assert "it may have been applied" in str(caught.value)
        await connection.close()


async def test_a_sentinel_with_an_old_view_is_not_followed(pair):
    """One was cut off together with the old primary, and says that it still is the primary."""
    one, other = pair
    async with FakeSentinel(one.port, epoch=1) as old, FakeSentinel(other.port, epoch=2) as new:
        connection = following(old, new)
        assert await server_of(connection) == other.port
        known = old.asked
        await wait_until(lambda: old.asked > known + 3)
        assert connection.connects == 1
        new.silent = True
        known = old.asked
        await wait_until(lambda: old.asked > known + 3)
        assert (await server_of(connection), connection.connects) == (other.port, 1)
        await connection.close()


async def test_sentinels_that_are_gone_end_no_connection(pair):
    one, _ = pair
    async with FakeSentinel(one.port) as told:
        connection = following(told)
        await connection.send("PING")
    known = connection._settings._sentinels._connections[f"127.0.0.1:{told.port}"]
    await wait_until(lambda: known._backoff_s > 0)
    assert (await server_of(connection), connection.connects) == (one.port, 1)
    await connection.close()


async def test_another_spelling_of_the_same_server_is_no_failover(pair):
    one, _ = pair
    async with FakeSentinel(one.port) as told:
        connection = following(told)
        await connection.send("PING")
        told.host, known = "localhost", told.asked
        await wait_until(lambda: told.asked > known + 3)
        assert connection.connects == 1
        await connection.close()


async def test_a_replica_is_refused_until_it_is_promoted(pair):
    one, other = pair
    async with FakeSentinel(other.port) as told:
        with plain_client(other.port) as client:
            client.execute_command("REPLICAOF", "127.0.0.1", one.port)
            connection = following(told)
            with pytest.raises(StoreUnavailableError, match=r"it is a replica .*failover is under"):
                await connection.send("PING")
            client.execute_command("REPLICAOF", "NO", "ONE")
        await until_at(connection, other.port)
        await connection.close()


async def test_a_demotion_is_noticed_by_the_first_refusal_even_inside_a_script(pair, monkeypatch):
    """Sentinels are not asked in between: READONLY alone makes the connection look for another."""
    monkeypatch.setattr(sentinel, "VERIFY_S", 1_000)
    one, other = pair
    async with FakeSentinel(one.port) as told:
        service = RedisWorkflowService(
            f"redis+sentinel://127.0.0.1:{told.port}/m", key_prefix="p", resend_s=10
        )
        await service.create_run("w", run_id="before")
        with plain_client(one.port) as client:
            client.execute_command("REPLICAOF", "127.0.0.1", other.port)
        told.primary, told.epoch = other.port, 2
        await service.create_run("w", run_id="after")
        assert await server_of(service.connection) == other.port
        assert (await service.get_run("after")).id == "after"
        await service.close()


async def test_a_plain_connection_looks_again_too(pair):
    """Behind the name of a plain address there may be another server by now."""
    one, other = pair
    connection = connect(one.url)
    with plain_client(one.port) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", other.port)
        for _ in range(3):
            with pytest.raises(StoreReplyError, match="READONLY"):
                await connection.send("SET", "k", 1)
    assert connection.connects == 3
    await connection.close()
