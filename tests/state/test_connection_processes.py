"""One connection, or blocking service, and several processes or event loops."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings

import pytest
from tests.helpers.keys import sync_client
from tests.helpers.workers import ROOT

from askel import InvalidError, RedisWorkflowService, StreamQueue, SyncRedisWorkflowService
from askel.state import connect

pytestmark = pytest.mark.usefixtures("server")


def in_child(function):
    """Run *function* in a forked child; return whether it went well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads
        pid = os.fork()
    if pid == 0:
        code = 1
        signal.alarm(20)
        try:
            function()
            code = 0
        except BaseException as error:  # noqa: BLE001 - of a child
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.fixture
def service(redis_url, prefix):
    service = SyncRedisWorkflowService(redis_url, key_prefix=prefix)
    yield service
    service.close()


def clients(redis_url):
    with sync_client(redis_url) as client:
        return {one["id"] for one in client.client_list()}


def test_forked_children_have_connections_of_their_own(service):
    service.create_run("w", run_id="parent")
    mine = service.call(lambda inner: inner.connection.send("CLIENT", "ID"))

    def child():
        for number in range(50):
            service.create_run("w", number, run_id=f"c{os.getpid()}-{number}")
        assert service.call(lambda inner: inner.connection.send("CLIENT", "ID")) != mine
        with service.run_lock("parent", wait=10):
            service.update_run_state("parent", "n", 1)
        service.close()

    assert all(in_child(child) for _ in range(3))
    assert service.call(lambda inner: inner.connection.send("CLIENT", "ID")) == mine
    assert len(service.list_runs(limit=500).runs) == 151


def test_many_threads_of_parent_and_child_at_once(service):
    service.create_run("w", run_id="r")
    stop = threading.Event()
    failures = []

    def parent():
        while not stop.is_set():
            try:
                assert service.get_run("r").id == "r"
            except BaseException as error:  # noqa: BLE001 - reported below
                failures.append(error)
                return

    threads = [threading.Thread(target=parent) for _ in range(4)]
    for thread in threads:
        thread.start()

    def child():
        for _ in range(50):
            assert service.get_run("r").id == "r"
        gc.collect()
        service.close()

    try:
        assert all(in_child(child) for _ in range(5))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_child_of_a_body_under_the_lock_neither_waits_for_it_nor_gives_it_back(service, redis_url):
    service.create_run("w", run_id="r")

    lock = service.run_lock("r")
    lock.__enter__()
    assert in_child(lambda: lock.__exit__(None, None, None))
    with sync_client(redis_url) as client:
        assert client.exists(service.keys.lock("r")) == 1
    lock.__exit__(None, None, None)


def test_service_closed_by_the_child_is_open_in_the_parent(service):
    service.create_run("w", run_id="r")
    assert in_child(service.close)
    assert service.get_run("r").id == "r"


def test_connection_that_the_parent_closes_is_not_kept_open_by_the_child(redis_url, prefix):
    service = SyncRedisWorkflowService(redis_url, key_prefix=prefix)
    number = service.call(lambda inner: inner.connection.send("CLIENT", "ID"))
    ready, go = os.pipe(), os.pipe()

    def child():
        service.get_run("r")  # parts from the parent's socket
        os.write(ready[1], b"x")
        os.read(go[0], 1)

    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(in_child(child)))
    thread.start()
    assert os.read(ready[0], 1) == b"x"
    service.close()
    assert number not in clients(redis_url)
    os.write(go[1], b"x")
    thread.join()
    assert outcome == [True]
    for end in (*ready, *go):
        os.close(end)


def test_queue_and_async_service_are_safe_to_fork_with(redis_url, prefix):
    connection = connect(redis_url)
    queue = StreamQueue(redis_url, prefix)

    async def use():
        assert await connection.send("ECHO", os.getpid()) == str(os.getpid()).encode()
        await queue.connection.send("PING")

    loop = asyncio.new_event_loop()
    loop.run_until_complete(use())
    assert in_child(lambda: asyncio.run(use()))
    loop.run_until_complete(use())
    assert connection.connects == 1
    for one in (connection, queue):
        loop.run_until_complete(one.close())
    loop.close()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_async_service_serves_one_loop_after_another(redis_url, prefix):
    """As `async_to_sync`, and scripts with several `asyncio.run`, make them."""
    service = RedisWorkflowService(redis_url, key_prefix=prefix)
    asyncio.run(service.create_run("w", run_id="r"))
    assert asyncio.run(service.get_run("r")).id == "r"

    async def ended():
        assert (await service.get_run("r")).id == "r"
        await service.close()

    asyncio.run(ended())
    gc.collect()


async def test_two_loops_at_once_are_refused(redis_url):
    connection = connect(redis_url)
    await connection.send("PING")

    def elsewhere():
        async def ask():
            return await connection.send("PING")

        return asyncio.run(ask())

    with pytest.raises(InvalidError, match="in use by another event loop: make one for each"):
        await asyncio.to_thread(elsewhere)
    assert await connection.send("PING") == b"PONG"
    await connection.close()


ENDINGS = {
    "falls off the end": "",
    "sys.exit": "import sys; sys.exit(0)",
    "with a lock": "block = service.run_lock('r'); block.__enter__()",
    "calls under way in daemon threads": """
        import contextlib, threading, time
        from askel import AskelError
        def forever():
            with contextlib.suppress(AskelError):
                while True:
                    service.get_run("r")
        for _ in range(4):
            threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.2)
    """,
    "used at exit": "import atexit; atexit.register(service.get_run, 'r')",
    "forked": """
        import os
        pid = os.fork()
        assert service.get_run("r").id == "r"
        if pid:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    """,
    "multiprocessing": """
        import multiprocessing
        child = multiprocessing.get_context("fork").Process(target=service.get_run, args=("r",))
        child.start(); child.join(); assert child.exitcode == 0
    """,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_process_ends_by_itself_although_nobody_closed(redis_url, prefix, ending):
    program = f"""
        import warnings
        from askel import SyncRedisWorkflowService
        service = SyncRedisWorkflowService({redis_url!r}, key_prefix={prefix!r}, resend_s=0)
        service.create_run("w", run_id="r", if_exists="return")
        warnings.filterwarnings("ignore", "This process", DeprecationWarning)
    """
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            textwrap.dedent(program) + textwrap.dedent(ENDINGS[ending]),
        ],
        timeout=20,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


PREFORK = """
import os, sys
from askel import SyncRedisWorkflowService

service = SyncRedisWorkflowService(sys.argv[1], key_prefix=sys.argv[2])  # before the fork
service.init()                                                           # even used before it


def application(environ, start_response):
    run_id = service.create_run("order", {"path": environ["PATH_INFO"]})
    start_response("200 OK", [("content-type", "text/plain")])
    return [f"{os.getpid()} {run_id}".encode()]


def serve(out):
    from wsgiref.util import setup_testing_defaults

    for number in range(20):
        environ = {"PATH_INFO": f"/{number}"}
        setup_testing_defaults(environ)
        body = b"".join(application(environ, lambda status, headers: None))
        os.write(out, body + b"\\n")


ends, starts = os.pipe()
children = []
for _ in range(3):
    pid = os.fork()
    if not pid:
        serve(starts)
        sys.exit(0)
    children.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
os.close(starts)
lines = os.fdopen(ends).read().splitlines()
assert codes == [0, 0, 0], codes
assert len({line.split()[0] for line in lines}) == 3
assert len({line.split()[1] for line in lines}) == 60
assert len(service.list_runs(limit=100).runs) == 60
"""


def test_one_service_of_a_module_serves_a_preforking_server(redis_url, prefix):
    ran = subprocess.run(
        [sys.executable, "-c", PREFORK, redis_url, prefix],
        timeout=30,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
