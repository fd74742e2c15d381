"""Workers that Redis does not let in, or not do what they must; and those that come too early.

Each test names the row of the fault table that it holds.
"""

import pytest
from tests.apps.parts import app
from tests.helpers.waiting import wait_until
from tests.helpers.workers import WorkerProcess

from askel import StoreAccessError

QUICK = {"lease_ms": 150, "claim_idle_ms": 250, "block_ms": 200}
LONG = 20


def process(deployment, directory, *args, url=None):
    return WorkerProcess(
        "tests.apps.parts:app",
        redis_url=url or deployment.url,
        prefix=deployment.prefix,
        directory=directory,
        args=args,
    )


def last_line(worker):
    return worker.stderr_path.read_text().splitlines()[-1]


async def acl(deployment, *words):
    await deployment.client.execute_command("ACL", "SETUSER", "worker", *words)


@pytest.fixture
async def restricted(alone):
    """The address for a user who may do everything, until a test takes something away."""
    await acl(alone, "reset", "on", ">s3cr3t", "~own:*", "+@all")
    return alone.url.replace("redis://", "redis://worker:s3cr3t@")


async def calls(deployment, command):
    stats = await deployment.client.info("commandstats")
    return stats.get(f"cmdstat_{command}", {"calls": 0})["calls"]


async def test_a_wrong_password_ends_the_worker_at_once(alone, restricted, tmp_path):
    """Row `auth wrong`: fatal, one line, tried once and not again and again."""
    before = await calls(alone, "auth")
    wrong = restricted.replace("s3cr3t", "wr0ng")
    async with process(alone, tmp_path, url=wrong) as worker:
        assert await worker.wait() == 1
        assert last_line(worker).startswith("askel worker: WRONGPASS Redis at 127.0.0.1:")
        assert "wr0ng" not in worker.output()
    assert await calls(alone, "auth") - before <= 2


DENIED = ["rpush", "zadd", "xack", "hset", "xadd", "xclaim", "time"]


@pytest.mark.parametrize("command", DENIED)
async def test_a_permission_that_is_missing_is_found_before_anything_is_written(
    alone, restricted, command
):
    """Row `ACL`: inside a script it would leave what the script wrote before."""
    await acl(alone, f"-{command}")
    await alone.send("run.start", workflow="one_step", run_id="r")
    with pytest.raises(StoreAccessError, match=f"may not run .*{command}.*askel acl"):
        await ended(alone, restricted)
    assert sorted([key async for key in alone.client.scan_iter("own:*")]) == [
        b"own:commands",
        b"own:meta",
    ]
    assert await alone.client.xinfo_groups(alone.stream()) == []


async def test_keys_that_are_not_the_users_are_named(alone, restricted):
    """Row `ACL`: the same for keys."""
    await acl(alone, "resetkeys", "~own:[a-km-z]*")
    with pytest.raises(StoreAccessError, match=r"NOPERM .*\(key own:lock:"):
        await ended(alone, restricted)


async def ended(deployment, url, act=None, **settings):
    """Raise what a worker ends with."""
    try:
        async with deployment.worker(app, **QUICK, url=url, **settings) as worker:
            if act is not None:
                await act(worker)
            await worker.ended.wait()
    except ExceptionGroup as group:
        error = group
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        raise error from None


@pytest.mark.parametrize("command", ["evalsha", "rpush"])
async def test_a_permission_that_is_taken_away_later_ends_the_worker_and_buries_nothing(
    alone, restricted, command
):
    """Row `ACL`, later: the commands are as good as any; who cannot apply them ends.

    What a script wrote before it was refused stays: that is why it is tried at the start.
    """

    async def take_away(_):
        await alone.send("run.start", workflow="one_step", run_id="before")
        await alone.until("before", "completed")
        await acl(alone, f"-{command}")
        await alone.send("run.start", workflow="one_step", run_id="later")

    with pytest.raises(StoreAccessError, match="NOPERM"):
        await ended(alone, restricted, take_away)
    assert await alone.client.xlen("own:dead") == 0
    if command == "evalsha":
        await acl(alone, "+@all")
        async with alone.worker(app, **QUICK):
            await alone.until("later", "completed")


TOO_EARLY = {
    "OOM": ({"maxmemory": "1"}, {"maxmemory": "0"}),
    "NOREPLICAS": ({"min-replicas-to-write": "1"}, {"min-replicas-to-write": "0"}),
}


@pytest.mark.parametrize("row", [*TOO_EARLY, "READONLY"])
async def test_a_worker_that_starts_before_the_server_takes_writes_waits(alone, tmp_path, row):
    """Rows `OOM`, `NOREPLICAS`, `READONLY`: no restart loop, and readiness says no."""
    trouble, mended = TOO_EARLY.get(row, ({}, {}))
    if row == "READONLY":
        await alone.client.execute_command("REPLICAOF", "127.0.0.1", "1")
    for name, value in trouble.items():
        await alone.client.config_set(name, value)
    async with process(alone, tmp_path) as worker:
        await wait_until(lambda: "waiting_for_store" in worker.output(), LONG)
        assert row in worker.output()
        assert worker.returncode is None
        if row == "READONLY":
            await alone.client.execute_command("REPLICAOF", "NO", "ONE")
        for name, value in mended.items():
            await alone.client.config_set(name, value)
        await worker.wait_ready()
        assert worker.output().count("waiting_for_store") == 1
        worker.terminate()
        assert await worker.wait() == 0


async def test_a_worker_that_waits_for_the_server_ends_when_it_is_told_to(alone, tmp_path):
    """It is asked to end while it waits: that is no failure."""
    await alone.client.config_set("maxmemory", "1")
    async with process(alone, tmp_path) as worker:
        await wait_until(lambda: "waiting_for_store" in worker.output(), LONG)
        worker.terminate()
        assert await worker.wait() == 0


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_evicts_is_refused_at_the_start(alone, tmp_path, policy):
    """Row `eviction`: silent loss; so not begun with, unless somebody insists."""
    await alone.client.config_set("maxmemory-policy", policy)
    async with process(alone, tmp_path) as worker:
        assert await worker.wait() == 4
        assert f"maxmemory-policy {policy}" in last_line(worker)
    async with process(alone, tmp_path, "--allow-unsafe-redis") as worker:
        await worker.wait_ready()
        worker.terminate()
        assert await worker.wait() == 0


async def test_text_over_a_stream_is_fatal_at_the_start(alone, tmp_path):
    """Row `SET over the stream`: one line that names the key."""
    await alone.client.set(alone.stream(), "junk")
    async with process(alone, tmp_path) as worker:
        assert await worker.wait() == 1
        assert f"WRONGTYPE {alone.stream()} is no stream" in last_line(worker)


async def test_the_flag_for_a_wiped_store(alone, tmp_path):
    """Row `restart without persistence`: `--on-wiped-store exit` ends with 4 and one line.

    With 1 it would be started again, on the empty store, see the systemd unit.
    """
    async with process(alone, tmp_path, "--on-wiped-store", "exit") as worker:
        await worker.wait_ready()
        await alone.client.flushall()
        assert await worker.wait() == 4
        assert "lost its data" in last_line(worker)
    async with process(alone, tmp_path, "--on-wiped-store", "cry") as worker:
        assert await worker.wait() == 2
        assert "give recreate or exit" in last_line(worker)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://no-such-host.invalid:6379", "cannot reach Redis at no-such-host.invalid:6379"),
        ("redis://127.0.0.1:1", "cannot reach Redis at 127.0.0.1:1"),
    ],
    ids=["DNS", "refused"],
)
async def test_a_server_that_cannot_be_reached_at_the_start(deployment, tmp_path, url, said):
    """Rows `DNS failure`, `connection refused`: whoever starts the worker is told in one line."""
    async with process(deployment, tmp_path, url=url) as worker:
        assert await worker.wait() == 1
        assert said in last_line(worker)
        assert "Traceback" not in worker.output()


async def test_tls_to_a_port_that_does_not_speak_it(deployment, tmp_path):
    """Row `TLS mismatch`: no answer in time, and a hint."""
    url = deployment.url.replace("redis://", "rediss://")
    async with process(deployment, tmp_path, url=url) as worker:
        assert await worker.wait(LONG) == 1
        assert "does this port speak TLS?" in last_line(worker)
