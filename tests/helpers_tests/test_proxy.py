"""Each fault of the proxy bites exactly as promised, and nothing else is changed."""

import asyncio
import contextlib
import random
import time

import hiredis
import pytest
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.helpers.waiting import wait_until

from askeld.torture.fault_proxy import GARBAGE, FaultProxy
from askeld.torture.resp import Framer, command_name


class Raw:
    """One connection, many commands in flight: what a multiplexed client does."""

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer
        self._replies = hiredis.Reader()
        self.received = b""

    def send(self, *commands):
        self._writer.write(b"".join(hiredis.pack_command(words) for words in commands))

    async def reply(self):
        """The next reply; EOFError when the connection was closed."""
        while (reply := self._replies.gets()) is False:
            chunk = await self._reader.read(65536)
            if not chunk:
                raise EOFError
            self.received += chunk
            self._replies.feed(chunk)
        return reply

    async def replies(self, count):
        return [await self.reply() for _ in range(count)]

    async def close(self):
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def connected(port):
    raw = Raw(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield raw
    finally:
        await raw.close()


async def silent(raw, seconds=0.05):
    """Whether no reply comes for a while: the one thing only time can show."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(raw.reply(), seconds)
    return True


@pytest.fixture
async def proxy(server):
    async with FaultProxy(server.host, server.port) as proxy:
        yield proxy


@pytest.fixture
async def raw(proxy):
    async with connected(proxy.port) as raw:
        yield raw


@pytest.fixture
def counter(prefix):
    """A key that counts how often something was executed."""
    return f"{prefix}:meta"


async def test_without_faults_nothing_changes(proxy, raw, counter):
    payload = random.Random(1).randbytes(300_000) + b"\r\n$-1\r\n"
    raw.send((b"SET", counter, payload), (b"GET", counter), (b"NOPE",), (b"TIME",), (b"GET", "x"))
    replies = await raw.replies(5)
    assert replies[:2] == [b"OK", payload]
    assert isinstance(replies[2], hiredis.ReplyError)
    assert replies[4] is None
    assert (proxy.commands, proxy.names) == (5, ["SET", "GET", "NOPE", "TIME", "GET"])
    assert (proxy.connections, proxy.open_connections) == (1, 1)
    assert not proxy.faults


async def test_a_client_library_works_through_it(proxy, counter):
    async with redis.asyncio.Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0)) as client:
        await asyncio.gather(*(client.incr(counter) for _ in range(50)))
        assert await client.get(counter) == b"50"
        async with client.pubsub() as pubsub:
            await pubsub.subscribe("news")
            await client.publish("news", "x")
            messages = [await pubsub.get_message(timeout=5) for _ in range(2)]
            assert [message["type"] for message in messages] == ["subscribe", "message"]


async def test_what_answers_no_request_is_never_taken_for_a_reply(proxy, raw):
    proxy.lose_next_reply(b"PING")
    raw.send((b"SUBSCRIBE", b"a", b"b"), (b"PING",))
    assert [reply[0] for reply in await raw.replies(3)] == [b"subscribe", b"subscribe", b"pong"]
    assert not proxy.faults


async def test_exactly_one_reply_is_lost_among_many_in_flight(proxy, raw, redis, counter):
    rule = proxy.lose_next_reply(b"INCRBY")
    raw.send(*[(b"INCR", counter)] * 50, (b"INCRBY", counter, b"1000"), *[(b"INCR", counter)] * 50)
    assert await raw.replies(50) == list(range(1, 51))
    with pytest.raises(EOFError):
        await raw.reply()
    assert int(await redis.get(counter)) >= 1050
    assert (rule.hits, proxy.faults) == (1, {"lose_reply": 1})
    async with connected(proxy.port) as again:
        again.send((b"INCRBY", counter, b"0"))
        assert await again.reply() >= 1050
    assert rule.hits == 1


async def test_a_reply_already_awaited_can_be_lost(proxy, raw, redis, prefix):
    raw.send((b"XREAD", b"BLOCK", b"0", b"STREAMS", f"{prefix}:events", b"$"))
    await wait_until(lambda: proxy.names == ["XREAD"])
    proxy.lose_next_reply(lambda request: b":events" in request)

    async def lost():
        await redis.xadd(f"{prefix}:events", {"a": "b"})
        return proxy.faults["lose_reply"]

    await wait_until(lost)
    with pytest.raises(EOFError):
        await raw.reply()


async def test_a_lost_request_is_never_executed(proxy, raw, redis, counter):
    proxy.lose_next_request(b"INCRBY")
    raw.send((b"INCR", counter), (b"INCRBY", counter, b"1000"), (b"INCR", counter))
    with pytest.raises(EOFError):
        await raw.replies(3)
    await wait_until(lambda: proxy.open_connections == 0)
    assert await redis.get(counter) in {None, b"1"}
    assert proxy.faults == {"lose_request": 1}
    assert proxy.names == ["INCR", "INCRBY"]


async def test_a_request_that_arrives_in_part_is_never_executed(proxy, raw, redis, counter):
    rule = proxy.cut_next_request(1_000, b"INCRBY")  # all but one byte of it
    raw.send((b"INCRBY", counter, b"1000"), (b"INCR", counter))
    with pytest.raises(EOFError):
        await raw.replies(2)
    await wait_until(lambda: proxy.open_connections == 0)
    assert await redis.get(counter) is None
    assert (rule.hits, proxy.faults) == (1, {"cut_request": 1})


async def test_a_cut_reply_arrives_in_part_before_the_end(proxy, raw, counter):
    proxy.cut_next_reply(7, b"GET")
    raw.send((b"SET", counter, b"0123456789"), (b"GET", counter), (b"PING",))
    assert await raw.reply() == b"OK"
    with pytest.raises(EOFError):
        await raw.reply()
    assert raw.received == b"+OK\r\n$10\r\n01"
    assert proxy.faults == {"cut_reply": 1}


async def test_a_cut_never_lets_the_whole_reply_through(proxy, raw):
    proxy.cut_next_reply(1000)
    raw.send((b"PING",))
    with pytest.raises(EOFError):
        await raw.reply()
    assert raw.received == b"+PONG\r"


async def test_a_hanging_cut_keeps_the_connection_open_and_silent(proxy, raw):
    proxy.cut_next_reply(3, times=2, hang=True)
    raw.send((b"PING",), (b"PING",))
    assert await silent(raw)
    assert raw.received == b"+PO"
    assert proxy.open_connections == 1
    await raw.close()
    await wait_until(lambda: proxy.open_connections == 0)
    assert proxy.faults == {"cut_reply": 1}


async def test_garbage_takes_the_place_of_one_reply(proxy, raw):
    proxy.garble_next_reply(match=b"ECHO")
    raw.send((b"PING",), (b"ECHO", b"x"), (b"PING",))
    assert await raw.reply() == b"PONG"
    with pytest.raises(hiredis.ProtocolError):
        await raw.reply()
    await wait_until(lambda: proxy.faults == {"garble_reply": 1})
    assert raw.received.startswith(b"+PONG\r\n" + GARBAGE)


async def test_delay_is_latency_and_keeps_the_order(proxy, raw, counter):
    rule = proxy.delay_replies(0.1, b"INCR")
    started = time.monotonic()
    raw.send((b"PING",), *[(b"INCR", counter)] * 50, (b"ECHO", b"last"))
    assert await raw.reply() == b"PONG"
    assert await raw.replies(51) == [*range(1, 51), b"last"]
    assert 0.1 <= time.monotonic() - started < 2  # Fifty in a row would take 5 s.
    assert rule.hits == 50
    proxy.disarm(rule)
    raw.send((b"INCR", counter))
    assert await raw.reply() == 51
    assert proxy.faults == {"delay_reply": 50}


async def test_the_newest_matching_rule_bites(proxy, raw):
    proxy.delay_replies(0.01)
    proxy.cut_next_reply(1, b"ECHO")
    raw.send((b"PING",), (b"ECHO", b"x"))
    assert await raw.reply() == b"PONG"
    with pytest.raises(EOFError):
        await raw.reply()
    assert proxy.faults == {"delay_reply": 1, "cut_reply": 1}


async def test_dropping_closes_all_connections_and_new_ones_work(proxy, raw):
    async with connected(proxy.port) as other:
        for connection in (raw, other):
            connection.send((b"PING",))
            assert await connection.reply() == b"PONG"
        assert proxy.drop_connections() == 2
        for connection in (raw, other):
            with pytest.raises((EOFError, ConnectionResetError)):
                await connection.reply()
    assert proxy.faults == {"drop": 2}
    await wait_until(lambda: proxy.open_connections == 0)
    async with connected(proxy.port) as again:
        again.send((b"PING",))
        assert await again.reply() == b"PONG"
    assert proxy.connections == 3


async def test_refusing_lets_open_connections_go_on(proxy, raw):
    raw.send((b"PING",))
    assert await raw.reply() == b"PONG"
    proxy.refuse_connections()
    with pytest.raises(ConnectionRefusedError):
        async with connected(proxy.port):
            pass
    raw.send((b"PING",))
    assert await raw.reply() == b"PONG"
    proxy.accept_connections()
    async with connected(proxy.port) as again:
        again.send((b"PING",))
        assert await again.reply() == b"PONG"


async def test_replies_in_a_black_hole_are_executed_and_come_late(proxy, raw, redis, counter):
    proxy.black_hole("to_client")
    raw.send((b"INCR", counter), (b"INCR", counter))
    await wait_until(lambda: proxy.faults["black_hole_to_client"])
    assert await silent(raw)
    assert await redis.get(counter) == b"2"
    proxy.heal()
    assert await raw.replies(2) == [1, 2]


async def test_requests_in_a_black_hole_are_executed_after_healing(proxy, raw, redis, counter):
    raw.send((b"PING",))
    assert await raw.reply() == b"PONG"
    proxy.black_hole("to_server")
    raw.send((b"INCR", counter), (b"INCR", counter))
    await wait_until(lambda: proxy.faults["black_hole_to_server"] == 2)
    assert await redis.exists(counter) == 0
    proxy.heal()
    assert await raw.replies(2) == [1, 2]


async def test_what_a_black_hole_holds_can_be_lost(proxy, raw, redis, counter):
    proxy.black_hole("to_server")
    raw.send((b"INCR", counter))
    await wait_until(lambda: proxy.faults["black_hole_to_server"] == 1)
    proxy.drop_connections()
    proxy.heal()
    with pytest.raises((EOFError, ConnectionResetError)):
        await raw.reply()
    await wait_until(lambda: proxy.open_connections == 0)
    assert await redis.exists(counter) == 0


async def test_forgetting_sets_counters_back_and_keeps_rules(proxy, raw):
    rule = proxy.delay_replies(0)
    raw.send((b"PING",))
    await raw.reply()
    proxy.forget()
    assert (proxy.commands, proxy.names, proxy.connections) == (0, [], 0)
    raw.send((b"PING",))
    await raw.reply()
    assert (rule.hits, proxy.faults) == (2, {"delay_reply": 1})


async def test_leaving_it_closes_everything_that_is_open(server):
    async with FaultProxy(server.host, server.port) as proxy:
        proxy.black_hole("to_client")
        async with connected(proxy.port) as raw:
            raw.send((b"PING",))
            await wait_until(lambda: proxy.faults["black_hole_to_client"])
            await proxy.__aexit__(None, None, None)
            assert proxy.open_connections == 0
            with pytest.raises((EOFError, ConnectionResetError)):
                await raw.reply()


async def test_an_absent_server_closes_the_connection(proxy):
    async with FaultProxy("127.0.0.1", 1) as orphan, connected(orphan.port) as raw:
        with pytest.raises(EOFError):
            await raw.reply()


FRAMES = [
    b"+OK\r\n",
    b":1\r\n",
    b"$5\r\na\r\nbc\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*2\r\n*2\r\n:1\r\n$2\r\n\r\n\r\n*0\r\n",
    b"%1\r\n+a\r\n*1\r\n:1\r\n",
    b"~2\r\n:1\r\n:2\r\n",
    b"|1\r\n+ttl\r\n:3\r\n*1\r\n$1\r\nx\r\n",
    b">2\r\n+message\r\n+x\r\n",
    b"=7\r\ntxt:a\r\n\r\n",
    b"!3\r\nERR\r\n",
    b"_\r\n",
    b"PING inline\r\n",
]


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_framing_is_independent_of_the_chunks(size):
    stream = b"".join(FRAMES)
    framer = Framer()
    chunks = (stream[start : start + size] for start in range(0, len(stream), size))
    assert [frame for chunk in chunks for frame in framer.feed(chunk)] == FRAMES


@pytest.mark.parametrize(
    ("request_bytes", "name"),
    [
        (b"*2\r\n$7\r\nevalsha\r\n$1\r\nx\r\n", "EVALSHA"),
        (b"ping\r\n", "PING"),
        (b"*0\r\n", ""),
        (b"\r\n", ""),
    ],
)
def test_command_names(request_bytes, name):
    assert command_name(request_bytes) == name
