"""The multiplexed connection: many tasks, one socket, replies matched in order."""

import asyncio
import random

import pytest
from tests.helpers.waiting import wait_until

from askel import ScriptMissingError, StoreReplyError, StoreUnavailableError, UnknownOutcomeError
from askel.state import connect
from askel.state.store.connection import MultiplexedConnection

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
async def connection(redis_url):
    connection = connect(redis_url)
    assert isinstance(connection, MultiplexedConnection)
    yield connection
    await connection.close()


def count_writes(connection, monkeypatch):
    """Return the list that collects what is written to the open socket."""
    writes = []
    transport = connection._link._transport

    class Counting:
        def write(self, data):
            writes.append(bytes(data))
            transport.write(data)

        def __getattr__(self, name):
            return getattr(transport, name)

    monkeypatch.setattr(connection._link, "_transport", Counting())
    return writes


async def test_nothing_is_opened_before_the_first_command(connection):
    assert connection.connects == 0
    assert await connection.send("PING") == b"PONG"
    assert connection.connects == 1


async def test_commands_of_one_pass_leave_in_one_write(connection, monkeypatch):
    await connection.send("PING")
    writes = count_writes(connection, monkeypatch)

    async def task(number):
        return await connection.send("ECHO", f"reply {number}")

    replies = await asyncio.gather(*(task(number) for number in range(200)))

    assert replies == [f"reply {number}".encode() for number in range(200)]
    assert [write.count(b"ECHO") for write in writes] == [200]


async def test_commands_issued_before_the_socket_is_open_share_it(connection):
    replies = await asyncio.gather(*(connection.send("ECHO", str(n)) for n in range(100)))

    assert replies == [str(number).encode() for number in range(100)]
    assert connection.connects == 1


async def test_replies_match_ten_thousand_mixed_commands(connection, keys):
    rng = random.Random(7)

    async def check(number):
        await asyncio.sleep(0) if rng.random() < 0.3 else None
        kind = rng.randrange(6)
        if kind == 0:
            assert await connection.send("ECHO", number) == str(number).encode()
        elif kind == 1:
            payload = rng.randbytes(rng.choice([0, 1, 100, 20_000])) + b"\r\n"
            assert await connection.send("ECHO", payload) == payload
        elif kind == 2:
            with pytest.raises(StoreReplyError, match=f"nope{number}"):
                await connection.send(f"nope{number}", "x")
        elif kind == 3:
            assert await connection.send("GET", f"{keys.prefix}:none") is None
        elif kind == 4:
            script = "return {ARGV[1], tonumber(ARGV[1]), {{'x', false}}}"
            nested = [str(number).encode(), number, [[b"x", None]]]
            assert await connection.send("EVAL", script, 0, number) == nested
        else:
            assert await connection.send("STRLEN", f"{keys.prefix}:none") == 0

    await asyncio.gather(*(check(number) for number in range(10_000)))

    assert connection.connects == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_cancelled_waiters_never_disturb_the_replies_of_others(connection, seed):
    rng = random.Random(seed)
    answered = []

    async def ask(number):
        reply = await connection.send("ECHO", number)
        assert reply == str(number).encode()
        answered.append(number)

    cancelled = 0
    for _ in range(100):
        tasks = [asyncio.create_task(ask(number)) for number in range(rng.randrange(1, 30))]
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        for task in tasks:
            if rng.random() < 0.5:
                cancelled += task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(r is None or isinstance(r, asyncio.CancelledError) for r in results)

    assert cancelled > 300
    assert len(answered) > 300
    assert connection.connects == 1


async def test_waiter_that_gave_up_before_the_socket_was_open_sends_nothing(
    connection, redis, keys
):
    lost = connection.send("INCR", keys.meta)
    kept = connection.send("INCR", keys.meta)
    lost.cancel()

    assert await kept == 1
    assert await redis.get(keys.meta) == b"1"


async def test_reply_that_nobody_awaits_is_dropped(connection):
    connection.send("ECHO", "unheard")

    assert await connection.send("ECHO", "heard") == b"heard"


async def test_unawaited_error_reply_is_no_warning(connection, caplog):
    future = connection.send("NOPE")
    await connection.send("PING")
    future.cancel()

    assert await connection.send("PING") == b"PONG"
    del future
    assert not caplog.records


async def test_error_reply_has_its_code(connection, keys):
    await connection.send("SET", keys.meta, "text")

    with pytest.raises(StoreReplyError) as wrong_type:
        await connection.send("LPUSH", keys.meta, 1)
    with pytest.raises(ScriptMissingError) as missing:
        await connection.send("EVALSHA", "0" * 40, 0)

    assert (wrong_type.value.code, missing.value.code) == ("WRONGTYPE", "NOSCRIPT")
    assert await connection.send("GET", keys.meta) == b"text"


async def test_large_reply_and_large_command_pass(connection, keys):
    payload = random.Random(3).randbytes(3_000_000)

    futures = [connection.send("SET", keys.meta, payload), connection.send("GET", keys.meta)]
    futures.append(connection.send("ECHO", "after"))

    assert await asyncio.gather(*futures) == [b"OK", payload, b"after"]


async def test_numbers_are_sent_as_text(connection):
    assert await connection.send("ECHO", 42) == b"42"
    assert await connection.send("ECHO", 1.5) == b"1.5"


async def test_name_is_shown_to_the_server(redis_url, redis):
    connection = connect(redis_url, name="askel-test-name")
    await connection.send("PING")

    assert "askel-test-name" in {client["name"] for client in await redis.client_list()}
    await connection.close()


async def test_closed_connection_sends_nothing_more(connection):
    await connection.send("PING")
    await connection.close()

    with pytest.raises(StoreUnavailableError, match="closed"):
        await connection.send("PING")
    await connection.close()
    assert connection.connects == 1


async def test_closing_ends_what_is_outstanding_as_unknown(connection, keys):
    blocked = asyncio.ensure_future(connection.send("BLPOP", keys.meta, 30))
    await wait_until(lambda: connection.connects == 1)

    await connection.close()

    with pytest.raises(UnknownOutcomeError, match="closed"):
        await blocked


async def test_closing_while_opening_fails_who_waits_as_not_sent(connection):
    waiting = asyncio.ensure_future(connection.send("PING"))
    await asyncio.sleep(0)

    await connection.close()

    with pytest.raises(StoreUnavailableError, match="closed"):
        await waiting


async def test_connection_killed_by_the_server_is_opened_again(connection, redis):
    number = await connection.send("CLIENT", "ID")
    await redis.execute_command("CLIENT", "KILL", "ID", number)

    async def answered():
        try:
            return await connection.send("CLIENT", "ID") != number
        except (UnknownOutcomeError, StoreUnavailableError):
            return False

    await wait_until(answered)
    assert connection.connects == 2
