"""The run mirror: told after a write landed; whatever it does, the write stands."""

import asyncio
import logging
import threading

import anyio
import pytest

from askel import RunMirror
from askel.state.writes.mirror import MirrorTeller

METHODS = {
    *("create_run", "update_run_status", "insert_step_state", "set_step_running"),
    *("set_step_scheduled", "set_step_result", "set_step_child_run_id", "set_step_error"),
    *("create_retry_attempt", "set_branch_taken", "update_run_state"),
    *("upsert_workflow_version", "update_workflow_version_status"),
}
SECRET = "a payload that no log may show"


class Worse(BaseException):
    pass


class Deaf(logging.Handler):
    """A handler of logs that fails itself."""

    def emit(self, record):
        raise RuntimeError("deaf")


def mirror_of(method):
    """A mirror whose one method is `set_step_result`."""
    return type("Mirror", (), {"set_step_result": staticmethod(method)})()


async def tell(method, **options):
    await MirrorTeller(mirror_of(method), **options).tell("set_step_result", "r:s:x", SECRET)


def test_base_class_has_the_thirteen_methods():
    assert {name for name in vars(RunMirror) if not name.startswith("_")} == METHODS


async def test_async_mirror_is_told_in_the_loop_and_waited_for():
    told = []

    async def hear(step_id, result):
        await asyncio.sleep(0)
        told.append((step_id, result, threading.current_thread()))

    await tell(hear)
    assert told == [("r:s:x", SECRET, threading.current_thread())]


async def test_synchronous_mirror_is_told_in_a_thread_and_waited_for():
    told = []
    await tell(lambda *given: told.append((*given, threading.current_thread())))

    ((step_id, result, thread),) = told
    assert (step_id, result) == ("r:s:x", SECRET)
    assert thread is not threading.current_thread()


async def test_what_a_synchronous_method_returns_is_awaited():
    told = []

    async def later(step_id):
        told.append(step_id)

    await tell(lambda step_id, result: later(step_id))
    assert told == ["r:s:x"]


async def test_methods_are_optional_and_so_is_the_mirror(caplog):
    await MirrorTeller().tell("set_step_result", "r:s:x", 1)
    await MirrorTeller(object()).tell("set_step_result", "r:s:x", 1)
    await MirrorTeller(RunMirror()).tell("set_step_result", "r:s:x", 1)
    await MirrorTeller(RunMirror()).tell("set_step_running", "r:s:x")

    assert caplog.records == []


FAILURES = [
    ValueError(SECRET),
    Worse(SECRET),
    SystemExit(SECRET),
    GeneratorExit(SECRET),
    StopIteration(SECRET),
    asyncio.CancelledError(SECRET),
    BaseExceptionGroup(SECRET, [Worse(SECRET)]),
]


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_whatever_it_raises_is_logged_without_payloads(caplog, failure, is_async):
    def fail(*given):
        raise failure

    async def fail_later(*given):
        await asyncio.sleep(0)
        raise failure

    await tell(fail_later if is_async else fail)

    (record,) = caplog.records
    assert (record.levelname, record.name) == ("WARNING", "askel.mirror")
    assert "set_step_result of 'r:s:x'" in record.getMessage()
    assert SECRET not in caplog.text
    assert record.exc_info is None


async def test_log_that_fails_does_not_matter(monkeypatch):
    log = logging.getLogger("askel.mirror")
    monkeypatch.setattr(log, "handlers", [Deaf()])

    async def fail(*given):
        raise ValueError

    await tell(fail)


async def test_slow_mirror_is_left_behind_at_the_bound(caplog):
    ended = asyncio.Event()

    async def hang(*given):
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    with anyio.fail_after(5):
        await tell(hang, timeout_s=0.05)
        await ended.wait()
    assert "no answer within 0.05 s" in caplog.text


async def test_mirror_that_swallows_its_cancellation_is_left_behind(caplog):
    free = asyncio.Event()

    async def stubborn(*given):
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    with anyio.fail_after(5):
        await tell(stubborn, timeout_s=0.05)
    free.set()
    assert "no answer" in caplog.text


async def test_hanging_synchronous_mirrors_hold_a_bounded_number_of_threads(caplog):
    free, entered = threading.Event(), []

    def hang(*given):
        entered.append(1)
        free.wait(30)

    teller = MirrorTeller(mirror_of(hang), timeout_s=0.02)
    with anyio.fail_after(10):
        for _ in range(8):
            await teller.tell("set_step_result", "r:s:x", 1)
    free.set()

    assert len(entered) == 4
    assert len(caplog.records) == 8


async def test_cancellation_of_the_caller_is_the_callers():
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(*given):
        entered.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    task = asyncio.create_task(tell(hang, timeout_s=30))
    await entered.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    with anyio.fail_after(5):
        await cancelled.wait()


async def test_calls_of_one_caller_arrive_in_order():
    told = []

    async def hear(step_id, result):
        await asyncio.sleep(0.001 * (3 - result))
        told.append(result)

    teller = MirrorTeller(mirror_of(hear))
    for number in range(3):
        await teller.tell("set_step_result", "r:s:x", number)
    assert told == [0, 1, 2]
