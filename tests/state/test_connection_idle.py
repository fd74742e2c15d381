"""A blocking read idles for as long as it was asked to."""

import asyncio
import logging

import pytest
from tests.helpers.servers import available_servers

from askel.state import connect

SECONDS = 7


@pytest.fixture
def urls(server_pool):
    """Every server of this machine: they are waited for at the same time."""
    return [server_pool.get(server_id).url for server_id in available_servers()]


async def idle(url, stream):
    """Block on an empty stream; return the reply, how long it took, and how often was connected."""
    connection = connect(url, timeout_s=SECONDS + 10)
    await connection.send("XGROUP", "CREATE", stream, "askeld", "0", "MKSTREAM")
    begun = asyncio.get_running_loop().time()
    reply = await connection.send(
        "XREADGROUP", "GROUP", "askeld", "me", "BLOCK", SECONDS * 1_000, "STREAMS", stream, ">"
    )
    lasted = asyncio.get_running_loop().time() - begun
    alive = await connection.send("DEL", stream)
    await connection.close()
    return reply, lasted, alive, connection.connects


async def test_idle_read_of_seven_seconds_is_not_timed_out_not_repeated_not_logged(urls, caplog):
    with caplog.at_level(logging.DEBUG):
        outcomes = await asyncio.gather(*(idle(url, "t:idle:commands") for url in urls))

    assert outcomes
    for reply, lasted, alive, connects in outcomes:
        assert (reply, alive, connects) == (None, 1, 1)
        assert SECONDS - 0.1 < lasted < SECONDS + 3
    assert [record for record in caplog.records if record.name != "asyncio"] == []
