"""The multiplexed connection when the network, or the server, misbehaves."""

import asyncio
import resource
import socket

import pytest
from tests.helpers.waiting import wait_until

from askel import InvalidOptionError, StoreUnavailableError, UnknownOutcomeError
from askel.state import connect
from askel.state.store.connection import MAX_BACKOFF_S

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
async def connection(proxy):
    connection = connect(proxy.url, timeout_s=0.5)
    yield connection
    await connection.close()


async def try_again(connection, *command):
    """Send a command until it is answered."""

    async def answered():
        try:
            return [await connection.send(*command)]
        except (StoreUnavailableError, UnknownOutcomeError):
            return None

    return (await wait_until(answered))[0]


async def test_broken_connection_fails_all_that_is_outstanding_and_is_opened_again(
    connection, proxy
):
    await connection.send("PING")
    proxy.black_hole("to_client")
    futures = [connection.send("ECHO", number) for number in range(100)]
    await wait_until(lambda: proxy.faults["black_hole_to_client"])
    proxy.drop_connections()

    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    proxy.heal()

    assert {type(outcome) for outcome in outcomes} == {UnknownOutcomeError}
    assert await connection.send("ECHO", "later") == b"later"
    assert connection.connects == 2


async def test_lost_reply_is_unknown_and_the_command_is_never_sent_again(
    connection, proxy, redis, keys
):
    rule = proxy.lose_next_reply(b"INCR")

    with pytest.raises(UnknownOutcomeError):
        await connection.send("INCR", keys.meta)
    assert await try_again(connection, "GET", keys.meta) == b"1"

    assert rule.hits == 1
    assert proxy.names.count("INCR") == 1
    assert await redis.get(keys.meta) == b"1"


async def test_lost_reply_takes_what_came_after_it_with_it_but_not_what_came_before(
    connection, proxy, redis, keys
):
    await connection.send("PING")
    proxy.lose_next_reply(b"second")
    futures = [connection.send("RPUSH", keys.meta, word) for word in ("first", "second", "third")]

    outcomes = await asyncio.gather(*futures, return_exceptions=True)

    assert outcomes[0] == 1
    assert [type(outcome) for outcome in outcomes[1:]] == [UnknownOutcomeError] * 2
    await try_again(connection, "PING")
    assert await redis.lrange(keys.meta, 0, 1) == [b"first", b"second"]
    assert proxy.names.count("RPUSH") == 3


async def test_lost_request_is_unknown_too_and_was_not_executed(connection, proxy, redis, keys):
    await connection.send("PING")
    proxy.lose_next_request(b"INCR")

    with pytest.raises(UnknownOutcomeError):
        await connection.send("INCR", keys.meta)
    assert await redis.get(keys.meta) is None


@pytest.mark.parametrize("after", [0, 1, 5, 40])
async def test_reply_cut_in_the_middle_is_unknown(connection, proxy, after):
    await connection.send("PING")
    proxy.cut_next_reply(after, b"ECHO")

    with pytest.raises(UnknownOutcomeError):
        await connection.send("ECHO", "x" * 100)
    assert await try_again(connection, "ECHO", "whole") == b"whole"


async def test_reply_cut_by_a_server_that_then_hangs_is_unknown_after_the_timeout(
    connection, proxy
):
    await connection.send("PING")
    proxy.cut_next_reply(3, b"ECHO", hang=True)

    with pytest.raises(UnknownOutcomeError, match=r"no reply from Redis for 0\.5 s"):
        await connection.send("ECHO", "x" * 100)


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\xff\r\n",
        b"*-7\r\n",
        b"*4294967295\r\n",  # more than there is memory for
        b"*99999999999\r\n",
    ],
)
async def test_garbage_breaks_the_connection_off(connection, proxy, garbage):
    await connection.send("PING")
    proxy.garble_next_reply(garbage, b"ECHO")

    with pytest.raises(UnknownOutcomeError, match="sent what is not a reply"):
        await connection.send("ECHO", "x")
    assert await try_again(connection, "ECHO", "later") == b"later"
    assert connection.connects == 2


@pytest.mark.parametrize("header", [b"*1000000000\r\n", b"$999999999999\r\n"])
async def test_a_header_that_promises_too_much_takes_no_memory_and_times_out(
    connection, proxy, header
):
    """Row `huge headers`: what was promised is not waited for beyond the timeout."""
    await connection.send("PING")
    proxy.garble_next_reply(header, b"ECHO")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(UnknownOutcomeError, match=r"no reply from Redis for 0\.5 s"):
        await connection.send("ECHO", "x")

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    assert await try_again(connection, "ECHO", "later") == b"later"


async def test_reply_too_many_breaks_the_connection_off(connection, proxy):
    await connection.send("PING")
    proxy.garble_next_reply(b"+one\r\n+two\r\n", b"ECHO")

    assert await connection.send("ECHO", "x") == b"one"
    assert await try_again(connection, "ECHO", "later") == b"later"
    assert connection.connects == 2


async def test_silent_server_is_unknown_after_the_timeout(connection, proxy):
    await connection.send("PING")
    proxy.black_hole("to_client")
    begun = asyncio.get_running_loop().time()

    with pytest.raises(UnknownOutcomeError, match=r"no reply from Redis for 0\.5 s"):
        await connection.send("PING")

    assert 0.4 < asyncio.get_running_loop().time() - begun < 3
    proxy.heal()
    assert await try_again(connection, "PING") == b"PONG"


async def test_server_that_is_slow_but_answers_is_not_silent(connection, proxy):
    await connection.send("PING")
    proxy.delay_replies(0.3, times=1)
    first = connection.send("ECHO", 1)
    await asyncio.wait_for(first, 5)
    proxy.delay_replies(0.3, times=1)

    assert await connection.send("ECHO", 2) == b"2"
    assert connection.connects == 1


async def test_idle_connection_is_not_taken_for_silent(proxy):
    connection = connect(proxy.url, timeout_s=0.05)
    await connection.send("PING")
    await asyncio.sleep(0.15)  # three times the timeout, with nothing outstanding

    assert await connection.send("PING") == b"PONG"
    assert connection.connects == 1
    await connection.close()


async def test_server_that_never_greets_is_unavailable(proxy):
    proxy.black_hole("to_client")
    connection = connect(proxy.url, timeout_s=0.2)

    with pytest.raises(StoreUnavailableError, match=r"cannot reach Redis at 127\.0\.0\.1:\d+"):
        await connection.send("INCR", "never")
    await connection.close()


async def test_refused_connection_was_not_sent_and_is_not_hammered(connection, proxy, monkeypatch):
    monkeypatch.setattr("askel.state.store.connection.MAX_BACKOFF_S", 0.1)
    proxy.refuse_connections()
    pauses = []
    for _ in range(6):
        with pytest.raises(
            StoreUnavailableError, match=r"cannot reach Redis at \S+:\d+: connection refused"
        ):
            await connection.send("INCR", "never")
        pauses.append(connection._backoff_s)

    assert pauses == [0.02, 0.04, 0.08, 0.1, 0.1, 0.1]  # doubled at each attempt, and bounded
    assert MAX_BACKOFF_S == 1.0
    proxy.accept_connections()
    assert await connection.send("PING") == b"PONG"
    assert connection._backoff_s == 0


async def test_many_who_wait_share_one_attempt(connection, proxy, monkeypatch):
    proxy.refuse_connections()
    attempts = 0
    open_socket = connection._settings.open

    async def counted(protocol):
        nonlocal attempts
        attempts += 1
        return await open_socket(protocol)

    monkeypatch.setattr(connection._settings, "open", counted)

    outcomes = await asyncio.gather(
        *(connection.send("PING") for _ in range(500)), return_exceptions=True
    )

    assert {type(outcome) for outcome in outcomes} == {StoreUnavailableError}
    assert attempts == 1


async def test_name_that_does_not_resolve_is_unavailable():
    connection = connect("redis://no-such-host.invalid:6379")

    with pytest.raises(StoreUnavailableError, match=r"no-such-host\.invalid:6379"):
        await connection.send("PING")
    await connection.close()


class Broken:
    """Stands for whatever can go wrong while a connection is opened."""

    def get_credentials(self):
        raise RuntimeError("the vault is sealed")


@pytest.mark.parametrize("host", ["x" * 70 + ".example", "a..b"])
async def test_host_that_cannot_be_a_name_is_unavailable_each_time(host):
    connection = connect({"host": host, "port": 6379})

    for _ in range(2):
        with pytest.raises((StoreUnavailableError, InvalidOptionError), match="cannot reach"):
            await asyncio.wait_for(connection.send("PING"), 5)
    await connection.close()


async def test_credentials_that_cannot_be_had_are_no_hang(server):
    connection = connect(
        {"host": server.host, "port": server.port, "credential_provider": Broken()}
    )

    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="the credential provider failed with"):
            await asyncio.wait_for(connection.send("PING"), 5)
    await connection.close()


class Scripted:
    """A server that does one thing to each connection."""

    def __init__(self, act):
        self._act = act
        self.connections = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            await self._act(reader, writer)
        finally:
            writer.close()

    async def __aexit__(self, *exc_info):
        self._server.close()
        await self._server.wait_closed()


async def reset(reader, writer):
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


async def full(reader, writer):
    writer.write(b"-ERR max number of clients reached\r\n")


async def loading(reader, writer):
    while await reader.read(1_000):
        writer.write(b"-LOADING Redis is loading the dataset in memory\r\n")


async def greet_and_leave(reader, writer):
    await reader.read(1_000)
    writer.write(b"+PONG\r\n")


@pytest.mark.parametrize("act", [reset, full, loading])
async def test_server_that_does_not_let_us_in_is_unavailable_each_time(act):
    async with Scripted(act) as server:
        connection = connect(server.url)
        for number in range(1, 4):
            with pytest.raises(StoreUnavailableError, match="cannot reach Redis"):
                await asyncio.wait_for(connection.send("INCR", "never"), 5)
            assert server.connections == number
        await connection.close()


async def test_server_that_leaves_right_after_the_greeting_never_wedges_the_connection():
    async with Scripted(greet_and_leave) as server:
        connection = connect(server.url)
        for _ in range(4):
            with pytest.raises((StoreUnavailableError, UnknownOutcomeError)):
                await asyncio.wait_for(connection.send("PING"), 5)
        assert server.connections >= 3
        await connection.close()
