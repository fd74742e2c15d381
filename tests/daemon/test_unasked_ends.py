"""L9: a worker never exits 0 unless it was asked to stop."""

import asyncio
import functools
import json

import anyio
import pytest
import structlog
from tests.apps.parts import app
from tests.helpers.daemon import loops_of_a_worker
from tests.helpers.forked import ForkedWorker

from askeld.config import WorkerConfig
from askeld.worker import LoopEndedError, Worker

#: Loop -> the part of the worker that it is.
PARTS = {"nudges": "nudge_loop"}


async def ends_at_once():
    return


async def cancels_itself():
    asyncio.current_task().cancel()
    await anyio.sleep_forever()


@pytest.mark.parametrize("loop", loops_of_a_worker())
@pytest.mark.parametrize("how", [ends_at_once, cancels_itself])
async def test_a_loop_that_ends_unasked_takes_the_worker_down(deployment, monkeypatch, loop, how):
    """Whether it returns or is cancelled by somebody who is none of ours."""
    config = {"url": deployment.url, "prefix": deployment.prefix}
    worker = worker_of(config)
    part = getattr(worker, f"_{PARTS.get(loop, loop)}")
    monkeypatch.setattr(part, "watch" if loop == "renewal" else "run", how)
    with pytest.raises(BaseExceptionGroup) as caught, anyio.fail_after(20):
        await worker.run(anyio.Event())
    assert caught.group_contains(LoopEndedError, match=f"the loop {loop} ")


def worker_of(config):
    return Worker(app, WorkerConfig(**config), structlog.wrap_logger(None, processors=[silent]))


def silent(*_):
    raise structlog.DropEvent


@pytest.fixture
def process(deployment, tmp_path):
    return functools.partial(
        ForkedWorker,
        redis_url=deployment.url,
        prefix=deployment.prefix,
        directory=tmp_path,
    )


async def test_a_handler_that_cancels_every_task_does_not_make_it_exit_0(deployment, process):
    """Not one task of the worker goes silently: the process ends with an error."""
    async with process("tests.apps.unruly:app") as worker:
        await worker.wait_ready()
        await deployment.send("run.start", workflow="does", input="cancels_everything", run_id="r")
        assert await worker.wait() == 1
        assert "cancelled" in worker.output()


async def test_a_task_of_a_handler_that_exits_does_not_make_it_exit_0(deployment, process):
    """A SystemExit(0) in a task that a handler left goes through the event loop itself."""
    async with process("tests.apps.unruly:app") as worker:
        await worker.wait_ready()
        await deployment.send("run.start", workflow="does", input="leaves_an_exit", run_id="r")
        assert await worker.wait() == 1
        assert "worker_failed" in worker.output()


async def test_row_a_handler_that_forks_and_execs(deployment, process):
    """Row `fork/exec in handler`: children share nothing that the worker would miss."""
    async with process("tests.apps.unruly:app") as worker:
        await worker.wait_ready()
        for number in range(3):
            run_id = f"r{number}"
            await deployment.send("run.start", workflow="does", input="forks", run_id=run_id)
            record = await deployment.until(run_id, "completed")
            assert json.loads(record.run["output"]) == [7, 5]
        worker.terminate()
        assert await worker.wait() == 0


@pytest.mark.parametrize(
    "step", ["leaves_a_task", "leaves_a_thread", "leaves_a_stubborn_task", "is_stubborn"]
)
async def test_what_handlers_leave_behind_does_not_keep_the_process(deployment, process, step):
    """Asked to stop, it stops, with 0: tasks are cancelled, what resists is left, and named."""
    async with process("tests.apps.unruly:app") as worker:
        await worker.wait_ready()
        await deployment.send("run.start", workflow="does", input=step, run_id="r")
        await deployment.until("r")
        worker.terminate()
        assert await worker.wait() == 0
        assert worker.stderr_path.read_text() == ""
        names = [name for line in worker.logs() for name in line.get("names", ())]
        assert names or step == "is_stubborn"
