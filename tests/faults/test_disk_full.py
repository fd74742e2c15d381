"""A disk that is full: the server refuses, or ends; workers wait, and go on when there is room.

Each test names the row of the fault table that it holds. It needs the right to mount a tmpfs.
"""

import asyncio
import os
import shutil
import subprocess
import time

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.apps.parts import app
from tests.helpers.daemon import Deployment
from tests.helpers.history_checker import check_all
from tests.helpers.servers import require_binary, server_ids
from tests.helpers.waiting import wait_until

from askeld.embedded import EmbeddedServer

LONG = 30
QUICK = {"lease_ms": 20_000, "claim_idle_ms": 30_000, "block_ms": 200}


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of eight megabytes; a skip where nobody may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("no mount on this machine: a full disk cannot be made")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"a full disk cannot be made here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["/bin/umount", "-l", str(folder)], check=True)


def fill(folder):
    """Write to the disk until nothing more fits on it."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (100_000, 4_096):
            try:
                while True:
                    file.write(os.urandom(size))
            except OSError:
                continue


@pytest.mark.parametrize("server_id", server_ids())
@pytest.mark.parametrize(
    ("policy", "event"), [("everysec", "store_unsafe"), ("always", "store_away")]
)
async def test_a_full_disk(small_disk, tmp_path, server_id, policy, event):
    """Rows `AOF disk full, everysec` (MISCONF) and `AOF disk full, always` (the server ends)."""
    options = {"appendonly": "yes", "appendfsync": policy}
    binary = require_binary(server_id)
    with EmbeddedServer(small_disk, binary=binary, port=0, options=options) as server:
        client = redis.asyncio.Redis.from_url(server.url, protocol=2, retry=Retry(NoBackoff(), 0))
        deployment = Deployment(client, server.url, "own")
        gate = tmp_path / "gate"
        async with deployment.worker(app, **QUICK) as worker:
            await deployment.send("run.start", workflow="waits", input=str(gate), run_id="waits")
            await deployment.until_step("waits", "gate", "running")
            fill(small_disk)
            await wait_until(lambda: written(client, worker, event), LONG)
            gate.touch()
            await wait_until(lambda: worker.reached["after_handler"] >= 1)
            (small_disk / "filler").unlink()
            if policy == "always":
                await wait_until(lambda: not server.running, LONG)
                await asyncio.to_thread(server.start)
            await client.connection_pool.disconnect()
            begun = time.monotonic()
            record = await deployment.until("waits", "completed", timeout=LONG)
            print(f"{time.monotonic() - begun:.2f} s after there was room")  # noqa: T201
            assert record.path("gate") == ["running 1", "succeeded 1"]
            assert not worker.ended.is_set()
            await deployment.quiet(timeout=LONG)
            await check_all(client, "own")
        await client.aclose()


async def written(client, worker, event):
    """Write something, which a full disk does not take; tell whether the worker has noticed."""
    try:
        await client.set("filler", os.urandom(50_000))
    except redis.RedisError:
        await client.connection_pool.disconnect()
    return worker.logged(event)
