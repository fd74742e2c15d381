"""A network that lies: workers behind a proxy that bites; what was sent is applied once.

Each test names the row of the fault table that it holds.
"""

import json

import pytest
from tests.apps.parts import JOURNEY, app
from tests.helpers.history_checker import check_all
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.usefixtures("redis_server")

#: As long leases as the longest silence here, so that nobody is robbed.
CALM = {"queues": ("", "warehouse"), "lease_ms": 20_000, "claim_idle_ms": 30_000, "block_ms": 200}


async def start(deployment, *names):
    for name in names:
        await deployment.send("run.start", workflow="journey", input=name, run_id=name)


async def have_completed(deployment, *names):
    """Each run has its result, and took no more attempts than it needs."""
    for name in names:
        record = await deployment.until(name, "completed", timeout=30)
        assert json.loads(record.run["output"]) == [*JOURNEY, name]
        assert (record.count("running"), record.count("lost")) == (10, 0)
    await deployment.quiet()
    await check_all(deployment.client, deployment.prefix)


GARBAGE = {
    "HTTP banner": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "binary": b"\x00\xff\xfe\r\n",
    "huge array": b"*4294967295\r\n",
    "negative": b"*-7\r\n",
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_in_the_place_of_replies(deployment, proxy, kind):
    """Rows `HTTP banner / binary garbage`, `huge headers`: the connection is left."""
    async with deployment.worker(app, **CALM, url=proxy.url) as worker:
        await start(deployment, "r0")
        await have_completed(deployment, "r0")
        rule = proxy.garble_next_reply(GARBAGE[kind], b"EVALSHA", times=4)
        await start(deployment, "r1", "r2")
        await have_completed(deployment, "r1", "r2")
        assert rule.hits == 4
        assert not worker.ended.is_set()


@pytest.mark.parametrize("after", [0, 1, 7])
async def test_replies_that_are_cut(deployment, proxy, after):
    """Row `truncated reply then FIN`: unknown, and asked for again."""
    async with deployment.worker(app, **CALM, url=proxy.url) as worker:
        rule = proxy.cut_next_reply(after, b"EVALSHA", times=8)
        await start(deployment, "r0", "r1", "r2")
        await have_completed(deployment, "r0", "r1", "r2")
        assert rule.hits == 8
        assert not worker.ended.is_set()


async def test_a_reply_that_is_cut_and_followed_by_silence(deployment, proxy):
    """Row `truncated, then silence`: the timeout ends it."""
    async with deployment.worker(app, **CALM, url=proxy.url) as worker:
        await start(deployment, "r0")
        await have_completed(deployment, "r0")
        rule = proxy.cut_next_reply(3, b"EVALSHA", hang=True)
        await start(deployment, "r1")
        await have_completed(deployment, "r1")
        assert rule.hits == 1
        assert not worker.ended.is_set()


async def test_a_half_open_connection(deployment, proxy):
    """Row `half-open`: the server delivers to a reader that is no more: it is pending."""
    async with deployment.worker(app, **CALM, url=proxy.url) as worker:
        await start(deployment, "r0")
        await have_completed(deployment, "r0")
        proxy.black_hole("to_client")
        await start(deployment, "r1")

        async def delivered():
            pending = await deployment.client.xpending(deployment.stream(), "askeld")
            return pending["pending"] == 1

        await wait_until(delivered)
        proxy.drop_connections()
        proxy.heal()
        await have_completed(deployment, "r1")
        assert not worker.ended.is_set()


async def test_one_way_loss(deployment, proxy):
    """Row `one-way loss server->client`: executed, and never heard of."""
    async with deployment.worker(app, **CALM, url=proxy.url) as worker:
        await start(deployment, "r0")
        await have_completed(deployment, "r0")
        proxy.black_hole("to_client")
        await start(deployment, "r1")
        await wait_until(lambda: worker.logged("store_away"), 20)
        assert "store_away" in worker.worker.health.obstacles()
        proxy.drop_connections()
        proxy.heal()
        await have_completed(deployment, "r1")
        await wait_until(lambda: worker.logged("store_back"))
        assert len(worker.logged("store_away")) == 1


async def test_a_slow_network(deployment, proxy):
    """Row `slow`: every reply is late; nothing is taken for lost."""
    async with deployment.worker(app, **CALM, url=proxy.url) as worker:
        await start(deployment, "r0")
        await have_completed(deployment, "r0")
        proxy.delay_replies(0.15)
        await start(deployment, "r1", "r2")
        await have_completed(deployment, "r1", "r2")
        proxy.heal()
        assert not worker.logged("store_away")
        assert not worker.logged("read_interrupted")


async def test_a_server_that_is_away_is_not_hammered(deployment, proxy):
    """Row `connection refused`: attempts are made apart from one another, however many wait."""
    async with deployment.worker(app, **CALM, url=proxy.url) as worker:
        await start(deployment, "r0")
        await have_completed(deployment, "r0")
        attempts = 0
        for connection in worker.worker._connections:
            original = connection._settings.open

            async def counted(protocol, original=original):
                nonlocal attempts
                attempts += 1
                return await original(protocol)

            connection._settings.open = counted
        proxy.refuse_connections()
        proxy.drop_connections()
        await wait_until(lambda: worker.logged("store_away"))
        seen = attempts
        since = len(worker.logs)
        await wait_until(lambda: attempts >= seen + 6, 20)
        begun, first = attempts, worker.worker._connections[0]._backoff_s
        assert begun - seen <= 12
        assert first <= 1.0
        warnings = [one for one in worker.logs[since:] if one["level"] != "debug"]
        assert warnings == []  # it was said once
        proxy.accept_connections()
        await start(deployment, "r1")
        await have_completed(deployment, "r1")
