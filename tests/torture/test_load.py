"""The load: a program that can be trusted to ask again for what may be lost."""

import fakeredis
import pytest

from askeld.torture.client_log import ClientLog
from askeld.torture.config import TortureConfig
from askeld.torture.load import Load


@pytest.fixture
async def redis():
    async with fakeredis.FakeAsyncRedis() as client:
        yield client


async def test_a_completion_that_may_be_lost_is_asked_for_again(redis, tmp_path):
    """By the same id, so that it is applied once; of runs that go on, and are driven by us."""
    config = TortureConfig(directory=tmp_path, steps=1)
    log = ClientLog(tmp_path / "client.jsonl")
    load = Load(config, redis, redis, log)
    for number in (19, 39, 59):
        await load._drive(number)
    await load._complete(50)  # 59 has not been completed by anybody so far
    stream = f"{config.prefix}:commands"
    once = [fields for _, fields in await redis.xrange(stream)]
    await redis.delete(stream)  # that was lost
    running = ("r39", "r59", "r1", "r1:child")
    await redis.zadd(f"{config.prefix}:runs:status:running", dict.fromkeys(running, 0))

    await load.complete_again()

    again = [fields for _, fields in await redis.xrange(stream)]
    assert again == [fields for fields in once if fields[b"id"] == b"complete-39"]
    log.close()
