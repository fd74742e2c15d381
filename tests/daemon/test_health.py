"""Health that tells the truth: to HTTP and to systemd, of each loop, by a thread of its own."""

import json
import socket
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

import anyio
import anyio.to_thread
import pytest
import structlog
from tests.apps.parts import app
from tests.helpers.cli import ASKEL, run_program
from tests.helpers.daemon import loops_of_a_worker
from tests.helpers.forked import ForkedWorker
from tests.helpers.waiting import wait_until
from tests.helpers.workers import WorkerProcess

from askel import InvalidOptionError
from askeld.config import parse_address
from askeld.health import Health
from askeld.http import HttpServer
from askeld.notify import Notifier
from askeld.watchdog import Watchdog

#: What the interval of the watchdog is in these tests; twice that is how long a frozen loop may go
#: unnoticed.
WATCHDOG_MS = 800
#: Every loop there is.
LOOPS = loops_of_a_worker()


async def ask(address, path):
    """Return status and JSON of what is served at *path*."""

    def get():
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return await anyio.to_thread.run_sync(get)


@contextmanager
def served(health):
    """Serve *health* on a port of its own; yield the address."""
    server = HttpServer("127.0.0.1:0", health, structlog.get_logger())
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def systemd(tmp_path):
    """What systemd has for a service: a socket, and the environment that names it."""
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(tmp_path / "notify"))
    receiver.setblocking(False)

    class Systemd:
        environment = {  # noqa: RUF012 - of one test
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": str(WATCHDOG_MS * 1_000),
        }

        def heard(self):
            """Return what was sent since the last time."""
            states = []
            while True:
                try:
                    states += receiver.recv(4_096).decode().splitlines()
                except BlockingIOError:
                    return states

    yield Systemd()
    receiver.close()


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


def test_a_loop_is_believed_for_as_long_as_it_said_and_the_grace():
    clock = Clock()
    health = Health("w", 10, clock)
    pulse = health.pulse("consumer")
    pulse.beat(5)
    clock.now += 15
    assert health.is_live
    clock.now += 0.1
    assert health.liveness().stuck == ["consumer"]
    assert not health.liveness().loops["consumer"].ok
    pulse.beat()
    assert health.is_live
    clock.now += 10.1
    assert not health.is_live
    health.ended("consumer")
    assert health.is_live


def test_a_loop_counts_from_its_start():
    """Before, the worker may wait for Redis for as long as that takes."""
    clock = Clock()
    health = Health("w", 10, clock)
    health.pulse("consumer")
    clock.now += 1_000
    assert health.is_live
    assert health.is_starting
    health.started()
    assert not health.is_starting
    assert health.is_live
    clock.now += 10.1
    assert not health.is_live


def test_a_worker_is_ready_when_nothing_hinders():
    health = Health("w", 10)
    assert health.obstacles() == ["starting"]
    health.started()
    assert health.obstacles() == []
    health.hinder("draining")
    health.hinder("store_wiped")
    health.hinder("draining")
    assert health.obstacles() == ["draining", "store_wiped"]
    health.clear("draining")
    health.clear("never was")
    assert health.obstacles() == ["store_wiped"]


@pytest.mark.parametrize("text", ["", "9090", "host", "host:", "host:x", "h:70000", "::1:9090"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InvalidOptionError, match="is no address"):
        parse_address(text)


def test_addresses_have_a_host_and_a_port():
    assert parse_address("127.0.0.1:9090") == ("127.0.0.1", 9090)
    assert parse_address("[::1]:0") == ("::1", 0)
    assert parse_address(":80") == ("", 80)


def test_nothing_is_sent_where_nobody_listens(tmp_path):
    Notifier({}).send("READY=1")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).send("READY=1")
    assert Notifier({"WATCHDOG_USEC": "1000000"}).watchdog_s is None
    other = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert Notifier(other).watchdog_s is None


def test_a_socket_may_be_in_the_abstract_namespace():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0askel-test-notify")
        Notifier({"NOTIFY_SOCKET": "@askel-test-notify"}).send("READY=1", "STATUS=ready")
        assert receiver.recv(100) == b"READY=1\nSTATUS=ready"


async def frozen(*_):
    await anyio.sleep_forever()


def freeze(worker, loop, thawed):
    """Have *loop* begin what does not end; the process lives, the others go on.

    That of another thread ends when *thawed*: this one cannot cancel it.
    """
    parts = worker.worker

    async def renews(*_):
        while not thawed.is_set():  # noqa: ASYNC110 - set by another thread
            await anyio.sleep(0.02)

    if loop == "renewal":
        parts._renewal._renew = renews
        parts._leases.older_than = lambda _: [None]
    else:
        names = {"nudges": "nudge_loop"}
        getattr(parts, f"_{names.get(loop, loop)}").run_once = frozen


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_frozen_loop_turns_health_red_and_starves_the_watchdog(
    deployment, systemd, loop, monkeypatch
):
    """M20: with the process alive, `/healthz` names the loop; systemd hears nothing any more."""
    monkeypatch.setattr("askeld.nudges._BLOCK_MS", 50)
    thawed = threading.Event()
    monkeypatch.setattr("askeld.store_watch._EVERY_S", 0.05)
    monkeypatch.setattr("askeld.confirming.IDLE_S", 0.05)
    settings = {"watchdog_ms": WATCHDOG_MS, "block_ms": 50, "retention_ms": 50, "lease_ms": 200}
    async with deployment.worker(app, **settings) as worker:
        health = worker.worker.health
        notifier = Notifier(systemd.environment)
        watchdog = Watchdog(
            health, notifier, structlog.get_logger(), warn_block_ms=0, max_block_ms=0
        )
        with served(health) as address, watchdog:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watchdog.run)
                assert (await ask(address, "/healthz"))[0] == 200
                await wait_until(lambda: "WATCHDOG=1" in systemd.heard())

                freeze(worker, loop, thawed)
                began = anyio.current_time()

                async def red():
                    status, found = await ask(address, "/healthz")
                    return found if status == 503 and found["stuck"] == [loop] else None

                assert (await wait_until(red))["status"] == "stuck"
                # Generously: what is waited for is that it is noticed, on whatever machine.
                assert anyio.current_time() - began < 2 * WATCHDOG_MS / 1_000 + 3
                status, found = await ask(address, "/readyz")
                assert (status, found["reasons"]) == (503, [f"stuck: {loop}"])
                systemd.heard()
                await anyio.sleep(WATCHDOG_MS / 1_000)  # it is silence that is tested
                assert systemd.heard() == []
                thawed.set()
                tasks.cancel_scope.cancel()
        worker.worker._work._group.cancel_scope.cancel()  # what is frozen does not drain


async def test_health_is_told_while_the_event_loop_is_blocked(deployment, tmp_path):
    """By a thread: a blocked loop cannot answer for itself."""
    port = free_port()
    async with ForkedWorker(
        "tests.apps.poison:app",
        redis_url=deployment.url,
        prefix=deployment.prefix,
        directory=tmp_path,
        args=("--http", f"127.0.0.1:{port}", "--watchdog", "1s", "--max-block", "60s"),
    ) as process:
        await process.wait_ready()
        address = f"127.0.0.1:{port}"

        async def green():
            status, found = await ask(address, "/healthz")
            return found if status == 200 else None

        found = await wait_until(green)
        assert set(found["loops"]) == {*LOOPS, "event_loop"}
        await deployment.send("run.start", workflow="tries", input=["long_sleep", ""], run_id="r")
        await process.wait_log("loop_blocked")

        async def red():
            status, found = await ask(address, "/healthz")
            return found if status == 503 and "event_loop" in found["stuck"] else None

        found = await wait_until(red)
        assert found["loops"]["renewal"]["ok"], "renewal has a thread of its own"


async def test_readiness_follows_redis_and_liveness_does_not(deployment, proxy):
    """A Redis that is away makes no worker be restarted: the loops move, they wait for it."""
    async with deployment.worker(app, url=proxy.url, watchdog_ms=20_000) as worker:
        health = worker.worker.health
        with served(health) as address:
            assert (await ask(address, "/readyz"))[0] == 200
            proxy.refuse_connections()
            proxy.drop_connections()

            async def not_ready():
                status, found = await ask(address, "/readyz")
                return found if status == 503 else None

            found = await wait_until(not_ready)
            assert found["reasons"] == ["store_away"]
            assert (await ask(address, "/healthz"))[0] == 200
            proxy.heal()

            async def ready():
                return (await ask(address, "/readyz"))[0] == 200

            await wait_until(ready)


async def test_loops_move_while_redis_is_away(deployment, proxy, monkeypatch):
    """Longer than the watchdog allows for silence: waiting for Redis is no silence."""
    monkeypatch.setattr("askeld.worker._PATIENCE_S", 0.2)
    settings = {"watchdog_ms": 3_000, "block_ms": 100, "retention_ms": 100, "sweep_ms": 100}
    async with deployment.worker(app, url=proxy.url, **settings) as worker:
        health = worker.worker.health
        proxy.refuse_connections()
        proxy.drop_connections()
        began = anyio.current_time()
        while anyio.current_time() - began < 5:
            assert health.is_live, health.liveness()
            await anyio.sleep(0.05)
        proxy.heal()
        await deployment.send("run.start", workflow="one_step", input=1, run_id="r")
        await deployment.until("r", "completed")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture
def process(deployment, tmp_path):
    """Make worker processes."""

    def make(*args, **options):
        place = {"redis_url": deployment.url, "prefix": deployment.prefix, "directory": tmp_path}
        return WorkerProcess("tests.apps.parts:app", args=args, **place, **options)

    return make


async def test_systemd_hears_when_the_worker_is_ready_fed_and_stopping(process, systemd):
    """Type=notify, WatchdogSec=."""
    heard = []

    async with process(env=systemd.environment) as worker:
        await worker.wait_ready()

        def hears(state):
            heard.extend(systemd.heard())
            return state in heard

        await wait_until(lambda: hears("READY=1"))
        await wait_until(lambda: hears("WATCHDOG=1"))
        worker.terminate()
        assert await worker.wait() == 0
        assert hears("STOPPING=1")
    first, last = heard.index("READY=1"), heard.index("STOPPING=1")
    assert first < heard.index("WATCHDOG=1") < last
    assert heard.count("READY=1") == heard.count("STOPPING=1") == 1


async def test_a_port_in_use_is_an_error_only_where_it_was_asked_for(process, tmp_path):
    """By default the worker works on, and says that nobody can ask it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with process("--http", address) as worker:
            assert await worker.wait() == 1
            said = worker.stderr_path.read_text()
            assert said == (
                f"askel worker: --http {address}: Address already in use: "
                "choose another port, or --http off\n"
            )
        async with ForkedDefault(worker, address) as other:
            line = await other.wait_log("http_unavailable")
            assert line["address"] == address
            await other.wait_ready()


class ForkedDefault(ForkedWorker):
    """A worker whose default address is *address*: the real default may be in use or not."""

    def __init__(self, like, address):
        super().__init__(
            "tests.apps.parts:app",
            redis_url=like._env["REDIS_URL"],
            prefix=like._env["ASKEL_PREFIX"],
            directory=like.stdout_path.parent,
            settings={"http": address, "http_required": False},
        )


async def test_a_worker_that_listens_everywhere_is_asked_here(process, tmp_path):
    """`ASKEL_HTTP` of a container is good for `askel health` within it, too."""
    port = free_port()
    async with process(env={"ASKEL_HTTP": f"0.0.0.0:{port}"}) as worker:
        await worker.wait_ready()
        for address in (f"0.0.0.0:{port}", f":{port}"):
            ran = run_program([ASKEL, "health"], cwd=tmp_path, env={"ASKEL_HTTP": address})
            assert ran.code == 0, ran


async def test_askel_health_tells_people_and_programs(process, deployment, tmp_path):
    """Exit 0 when it works, 6 when it does not, or when nobody is there."""
    address = f"127.0.0.1:{free_port()}"
    command = [ASKEL, "health", "--http", address]
    ran = run_program(command, cwd=tmp_path)
    assert (ran.code, ran.out) == (6, "")
    assert f"no worker answers at {address}" in ran.complaint
    async with process("--http", address) as worker:
        await worker.wait_ready()
        ran = run_program(command, cwd=tmp_path)
        assert ran.code == 0, ran
        for name in ("live", "ready", *LOOPS, "event_loop"):
            assert name in ran.out
        ran = run_program([*command, "--json"], cwd=tmp_path)
        found = ran.json()
        assert (found["live"]["status"], found["ready"]["status"]) == ("ok", "ready")
        await deployment.send("run.start", workflow="waits", input=str(tmp_path / "g"), run_id="r")
        await deployment.until_step("r", "gate", "running")
        worker.terminate()
        await worker.wait_log("worker_draining")
        ran = run_program(command, cwd=tmp_path)
        assert ran.code == 6
        assert "no: draining" in ran.out
        (tmp_path / "g").touch()
        assert await worker.wait() == 0
