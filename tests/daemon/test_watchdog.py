"""A handler that blocks the event loop: named while it does, and ended when it does for good."""

import os

import pytest
from tests.helpers.forked import ForkedWorker
from tests.helpers.waiting import wait_until
from tests.helpers.workers import WorkerProcess

BLOCKS_AT = "tests/apps/parts.py"


@pytest.fixture
def worker(deployment, tmp_path):
    """Make worker processes."""

    def make(*args, kind=ForkedWorker, of="parts", **options):
        place = {"redis_url": deployment.url, "prefix": deployment.prefix, "directory": tmp_path}
        return kind(f"tests.apps.{of}:app", args=args, **place, **options)

    return make


async def test_row_blocked_loop_is_warned_of_with_the_guilty_line(deployment, worker):
    """While the handler blocks: run, step, and the line of the application that it stands at."""
    async with worker("--warn-block", "200ms") as process:
        await process.wait_ready()
        await deployment.send("run.start", workflow="blocks_in", input=["", 1.5], run_id="r")
        warned = await process.wait_log("loop_blocked")
        freed = await process.wait_log("loop_moves_again")
        record = await deployment.until("r", "completed")
    assert warned["level"] == "warning"
    assert (warned["run_id"], warned["step"], warned["attempt"]) == ("r", "it", 1)
    file, _, rest = warned["at"].rpartition(":")
    assert file.endswith(BLOCKS_AT)
    assert rest.endswith(" in block")
    assert warned["stack"] == [warned["at"]], "what is ours is left out"
    assert warned["blocked_ms"] >= 200
    assert freed["blocked_ms"] >= warned["blocked_ms"]
    assert record.count("lost") == 0


async def test_workflow_code_that_blocks_is_named_too(deployment, worker):
    """It is no step: the run says whose it is."""
    async with worker("--warn-block", "200ms", of="poison") as process:
        await process.wait_ready()
        await deployment.send("run.start", workflow="computes", input=1, run_id="r")
        warned = await process.wait_log("loop_blocked")
        await deployment.until("r", "completed")
    assert warned["run_id"] == "r"
    assert "step" not in warned
    assert warned["at"].endswith(" in computes")


async def test_a_loop_that_is_not_blocked_is_not_warned_of(deployment, worker):
    """Work as usual says nothing."""
    async with worker("--warn-block", "2s") as process:
        await deployment.send("run.start", workflow="journey", input=1, run_id="r", queue="")
        await process.wait_ready()
        await deployment.send("run.start", workflow="one_step", input=1, run_id="s")
        await deployment.until("s", "completed")
        assert "loop_blocked" not in process.output()


async def test_row_loop_blocked_for_good_ends_the_process(deployment, worker):
    """The log says what is coming, standard error shows where, the exit code is not 0."""
    options = ("--max-block", "1500ms", "--warn-block", "300ms")
    async with worker(*options, kind=WorkerProcess, of="poison") as process:
        await process.wait_ready()
        what = ["long_sleep", ""]
        await deployment.send("run.start", workflow="tries", input=what, run_id="r")
        assert await process.wait() == 1
        said = await process.wait_log("loop_blocked_too_long")
    assert said["level"] == "error"
    assert " in long_sleep" in said["at"]
    shown = process.stderr_path.read_text()
    assert shown.startswith("Timeout (0:00:01.5")
    assert "in long_sleep" in shown


async def test_no_limit_means_none(deployment, worker, tmp_path):
    """0: a developer's debugger may stop the loop for as long as they like."""
    async with worker("--max-block", "0s", "--warn-block", "100ms") as process:
        await process.wait_ready()
        await deployment.send("run.start", workflow="blocks_in", input=["", 1], run_id="r")
        await process.wait_log("loop_blocked")
        await deployment.until("r", "completed")
        process.terminate()
        assert await process.wait() == 0
    assert process.stderr_path.read_text() == ""


async def test_a_process_that_stood_still_is_not_called_blocked(deployment, worker):
    """Row `SIGSTOP`: the loop did nothing wrong; what is said is that all stood still."""
    options = ("--warn-block", "300ms", "--max-block", "60s")
    async with worker(*options) as process:
        await process.wait_ready()
        process.pause()
        await wait_until(lambda: _is_stopped(process.pid))
        await deployment.send("run.start", workflow="one_step", input=1, run_id="r")
        # For longer than the limit: that is what is tested.
        await wait_until(_after(1.0))
        process.resume()
        said = await process.wait_log("process_stalled")
        await deployment.until("r", "completed")
        assert "loop_blocked" not in process.output()
    assert said["stalled_ms"] >= 300


def _is_stopped(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()[0] == "T"


def _after(seconds):
    """Return what holds when so much time has passed."""
    began = os.times().elapsed
    return lambda: os.times().elapsed - began >= seconds
