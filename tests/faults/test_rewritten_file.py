"""Redis rewrites its append-only file, is killed, and comes back: nothing was lost, nobody cries.

What a group has read since the file was rewritten is told in it by claims alone: Redis loads the
entries that were added, and not that they were read.
"""

import pytest
import redis.asyncio
from tests.apps.parts import app
from tests.helpers.daemon import Deployment
from tests.helpers.servers import require_binary, server_ids
from tests.helpers.waiting import wait_until

from askeld import store_check
from askeld.embedded import EmbeddedServer

QUICK = {"lease_ms": 150, "claim_idle_ms": 250, "block_ms": 200}


@pytest.fixture(params=server_ids())
def server(request, tmp_path):
    with EmbeddedServer(tmp_path / "data", binary=require_binary(request.param), port=0) as server:
        yield server


@pytest.fixture
async def deployment(server):
    async with redis.asyncio.Redis.from_url(server.url, protocol=2) as client:
        yield Deployment(client, server.url, "p")


async def completes(deployment, run_id):
    await deployment.send("run.start", workflow="one_step", run_id=run_id)
    await deployment.until(run_id, "completed")


async def rewrite(client):
    await client.bgrewriteaof()

    async def is_done():
        facts = await client.info("persistence")
        return not (facts["aof_rewrite_in_progress"] or facts["aof_rewrite_scheduled"])

    await wait_until(is_done)


async def look_closely(worker):
    await worker.worker._store.look_closely()
    return worker.logged("commands_trimmed")


async def test_a_restart_after_a_rewrite_is_no_loss(server, deployment):
    async with deployment.worker(app, **QUICK) as lives_on:
        await completes(deployment, "before")
        await rewrite(deployment.client)
        await completes(deployment, "between")
        assert await look_closely(lives_on) == []
        server.kill()
        server.start()
        await deployment.client.connection_pool.disconnect()
        await completes(deployment, "after")

        assert await look_closely(lives_on) == []
        async with deployment.worker(app, **QUICK) as comes_later:
            await completes(deployment, "later")
            assert await look_closely(comes_later) == []


async def test_a_restart_while_a_worker_looks_is_no_loss(server, deployment, monkeypatch):
    """The server that it asks first counted right; the one that answers next does not."""
    async with deployment.worker(app, **QUICK) as worker:
        await completes(deployment, "before")
        await rewrite(deployment.client)
        await completes(deployment, "between")
        count = store_check.lost_unread

        async def restarted(connection, stream):
            monkeypatch.setattr(store_check, "lost_unread", count)
            server.kill()
            server.start()
            await deployment.client.connection_pool.disconnect()
            await completes(deployment, "after")
            return await count(connection, stream)

        monkeypatch.setattr(store_check, "lost_unread", restarted)
        assert await look_closely(worker) == []
        assert store_check.lost_unread is count
        assert await look_closely(worker) == []


async def test_what_is_trimmed_afterwards_while_a_worker_lives_is_noticed(server, deployment):
    if (await deployment.client.info("server"))["redis_version"].startswith("6."):
        pytest.skip("it does not count what was added to a stream: nobody can know")
    async with deployment.worker(app, **QUICK) as worker:
        await completes(deployment, "before")
        await rewrite(deployment.client)
        await completes(deployment, "between")
        server.kill()
        server.start()
        await deployment.client.connection_pool.disconnect()
        await completes(deployment, "after")
        assert await look_closely(worker) == []
        worker.worker._work.pause(True)
        for number in range(10):
            command = {"type": "run.start", "workflow": "one_step", "run_id": f"r{number}"}
            stream = deployment.stream()
            await deployment.client.xadd(stream, command, maxlen=3, approximate=False)
        (said,) = await look_closely(worker)
        worker.worker._work.pause(False)
        await deployment.until_completed(1)
    assert said["lost"] >= 1  # a read that was under way still took some
