"""The blocking service: the same methods, from any thread, for programs without an event loop.

What the methods do is tested by the suite of the async service (see `conftest.py`); here stands
what is the blocking one's own.
"""

import asyncio
import contextvars
import inspect
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from tests.helpers.keys import sync_client

from askel import (
    App,
    AskelError,
    BlockingCallError,
    InvalidOptionError,
    LockLostError,
    LockNotAcquiredError,
    NestedLockError,
    RedisWorkflowService,
    Run,
    RunNotFoundError,
    StoreUnavailableError,
    SyncRedisWorkflowService,
    UnknownOutcomeError,
)

pytestmark = pytest.mark.usefixtures("server")

#: Attributes of the async service that are about its loop or its parts.
NOT_ITS_OWN = {"connection", "scripts", "ids", "codec", "clock_offset_ms", "resend_s"}


@pytest.fixture
def service(redis_url, prefix):
    service = SyncRedisWorkflowService(redis_url, key_prefix=prefix)
    yield service
    service.close()


@pytest.fixture
def other(redis_url, prefix):
    other = SyncRedisWorkflowService(redis_url, key_prefix=prefix)
    yield other
    other.close()


@pytest.fixture
def client(redis_url):
    with sync_client(redis_url) as client:
        yield client


@pytest.fixture
def run(service):
    return service.create_run("w", run_id="r")


def wait_for(predicate, timeout=10):
    end = time.monotonic() + timeout
    while not (found := predicate()):
        assert time.monotonic() < end, "not in time"
        threading.Event().wait(0.005)
    return found


def public(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


def parameters(method):
    return list(inspect.signature(method).parameters.values())


def test_every_public_method_of_the_async_service_has_its_blocking_counterpart():
    """A method that is missing takes one line in `askel/state/sync/sync_service.py`."""
    assert public(RedisWorkflowService) - public(SyncRedisWorkflowService) - NOT_ITS_OWN == set()
    assert public(SyncRedisWorkflowService) - public(RedisWorkflowService) == {
        "call", "keys", "queue"
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(public(RedisWorkflowService) | {"__init__"}))
def test_signature_and_documentation_are_those_of_the_async_method(name):
    theirs, mine = getattr(RedisWorkflowService, name), getattr(SyncRedisWorkflowService, name)
    if not callable(theirs):
        return
    assert not inspect.iscoroutinefunction(mine)
    names = [(one.name, one.kind, one.default) for one in parameters(mine)]
    assert names == [(one.name, one.kind, one.default) for one in parameters(theirs)]
    if not name.startswith("with_") and name != "close":
        assert inspect.signature(mine) == inspect.signature(theirs)
        assert mine.__doc__ == theirs.__doc__
    assert mine.__doc__


def test_arguments_of_the_constructor_are_checked_at_once():
    for wrong in ("http://host", None, {"nope": 1}):
        with pytest.raises(InvalidOptionError):
            SyncRedisWorkflowService(wrong)
    with pytest.raises(TypeError):
        SyncRedisWorkflowService("redis://h", nope=1)


def test_nothing_is_started_before_the_first_call(redis_url, prefix):
    before = threading.active_count()
    service = SyncRedisWorkflowService(redis_url, key_prefix=prefix)
    assert threading.active_count() == before

    assert service.get_run("r") is None
    assert threading.active_count() == before + 1
    service.close()
    assert threading.active_count() == before


def test_whole_run(service):
    run_id = service.create_run("w", {"n": 1})
    with service.run_lock(run_id) as lock:
        step = service.insert_step_state(run_id, "a", "f", [1])
        service.set_step_running(step.step_id)
        service.set_step_result(step.step_id, {"ok": True})
    with service.transaction(run_id) as changes:
        second = changes.insert_step_state("b", "f")
        changes.set_step_running(second.step_id)
        changes.set_step_result(second.step_id, 2)
        changes.update_run_status("completed", output=3)

    assert lock.fence == 1
    assert service.get_run(run_id).output == 3
    assert [a.result for a in service.get_run_history(run_id)] == [{"ok": True}, 2]
    assert [run.id for run in service.list_runs().runs] == [run_id]


def test_errors_are_those_of_the_async_service(service):
    with pytest.raises(RunNotFoundError):
        service.update_run_status("none", "completed")
    with pytest.raises(AskelError):
        service.get_run("no:run")


def test_many_threads_at_once(service):
    def lifecycle(number):
        run_id = service.create_run("w", number, run_id=f"r{number}")
        with service.run_lock(run_id):
            step = service.insert_step_state(run_id, "a", "f", number)
            service.set_step_running(step.step_id)
            service.set_step_result(step.step_id, number)
            service.update_run_status(run_id, "completed", output=number)
        return service.get_run(run_id).output

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lifecycle, range(200))) == list(range(200))
    assert service.call(lambda inner: asyncio.sleep(0, inner.connection.connects)) == 1
    assert len([t for t in threading.enumerate() if t.name == "askel-sync"]) >= 1


def test_first_calls_of_many_threads_start_one_loop(redis_url, prefix):
    for _ in range(20):
        with SyncRedisWorkflowService(redis_url, key_prefix=prefix) as service:
            barrier = threading.Barrier(8)

            def first(_, service=service, barrier=barrier):
                barrier.wait()
                service.get_run("r")
                return id(service._here().thread._loop)

            with ThreadPoolExecutor(8) as pool:
                assert len(set(pool.map(first, range(8)))) == 1


def test_counting_under_the_lock_loses_nothing(service, other, run):
    """Read, think, write, from two services and many threads: only the lock makes that safe."""
    service.update_run_state(run, "n", 0)

    def add(number):
        mine = (service, other)[number % 2]
        with mine.run_lock(run, wait=30):
            mine.update_run_state(run, "n", mine.get_run_state(run)["n"] + 1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert service.get_run_state(run) == {"n": 40}


def test_lock_belongs_to_the_thread_that_took_it(service, other, run, client):
    with service.run_lock(run):
        with pytest.raises(NestedLockError), service.run_lock(run):
            pass
        with pytest.raises(LockNotAcquiredError), other.run_lock(run, wait=0):
            pass
        with ThreadPoolExecutor(1) as pool:  # a thread knows nothing of its starter's lock
            assert isinstance(
                pool.submit(lambda: service.with_run_lock(run, int)).exception(),
                LockNotAcquiredError,
            )
            context = contextvars.copy_context()
            with pytest.raises(NestedLockError):
                pool.submit(context.run, service.with_run_lock, run, int).result()
    assert client.exists(service.keys.lock(run)) == 0
    with service.run_lock(run) as lock:
        assert lock.fence > 1


def test_lock_is_given_back_when_the_body_raises(service, run, client):
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught, service.run_lock(run):
        raise error
    assert caught.value is error
    assert client.exists(service.keys.lock(run)) == 0
    for kind in (KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit):
        with pytest.raises(kind), service.run_lock(run):
            raise kind
        assert client.exists(service.keys.lock(run)) == 0
    assert service.with_run_lock(run, lambda: 7) == 7


def test_transaction_whose_body_raises_writes_nothing(service, run):
    def body():
        with service.transaction(run) as changes:
            changes.update_run_status("completed")
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        body()
    assert service.get_run(run).status == "running"


def test_what_a_transaction_is_refused_is_raised_where_it_ends(service, run):
    service.update_run_status(run, "completed")
    with pytest.raises(AskelError, match="completed"), service.transaction(run) as changes:
        changes.update_run_status("suspended")


def test_transaction_joins_the_lock_around_it(service, run, client):
    def body():
        with service.transaction(run) as changes:
            changes.update_run_state("n", 1)
        client.delete(service.keys.lock(run))
        with service.transaction(run) as changes:
            changes.update_run_state("n", 2)

    with pytest.raises(LockLostError):
        service.with_run_lock(run, body)
    assert service.get_run_state(run) == {"n": 1}


def test_lost_lock_refuses_writes_and_is_told_where_it_ends(service, run, client):
    reached = []

    def body(lock):
        client.set(service.keys.lock(run), "thief")
        wait_for(lambda: lock.lost)
        reached.append("a blocking body is not interrupted")
        with pytest.raises(LockLostError):
            service.update_run_status(run, "completed")

    with pytest.raises(LockLostError), service.run_lock(run, ttl="300ms") as lock:
        body(lock)
    assert reached
    assert service.get_run(run).status == "running"
    client.delete(service.keys.lock(run))


def test_lock_is_renewed_while_the_thread_is_busy(service, run, client):
    with service.run_lock(run, ttl="300ms"):
        end = time.monotonic() + 1
        while time.monotonic() < end:
            sum(range(1_000))
        service.update_run_status(run, "completed")
    assert service.get_run(run).status == "completed"


def test_step_lock(service, run, other):
    service.insert_step_state(run, "a", "f")
    with service.step_lock(run, "a"):
        with pytest.raises(LockNotAcquiredError), other.step_lock(run, "a", wait=0):
            pass
        assert service.with_run_lock(run, lambda: 1) == 1
    assert other.with_step_lock(run, "a", lambda: 2) == 2


async def test_call_inside_a_running_loop_is_refused(service):
    calls = [
        lambda: service.get_run("r"),
        lambda: service.run_lock("r").__enter__(),
        service.__enter__,
    ]
    for call in calls:
        with pytest.raises(BlockingCallError, match="await the methods of RedisWorkflowService"):
            call()

    assert await asyncio.to_thread(service.get_run, "r") is None


def test_call_from_the_own_loop_is_refused_instead_of_waiting_for_ever(service):
    async def back_again(_):
        return service.get_run("r")

    with pytest.raises(BlockingCallError):
        service.call(back_again)


app = App("sync")


@app.step
def double(number: int) -> int:
    return 2 * number


@app.workflow
async def doubled(run: Run, number: int) -> int:
    return await run.do("double", double, number)


def test_workflow_runs_inline_from_a_program_without_a_loop(service):
    run_id = service.call(lambda inner: app.start(inner, "doubled", 4))

    assert service.get_run(run_id).output == 8


def test_context_of_the_caller_is_that_of_the_call(service):
    who = contextvars.ContextVar("who", default="nobody")

    async def ask(_):
        return who.get()

    who.set("ann")
    assert service.call(ask) == "ann"


@contextmanager
def interrupted_once(ready):
    """Send SIGINT to this very thread as soon as *ready*."""
    gone = threading.Event()

    def hit():
        wait_for(lambda: gone.is_set() or ready())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=hit)
    thread.start()
    try:
        yield
    finally:
        gone.set()
        thread.join()


def test_interrupt_while_waiting_cancels_the_call_and_leaves_the_service_usable(service, run):
    cancelled = threading.Event()
    waiting = threading.Event()

    async def wait_forever(_):
        waiting.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(KeyboardInterrupt), interrupted_once(waiting.is_set):
        service.call(wait_forever)

    assert cancelled.wait(5)
    assert service.get_run(run).status == "running"


def test_interrupt_while_waiting_for_a_lock_leaves_it_free(service, other, run, client):
    with other.run_lock(run):
        waiting = threading.Event()
        real = service._here().service.scripts.insist

        async def noticed(*args, **options):
            waiting.set()
            return await real(*args, **options)

        service._here().service.scripts.insist = noticed
        with (
            pytest.raises(KeyboardInterrupt),
            interrupted_once(waiting.is_set),
            service.run_lock(run, wait=60),
        ):
            pass
    service.with_run_lock(run, lambda: service.update_run_status(run, "completed"))
    wait_for(lambda: client.exists(service.keys.lock(run)) == 0)


def test_closed_service_says_so_and_closing_is_repeatable(service, run):
    service.close()
    service.close()

    for call in (lambda: service.get_run(run), lambda: service.run_lock(run).__enter__()):
        with pytest.raises(StoreUnavailableError, match="the service is closed"):
            call()


def test_closing_ends_what_other_threads_wait_for(service, run):
    waiting = threading.Event()

    async def wait_forever(_):
        waiting.set()
        await asyncio.sleep(60)

    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(service.call, wait_forever)
        assert waiting.wait(5)
        service.close()
        with pytest.raises(UnknownOutcomeError, match="closed while the call was under way"):
            pending.result(5)


def test_closing_inside_a_lock_gives_it_back(service, run, client):
    with pytest.raises(UnknownOutcomeError, match="closed inside the block"), service.run_lock(run):
        service.close()
    assert client.exists(service.keys.lock(run)) == 0


def test_closing_does_not_wait_for_a_redis_that_is_silent(prefix):
    silent = threading.Event()
    with SilentServer() as port:
        service = SyncRedisWorkflowService(f"redis://127.0.0.1:{port}", key_prefix=prefix)
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(service.get_run, "r")
            wait_for(lambda: service._here().thread._loop)
            begin = time.monotonic()
            service.close()
            assert time.monotonic() - begin < 5
            with pytest.raises(AskelError):
                pending.result(5)
        silent.set()


class SilentServer:
    """Accepts connections, and never answers."""

    def __enter__(self):
        import socket  # noqa: PLC0415 - of this helper alone

        self._socket = socket.create_server(("127.0.0.1", 0))
        return self._socket.getsockname()[1]

    def __exit__(self, *_):
        self._socket.close()


def test_service_that_nobody_has_any_more_ends_its_thread(redis_url, prefix):
    before = threading.active_count()
    service = SyncRedisWorkflowService(redis_url, key_prefix=prefix)
    service.get_run("r")
    del service

    wait_for(lambda: threading.active_count() == before)


def test_process_id_is_not_asked_in_vain(service, run):
    assert service._here() is service._here()
    assert list(service._workers) == [os.getpid()]
