"""What tests of runs share: the service, a proxy in front of the server, looking at keys."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
import redis.asyncio

from askel import RedisWorkflowService
from askel.state import Keys, Scripts, connect
from askeld.torture.fault_proxy import FaultProxy


@pytest.fixture
def keys(prefix: str) -> Keys:
    """The keys under the test's prefix."""
    return Keys(prefix)


@pytest.fixture
async def service(redis_url: str, prefix: str) -> AsyncIterator[RedisWorkflowService]:
    """A state service of the test's own server and prefix, closed at the end."""
    service = RedisWorkflowService(redis_url, key_prefix=prefix)
    yield service
    await service.close()


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[FaultProxy]:
    """A proxy in front of the test's own server."""
    host, _, port = redis_url.removeprefix("redis://").rpartition(":")
    async with FaultProxy(host, int(port)) as proxy:
        yield proxy


@pytest.fixture
async def distant(proxy: FaultProxy, prefix: str) -> AsyncIterator[RedisWorkflowService]:
    """The same as `service`, through the proxy."""
    service = RedisWorkflowService(proxy.url, key_prefix=prefix)
    yield service
    await service.close()


@pytest.fixture
def in_a_hurry() -> Iterator[None]:
    """Let what is sent again be sent a millisecond later, so that many faults fit into a test."""
    with pytest.MonkeyPatch.context() as patch:
        for kind, pause in (
            (Scripts, "_FIRST_PAUSE_S"),
            (type(connect("redis://localhost")), "_FIRST_BACKOFF_S"),
        ):
            patch.setattr(sys.modules[kind.__module__], pause, 0.001)
        yield


async def snapshot(client: redis.asyncio.Redis, prefix: str) -> dict[str, bytes]:
    """Return every key under *prefix*, serialized: equal means that nothing was written."""
    found = sorted([key async for key in client.scan_iter(match=f"{prefix}:*", count=1000)])
    return {key.decode(): await client.execute_command("DUMP", key) for key in found}


async def recorded(client: redis.asyncio.Redis, keys: Keys, run_id: str) -> list[dict[str, Any]]:
    """Return the history entries of a run as plain JSON objects."""
    return [msgspec.json.decode(item) for item in await client.lrange(keys.history(run_id), 0, -1)]


async def keys_of_run(client: redis.asyncio.Redis, prefix: str, run_id: str) -> list[str]:
    """Return every key with this run id in it, and every index with an entry of it."""
    whole = re.compile(rf":{re.escape(run_id)}(:|$)", re.DOTALL)
    found = []
    for key in [key async for key in client.scan_iter(match=f"{prefix}:*", count=1000)]:
        text = key.decode(errors="backslashreplace").removeprefix(prefix)
        is_index = text.startswith(":runs") and not text.endswith(":deleted")
        if whole.search(text) or (
            is_index
            and await client.type(key) == b"zset"
            and await client.zscore(key, run_id) is not None
        ):
            found.append(text)
    return found
