"""A fake client is driven directly: tests of applications need no server."""

import asyncio

import fakeredis
import pytest

from askel import (
    App,
    RedisWorkflowService,
    Run,
    ScriptMissingError,
    StoreReplyError,
    StoreUnavailableError,
)
from askel.state import connect
from askel.state.store.client_connection import ClientConnection

app = App("fake")


@app.step
def double(number: int) -> int:
    return 2 * number


@app.workflow
async def doubled(run: Run, number: int) -> int:
    first = await run.do("first", double, number)
    return await run.do("second", double, first)


@pytest.fixture
def store():
    return fakeredis.FakeServer()


@pytest.fixture
async def client(store):
    client = fakeredis.FakeAsyncRedis(server=store)
    yield client
    await client.aclose()


async def test_fake_client_is_driven_directly_and_stays_open(client):
    connection = connect(client)

    assert isinstance(connection, ClientConnection)
    assert await connection.send("SET", "a", "1") == b"OK"
    assert await connection.send("GET", "a") == b"1"
    await connection.close()
    assert await client.get("a") == b"1"


async def test_replies_are_bytes_even_where_the_client_decodes(store):
    async with fakeredis.FakeAsyncRedis(server=store, decode_responses=True) as client:
        await client.set("a", "ä")
        assert await connect(client).send("GET", "a") == "ä".encode()


async def test_script_that_is_missing_says_so(client):
    connection = connect(client)

    with pytest.raises(ScriptMissingError):
        await connection.send("EVALSHA", "0" * 40, 0)
    sha = await connection.send("SCRIPT", "LOAD", "return {KEYS[1], ARGV[1]}")
    assert await connection.send("EVALSHA", sha, 1, "k", "v") == [b"k", b"v"]


async def test_error_reply_is_one_of_ours(client):
    connection = connect(client)
    await connection.send("SET", "a", "1")

    with pytest.raises(StoreReplyError, match="WRONGTYPE"):
        await connection.send("LPUSH", "a", 1)


async def test_cancelled_command_never_gives_its_reply_to_another(client):
    connection = connect(client)
    for number in range(5):
        blocked = asyncio.create_task(connection.send("BLPOP", "queue", 1))
        for _ in range(50):  # until it blocks
            await asyncio.sleep(0)
        blocked.cancel()
        assert isinstance(
            (await asyncio.gather(blocked, return_exceptions=True))[0], asyncio.CancelledError
        )
        assert await connection.send("ECHO", str(number)) == str(number).encode()
    await connection.send("RPUSH", "queue", *range(9))  # lets go what the fake still blocks on


async def test_fake_that_is_down_is_unavailable(store, client):
    connection = connect(client)
    store.connected = False

    with pytest.raises(StoreUnavailableError, match="cannot reach Redis"):
        await connection.send("PING")
    store.connected = True
    assert await connection.send("PING") == b"PONG"


async def test_whole_workflow_runs_on_a_fake(client):
    service = RedisWorkflowService(client, key_prefix="shop")

    run_id = await app.start(service, "doubled", 3)

    run = await service.get_run(run_id)
    assert (run.status, run.output) == ("completed", 12)
    assert [(a.step_name, a.result) for a in await service.get_run_history(run_id)] == [
        ("first", 6), ("second", 12)
    ]  # fmt: skip


async def test_service_works_on_a_fake(client):
    async with RedisWorkflowService(client) as service:
        run_id = await service.create_run("w", [])
        step = await service.insert_step_state(run_id, "s", "f", 1, {"retries": 1})
        async with service.run_lock(run_id) as lock:
            assert lock.fence == 1
            await service.set_step_error(step.step_id, ValueError("no"))
            await service.create_retry_attempt(step.step_id, "running")
            await service.set_step_result(step.step_id, [1, {}])
        await service.update_run_status(run_id, "completed", output=None)

        statuses = [(a.attempt_count, a.status) for a in await service.get_run_history(run_id)]
        assert statuses == [(1, "failed"), (2, "succeeded")]
