"""Each fault of the server does exactly what it says, on every server that is known."""

import random
import shutil
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from tests.helpers.waiting import wait_until

from askeld.embedded import EmbeddedServerError
from askeld.server_binary import ServerBinary
from askeld.torture import shims
from askeld.torture.faults.clock import ClockJump
from askeld.torture.faults.proxy import ProxyFault
from askeld.torture.faults.server import OutOfMemory, PowerLoss, RedisKill
from askeld.torture.server import TortureServer

DICE = random.Random(4)


class Pusher:
    """Pushes numbers for as long as the server is there, and counts what was acknowledged."""

    def __init__(self, server):
        self.server = server
        self.acknowledged = 0

    def push(self, count):
        with self.server.client() as client:
            for _ in range(count):
                client.rpush("pushed", self.acknowledged)
                self.acknowledged += 1

    def kept(self):
        with self.server.client() as client:
            return client.llen("pushed")


async def test_a_power_cut_with_always_takes_nothing_that_was_acknowledged(torture_server):
    pusher, fault = Pusher(torture_server), PowerLoss(torture_server)
    for cut in range(1, 4):
        await anyio.to_thread.run_sync(pusher.push, 50)
        await fault.strike(DICE)
        assert fault.bites == cut
        assert pusher.acknowledged == 50 * cut
        assert pusher.kept() == pusher.acknowledged
    assert len(fault.over_at) == 3


async def test_a_power_cut_with_everysec_really_takes_bytes_away(tmp_path, every_binary, shimmed):
    with TortureServer(tmp_path / "s", fsync="everysec", binary=every_binary) as server:
        pusher, fault = Pusher(server), PowerLoss(server)
        await anyio.to_thread.run_sync(pusher.push, 500)
        await fault.strike(DICE)
        kept = pusher.kept()
        assert fault.bytes_lost > 0
        assert kept < pusher.acknowledged
        # What is left is a prefix: the first so many, none missing.
        with server.client() as client:
            assert client.lrange("pushed", 0, -1) == [b"%d" % n for n in range(kept)]


async def test_what_was_fsynced_before_stays_through_the_next_cuts(tmp_path, every_binary, shimmed):
    with TortureServer(tmp_path / "s", fsync="no", binary=every_binary) as server:
        pusher = Pusher(server)
        await anyio.to_thread.run_sync(pusher.push, 50)
        server.stop()  # ends with an fsync
        server.start()
        kept = pusher.kept()
        assert kept == pusher.acknowledged
        await anyio.to_thread.run_sync(pusher.push, 50)
        with server.client() as client:
            client.config_set("appendfsync", "always")
            client.set("fsynced", "now")
            client.config_set("appendfsync", "no")
            client.set("fsynced", "never")
        assert server.cut_power() > 0
        server.start()
        with server.client() as client:
            assert client.get("fsynced") == b"now"


async def test_a_killed_server_comes_back_on_its_port_with_everything(tmp_path, every_binary):
    with TortureServer(tmp_path / "s", fsync="everysec", binary=every_binary) as server:
        pusher, fault, url = Pusher(server), RedisKill(server), server.url
        for kills in range(1, 4):
            await anyio.to_thread.run_sync(pusher.push, 50)
            await fault.strike(DICE)
            assert fault.bites == kills
            assert server.url == url
            assert pusher.kept() == pusher.acknowledged


def test_the_clock_jumps_while_the_server_runs_and_locks_follow_it(torture_server):
    with torture_server.client() as client:
        for seconds in (3_600, -7_200, 0):
            client.set("lock", "x", px=30_000)
            torture_server.move_clock(seconds)
            assert abs(torture_server.clock_drift() - seconds) < 30
        client.set("lock", "x", px=30_000)
        torture_server.move_clock(3_600)
        torture_server.clock_drift()  # a server remembers the time for as long as it is idle
        assert client.get("lock") is None
        client.set("lock", "x", px=30_000)
        torture_server.move_clock(-3_600)
        torture_server.clock_drift()
        # A lock of half a minute that lasts for more than two hours.
        assert 7_200_000 < client.pttl("lock") < 7_240_000


async def test_the_clock_fault_jumps_elsewhere_and_ends_at_the_latest_time(torture_server):
    fault = ClockJump(torture_server)
    places = []
    for _ in range(4):
        await fault.strike(DICE)
        places.append(fault.at_s)
    assert fault.bites == 4
    assert all(one != other for one, other in pairwise(places))
    await fault.end()
    assert fault.at_s == max(0, *places)
    assert abs(torture_server.clock_drift() - fault.at_s) < 30


async def test_out_of_memory_refuses_writes_and_then_no_more(torture_server):
    fault = OutOfMemory(torture_server)
    await fault.strike(DICE)
    assert fault.bites == 1
    with torture_server.client() as client:
        assert client.config_get("maxmemory") in ({"maxmemory": "0"}, {b"maxmemory": b"0"})
        assert client.set("a", "1")


async def test_no_fault_is_counted_where_the_server_is_away(tmp_path):
    server = TortureServer(tmp_path / "s")
    server.start()
    fault = OutOfMemory(server)
    server.kill()
    await fault.strike(DICE)
    assert fault.bites == 0


@pytest.fixture
def silent_server(tmp_path):
    """A server that never answers, as one whose data takes long to load."""
    program = tmp_path / "silent"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o700)
    return TortureServer(tmp_path / "s", binary=ServerBinary(program, (9, 0, 0), "redis", "test"))


async def test_a_server_that_loads_for_long_is_seen_and_given_up_with_its_run(silent_server):
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(silent_server.restart)
            await wait_until(lambda: silent_server.running and silent_server.starting_s > 0.1)
            tasks.cancel_scope.cancel()
        await wait_until(lambda: not silent_server.starting_s)
    assert not silent_server.running


def test_a_server_that_never_answers_is_an_error_in_the_end(silent_server, monkeypatch):
    assert silent_server._server._ready_timeout_s >= 300
    monkeypatch.setattr(silent_server._server, "_ready_timeout_s", 0.2)
    with pytest.raises(EmbeddedServerError, match="did not answer"):
        silent_server.start()
    assert silent_server.starting_s == 0
    assert not silent_server.running


async def test_the_proxy_loses_exactly_one_reply_of_a_write(server, redis, prefix):
    fault = ProxyFault(server.host, server.port)
    client = redis.__class__.from_url(fault.url, socket_timeout=5, retry=None)
    async with fault.open(), anyio.create_task_group() as tasks:
        tasks.start_soon(fault._lose_reply, (b"XADD",))
        refused = 0
        for number in range(20):
            try:
                await client.xadd(f"{prefix}:events", {"n": number})
            except (RedisConnectionError, RedisTimeoutError):
                refused += 1
        await client.aclose()
    assert fault.kinds == {"lost reply": 1}
    assert refused == 1
    # It was executed all the same, once.
    added = [fields[b"n"] for _, fields in await redis.xrange(f"{prefix}:events")]
    assert added == [b"%d" % n for n in range(20)]


async def test_each_kind_of_the_proxy_bites_and_is_counted(server, redis, prefix):
    fault = ProxyFault(server.host, server.port)
    stop = anyio.Event()

    async def write():
        client = redis.__class__.from_url(fault.url, socket_timeout=1, retry=None)
        while not stop.is_set():
            try:
                await client.xadd(f"{prefix}:events", {"n": 1}, maxlen=10)
            except (RedisConnectionError, RedisTimeoutError):
                await anyio.sleep(0.001)
        await client.aclose()

    async with fault.open(), anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        strikes = 0
        while set(fault.kinds) != {"lost reply", "half open", "slow"} and strikes < 60:
            await fault.strike(DICE)
            strikes += 1
        stop.set()
    assert set(fault.kinds) == {"lost reply", "half open", "slow"}
    assert fault.bites <= strikes == len(fault.over_at)


def test_without_a_compiler_it_is_said_and_nothing_is_simulated(tmp_path, monkeypatch):
    real = shutil.which
    compilers = {"cc", "gcc", "clang"}
    monkeypatch.setattr(shutil, "which", lambda name: None if name in compilers else real(name))
    with TortureServer(tmp_path / "s") as server:
        assert server.without.startswith("no C compiler on PATH")
        with pytest.raises(shims.ShimError, match="no C compiler"):
            server.cut_power()
        with pytest.raises(shims.ShimError, match="no C compiler"):
            server.move_clock(1)
        assert server.running


def test_a_compiler_that_fails_is_quoted(tmp_path, monkeypatch):
    cc = tmp_path / "cc"
    cc.write_text("#!/bin/sh\necho 'no such thing as stdio.h' >&2\nexit 1\n")
    cc.chmod(0o700)
    monkeypatch.setattr(shims, "_compiler", lambda: str(cc))
    with pytest.raises(shims.ShimError, match="no such thing as stdio"):
        shims.compiled("sync")


def test_a_folder_may_be_named_from_here(tmp_path, shimmed, monkeypatch):
    """The server runs elsewhere, and finds the notes of the shims all the same."""
    monkeypatch.chdir(tmp_path)
    with TortureServer(Path("s")) as server:
        server.move_clock(3_600)
        assert server.clock_drift() > 3_000
        server.cut_power()
        assert (tmp_path / "s" / "synced").stat().st_size > 0


def test_a_shim_is_compiled_once(shimmed):
    first = shims.compiled("clock")
    written = first.stat().st_mtime_ns
    assert shims.compiled("clock") == first
    assert first.stat().st_mtime_ns == written


def test_a_server_that_takes_no_shim_in_is_found_out(tmp_path, shimmed, monkeypatch):
    """The guard against a cut that cuts nothing because the shim was not there."""
    monkeypatch.setattr(TortureServer, "_environment", lambda self: {"ASKEL_SYNC_FILE": "nowhere"})
    with TortureServer(tmp_path / "s") as server:
        assert "did not take the shims in" in server.without
        with pytest.raises(shims.ShimError, match="did not take"):
            server.cut_power()
