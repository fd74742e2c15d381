"""The recommended configuration: every server that is supported reads it and does what it says."""

from pathlib import Path

import pytest
from tests.helpers.servers import require_binary, server_ids

from askel import RedisWorkflowService
from askel.state import connect
from askeld.embedded import EmbeddedServer

CONF = Path(__file__).resolve().parents[2] / "deploy" / "redis" / "redis.conf"
EXPECTED = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
    "hash-max-ziplist-value": "1024",
    "list-max-ziplist-size": "10",
    "list-compress-depth": "1",
}


@pytest.fixture(params=server_ids())
def url(request):
    binary = require_binary(request.param)
    with EmbeddedServer(binary=binary, port=0, options={"include": str(CONF)}) as server:
        yield server.url


async def test_server_takes_every_setting(url):
    control = connect(url)
    found = {name: (await control.send("CONFIG", "GET", name))[1].decode() for name in EXPECTED}
    await control.close()
    assert found == EXPECTED


async def test_payloads_of_steps_stay_packed(url):
    control = connect(url)
    async with RedisWorkflowService(url) as service:
        run_id = await service.create_run("w", "x" * 900)
        step = await service.insert_step_state(run_id, "s", "f", "x" * 900)
        await service.set_step_result(step.step_id, "y" * 900)
        history = await service.get_run_history(run_id)
    key = service.keys.step(run_id, "s")
    encoding = await control.send("OBJECT", "ENCODING", key)
    await control.close()
    assert encoding in {b"listpack", b"ziplist"}
    assert history[0].result == "y" * 900
