"""A server in cluster mode: a prefix in braces keeps all keys of a deployment in one slot."""

import random
import socket

import pytest
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.helpers.twins import WRITES, arrange
from tests.helpers.waiting import wait_until

from askel import RedisWorkflowService
from askeld.embedded import EmbeddedServer


def free_port():
    """Return a port that is free, as is the one of the cluster's bus, 10,000 above it.

    Both are below those that the system gives to connections, which come and go.
    """
    for port in random.sample(range(12_000, 22_000), 50):
        if is_free(port) and is_free(port + 10_000):
            return port
    raise AssertionError("no port is free")


def is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.fixture
async def clustered(server, tmp_path):
    """A cluster of one node that has all slots."""
    options = {"cluster-enabled": "yes", "appendonly": "no"}
    with EmbeddedServer(tmp_path, binary=server.binary, port=free_port(), options=options) as node:
        client = redis.asyncio.Redis.from_url(node.url, protocol=2, retry=Retry(NoBackoff(), 0))
        await client.execute_command("CLUSTER", "ADDSLOTS", *range(16_384))

        async def is_ready():
            return b"cluster_state:ok" in await client.execute_command("CLUSTER", "INFO")

        await wait_until(is_ready)
        yield node.url, client
        await client.aclose()


async def test_every_write_and_read_works_in_one_slot(clustered):
    """G1."""
    url, client = clustered
    for need, call in WRITES.values():
        async with RedisWorkflowService(
            url, key_prefix="{workflows}", allow_unsafe=True
        ) as service:
            await arrange(service, need)
            await call(service)
            for run in (await service.list_runs()).runs:
                assert await service.get_run_status(run.id)
                await service.get_run_history(run.id)
                await service.get_completed_graph_state(run.id)
                await service.delete_run(run.id, force=True)
            await service.apply_retention()
            assert (await service.list_runs()).runs == []
        await client.flushall()
