"""Kinds of poison handlers that take the process down: named, counted, buried; others go on.

The rows are those of the fault table "poison handlers". A local step costs as many workers as it
has attempts; a step of a queue as many as a command may be delivered.
"""

import json
import signal

import pytest
from tests.apps.poison import app
from tests.helpers.deaths import feed_workers
from tests.helpers.forked import ForkedWorker

#: A busy machine keeps a loop waiting, too: far more than that, and far less than for ever.
MAX_BLOCK_MS = 1_500
SETTINGS = {
    "lease_ms": 300,
    "claim_idle_ms": 450,
    "sweep_ms": 20,
    "max_deliveries": 2,
    "queues": ("", "warehouse"),
    "max_block_ms": MAX_BLOCK_MS,
    "warn_block_ms": 300,
}
#: What faulthandler ends a process with whose loop is blocked.
BLOCKED = 1
#: Row -> how the process ends, and the function that standard error names.
ROWS = {
    "infinite_loop": (BLOCKED, "infinite_loop"),
    "long_sleep": (BLOCKED, "long_sleep"),
    "catastrophic_regex": (BLOCKED, "catastrophic_regex"),
    "catastrophic_regex_sync": (BLOCKED, "catastrophic_regex"),
    "endless_arithmetic": (BLOCKED, "endless_arithmetic"),
    "endless_arithmetic_sync": (BLOCKED, "endless_arithmetic"),
    "segfault": (-signal.SIGSEGV, "segfault"),
    "segfault_sync": (-signal.SIGSEGV, "segfault"),
    "abort": (-signal.SIGABRT, "abort"),
    "exits_at_once": (7, ""),
    "closes_everything": (None, ""),
}


@pytest.mark.parametrize("queue", ["", "warehouse"])
@pytest.mark.parametrize("step", ROWS)
async def test_row_that_kills_its_worker(deployment, tmp_path, step, queue):
    """It costs as many workers as it may, its step has failed, and the neighbours complete."""
    code, named = ROWS[step]
    await deployment.send("run.start", workflow="neighbour", input=1, run_id="a")
    workflow = "tries_often" if queue else "tries"
    await deployment.send("run.start", workflow=workflow, input=[step, queue], run_id="r")
    await deployment.send("run.start", workflow="neighbour", input=1, run_id="b")

    async def over():
        return await deployment.status("r") == "completed"

    died = await feed_workers(
        deployment, tmp_path, "tests.apps.poison:app", SETTINGS, over, most=2 if queue else 1
    )

    assert len(died) == (2 if queue else 1)
    for worker in died:
        assert worker.returncode != 0
        assert code is None or worker.returncode == code, worker.tail()
        assert f"in {named}\n" in worker.stderr_path.read_text() or not named, worker.tail()
    async with deployment.worker(app, queues=("", "warehouse")):
        record = await deployment.until("r", "completed")
        for name in "ab":
            await deployment.until(name, "completed")
        await deployment.quiet(dead=1 if queue else 0)
    error = "PoisonStep" if queue else "AttemptLost"
    assert json.loads(record.run["output"]) == ["failed", error]
    assert record.count("lost") == len(died)


@pytest.mark.parametrize("step", ["terminates_itself", "terminates_itself_sync"])
async def test_row_sigterm_to_itself_drains(deployment, tmp_path, step):
    """Row `SIGTERM self`: the step ends, its result is recorded, the process drains and exits 0."""
    async with ForkedWorker(
        "tests.apps.poison:app",
        redis_url=deployment.url,
        prefix=deployment.prefix,
        directory=tmp_path,
        settings=SETTINGS,
    ) as worker:
        await deployment.send("run.start", workflow="tries", input=[step, ""], run_id="r")
        assert await worker.wait() == 0
        assert worker.logs()[-1]["event"] == "worker_stopped"
    async with deployment.worker(app):
        record = await deployment.until("r", "completed")
    assert json.loads(record.run["output"]) == ["done", "terminated"]
    assert record.count("lost") == 0


@pytest.mark.parametrize("step", ["memory_hog", "memory_hog_sync"])
async def test_row_memory_hog_is_a_failed_attempt(deployment, tmp_path, step):
    """Row `memory hog`: where the process has a limit, MemoryError like any other error."""
    async with ForkedWorker(
        "tests.apps.poison:app",
        redis_url=deployment.url,
        prefix=deployment.prefix,
        directory=tmp_path,
        settings=SETTINGS,
    ) as worker:
        await deployment.send("run.start", workflow="tries", input=[step, ""], run_id="r")
        record = await deployment.until("r", "completed")
        await deployment.send("run.start", workflow="neighbour", input=1, run_id="a")
        await deployment.until("a", "completed")
        worker.terminate()
        assert await worker.wait() == 0
    assert json.loads(record.run["output"]) == ["failed", "MemoryError"]
