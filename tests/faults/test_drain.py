"""SIGTERM: nothing new is read, what runs ends, the rest is handed back, the process exits 0."""

import signal
import sys

import anyio
import pytest
from tests.apps.parts import app
from tests.helpers.forked import ForkedWorker
from tests.helpers.waiting import wait_until
from tests.helpers.workers import WorkerProcess

#: Leases that never run out while a test waits: what is handed back is not found by waiting.
LONG = {"lease_ms": 60_000, "claim_idle_ms": 120_000}
LONG_ARGS = ("--lease", "60s", "--claim-idle", "120s")
WORKER = (sys.executable, "-m", "askeld", "worker")


@pytest.fixture
def worker(deployment, tmp_path):
    """Make worker processes."""

    def make(*args, kind=ForkedWorker, of="parts", **options):
        place = {"redis_url": deployment.url, "prefix": deployment.prefix, "directory": tmp_path}
        args = (*LONG_ARGS, *args)
        return kind(f"tests.apps.{of}:app", args=args, **{**place, **options})

    return make


async def consumers(deployment):
    return [
        consumer["name"]
        for consumer in await deployment.client.xinfo_consumers(deployment.stream(), "askeld")
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_an_idle_worker_leaves_without_a_trace(deployment, worker, number):
    """Exit 0, two lines of log, none on standard error; its name is gone from Redis."""
    async with worker(kind=WorkerProcess) as process:
        await process.wait_ready()
        await wait_until(lambda: consumers(deployment))
        process._signal(number)
        assert await process.wait() == 0
        events = [line["event"] for line in process.logs()]
    assert events[-2:] == ["worker_draining", "worker_stopped"]
    assert process.stderr_path.read_text() == ""
    assert await consumers(deployment) == []


async def test_an_idle_worker_leaves_long_before_its_read_ends(deployment, worker):
    """The read is woken, not waited for: it would block for ten minutes."""
    async with worker(settings={"block_ms": 600_000}) as process:
        await process.wait_ready()
        await wait_until(lambda: consumers(deployment))
        process.terminate()
        assert await process.wait() == 0


async def test_a_running_handler_ends_and_its_result_is_recorded(deployment, worker, tmp_path):
    """The drain waits for it; the next step is begun elsewhere, at once."""
    gate = tmp_path / "gate"
    async with worker() as process:
        await deployment.send("run.start", workflow="waits", input=str(gate), run_id="r")
        await deployment.until_step("r", "gate", "running")
        process.terminate()
        await process.wait_log("worker_draining", in_work=1)
        gate.touch()
        assert await process.wait() == 0
        assert (await deployment.step("r", "gate"))["status"] == "succeeded"
        assert await deployment.step("r", "after") == {}
        assert "owner" not in (await deployment.record("r")).ctl
    async with deployment.worker(app, **LONG):
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert record.path("gate") == ["running 1", "succeeded 1"]


async def test_a_running_queue_step_ends_and_its_result_is_recorded(deployment, worker, tmp_path):
    """A step command that was begun is completed by who began it."""
    gate = tmp_path / "gate"
    async with worker("--queue", "warehouse") as process:
        await deployment.send("run.create", workflow="w", run_id="d")
        await deployment.until("d", "running")
        step = {"run_id": "d", "step_name": "s", "rpc_name": "wait_for_file", "data": str(gate)}
        await deployment.send("step.execute", "warehouse", **step)
        await deployment.until_step("d", "s", "running")
        process.terminate()
        await process.wait_log("worker_draining")
        # Sent now, it is for others.
        await deployment.send("run.signal", run_id="d", name="late")
        gate.touch()
        assert await process.wait() == 0
    assert (await deployment.step("d", "s"))["status"] == "succeeded"
    assert await deployment.client.xlen(deployment.stream()) == 1
    async with deployment.worker(app, **LONG):
        await deployment.quiet()


async def test_what_was_read_but_not_begun_is_handed_back_at_once(deployment, worker):
    """Commands that wait for something go to another worker now, not when a lease runs out."""
    lock = f"{deployment.prefix}:lock:r0"
    async with worker() as process:
        await process.wait_ready()
        await deployment.client.set(lock, "somebody", px=60_000)
        await deployment.send("run.start", workflow="one_step", run_id="r0")
        await deployment.send("run.start", workflow="no_such", run_id="r1")
        await deployment.send("run.signal", run_id="not-yet", name="n")

        async def all_read():
            (group,) = await deployment.client.xinfo_groups(deployment.stream())
            return group["pending"] == 3

        await wait_until(all_read)
        process.terminate()
        assert await process.wait() == 0
    (group,) = await deployment.client.xinfo_groups(deployment.stream())
    assert group["pending"] == 0
    await deployment.client.delete(lock)
    async with deployment.worker(app, **LONG, not_found_after_ms=1, unknown_after_ms=1):
        await deployment.until("r0", "completed")
        letters = await deployment.dead_letters(2)
        await deployment.quiet(dead=2)
    assert {letter["reason"] for letter in letters} == {"unknown_workflow", "run_not_found"}


@pytest.mark.parametrize("workflow", ["foreign", "rests"])
async def test_a_waiting_run_is_handed_back(deployment, worker, workflow):
    """A run that only lingers in memory is given up: whoever is there next drives it."""
    async with worker("--linger", "1h") as process:
        await deployment.send("run.start", workflow=workflow, input="300ms", run_id="r")
        name = "pack" if workflow == "foreign" else "rest"
        await deployment.until_step("r", name, "scheduled")
        process.terminate()
        assert await process.wait() == 0
    record = await deployment.until("r", "running")
    assert "owner" not in record.ctl
    assert record.lock is None
    await deployment.client.delete(deployment.stream("rust"))
    async with deployment.worker(app, **LONG):
        if workflow == "foreign":
            answer = {"run_id": "r", "step_name": "pack", "attempt": 1, "result": 1}
            await deployment.send("step.complete", **answer)
        await deployment.until("r", "completed")
        await deployment.quiet()


@pytest.mark.parametrize("queue", ["", "warehouse"])
async def test_a_handler_that_does_not_end_in_time_is_given_up(deployment, worker, tmp_path, queue):
    """After the drain's time its work is handed back, and the process exits 0 all the same."""
    gate = tmp_path / "gate"
    async with worker("--queue", "warehouse", "--drain-timeout", "100ms") as process:
        step = {"run_id": "r", "step_name": "gate", "rpc_name": "wait_for_file"}
        if queue:
            await deployment.send("run.create", workflow="w", run_id="r")
            await deployment.until("r", "running")
            await deployment.send("step.execute", queue, **step, data=str(gate))
        else:
            await deployment.send("run.start", workflow="waits", input=str(gate), run_id="r")
        await deployment.until_step("r", "gate", "running")
        process.terminate()
        assert await process.wait() == 0
        assert [line["event"] for line in process.logs()].count("drain_timed_out") == 1
    gate.touch()
    async with deployment.worker(app, **LONG, queues=("", "warehouse")):
        await deployment.until_step("r", "gate", "succeeded")
        if queue:
            await deployment.send("run.complete", run_id="r")
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert record.path("gate") == ["running 1", "lost 1", "running 2", "succeeded 2"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_second_signal_ends_the_process_now(deployment, worker, tmp_path, number):
    """Row `SIGTERM twice / SIGINT / SIGHUP`: 128 and the signal; and nothing is lost by it."""
    gate = tmp_path / "gate"
    async with worker() as process:
        await deployment.send("run.start", workflow="waits", input=str(gate), run_id="r")
        await deployment.until_step("r", "gate", "running")
        process.terminate()
        await process.wait_log("worker_draining")
        process._signal(number)
        assert await process.wait() == 128 + number
    gate.touch()
    async with deployment.worker(app, lease_ms=100, claim_idle_ms=150):
        record = await deployment.until("r", "completed")
        await deployment.quiet()
    assert record.path("gate") == ["running 1", "lost 1", "running 2", "succeeded 2"]


async def test_a_hang_up_that_is_ignored_stays_ignored(deployment, worker):
    """Under nohup the worker outlives its terminal."""
    async with worker(kind=WorkerProcess, command=["nohup", *WORKER]) as process:
        await process.wait_ready()
        process._signal(signal.SIGHUP)
        await deployment.send("run.start", workflow="one_step", input=1, run_id="r")
        await deployment.until("r", "completed")
        process.terminate()
        assert await process.wait() == 0


async def test_what_was_read_is_begun_elsewhere_while_a_step_still_runs(
    deployment, worker, tmp_path
):
    """Handed back at the beginning of the drain, not at its end; not ready from then on."""
    gate = tmp_path / "gate"
    lock = f"{deployment.prefix}:lock:r0"
    async with worker() as process:
        await deployment.send("run.start", workflow="waits", input=str(gate), run_id="busy")
        await deployment.until_step("busy", "gate", "running")
        await deployment.client.set(lock, "somebody", px=60_000)
        await deployment.send("run.start", workflow="one_step", run_id="r0")

        async def read():
            (group,) = await deployment.client.xinfo_groups(deployment.stream())
            return group["pending"] == 2

        await wait_until(read)
        async with deployment.worker(app, **LONG):
            process.terminate()
            await process.wait_log("worker_draining")
            await deployment.client.delete(lock)
            await deployment.until("r0", "completed")
            assert process.returncode is None, "its own step still runs"
            assert (await deployment.step("busy", "gate"))["status"] == "running"
            gate.touch()
            assert await process.wait() == 0
            record = await deployment.until("busy", "completed")
            await deployment.quiet()
    assert record.count("lost") == 0


async def test_renewal_goes_on_until_the_last_step_has_ended(deployment, worker, tmp_path):
    """A drain may last many leases: what still runs is not taken over by those who look for it."""
    gate = tmp_path / "gate"
    leases = {"lease_ms": 300, "claim_idle_ms": 600, "sweep_ms": 30}
    async with worker(settings=leases) as process:
        await deployment.send("run.start", workflow="waits", input=str(gate), run_id="r")
        await deployment.until_step("r", "gate", "running")
        process.terminate()
        await process.wait_log("worker_draining")
        async with deployment.worker(app, **leases) as other:
            deadline = anyio.current_time() + 4 * leases["claim_idle_ms"] / 1_000
            # It is the time that is tested: several times that after which dead work is taken.
            await wait_until(lambda: anyio.current_time() > deadline)
            assert process.returncode is None
            assert other.logged("entry_reclaimed") == []
            gate.touch()
            assert await process.wait() == 0
            record = await deployment.until("r", "completed")
            await deployment.quiet()
    assert record.path("gate") == ["running 1", "succeeded 1"]


@pytest.mark.parametrize("kind", ["swallows_cancellation", "swallows_cancellation_sync"])
async def test_a_handler_that_swallows_its_cancellation_does_not_keep_the_process(
    deployment, worker, kind
):
    """Row `swallow-cancel loop`: given up when the drain's time is over; exit 0, step re-run."""
    settings = {
        "drain_ms": 100,
        "cancel_grace_ms": 100,
        "lease_ms": 60_000,
        "claim_idle_ms": 120_000,
    }
    async with worker(of="poison", settings=settings) as process:
        await process.wait_ready()
        await deployment.send("run.start", workflow="endures", input=kind, run_id="r")
        await deployment.until_step("r", "it", "running")
        process.terminate()
        assert await process.wait() == 0
        assert len([x for x in process.logs() if x["event"] == "handler_abandoned"]) == 1
    assert process.stderr_path.read_text() == ""


async def test_a_worker_under_load_drains_and_everything_completes(deployment, worker, tmp_path):
    """Stopped in the middle of many runs: the next worker ends them, and no attempt was lost."""
    gate = tmp_path / "gate"
    held = [f"h{number}" for number in range(10)]
    names = [*held, *(f"r{number}" for number in range(30))]
    for name in names:
        workflow, given = ("waits", str(gate)) if name in held else ("journey", name)
        await deployment.send("run.start", workflow=workflow, input=given, run_id=name)
    async with worker("--queue", "warehouse") as process:
        for name in held:
            await deployment.until_step(name, "gate", "running")
        process.terminate()
        await process.wait_log("worker_draining")
        gate.touch()
        assert await process.wait() == 0
    for name in held:
        assert (await deployment.step(name, "gate"))["status"] == "succeeded"
        assert await deployment.status(name) == "running"
    async with deployment.worker(app, **LONG, queues=("", "warehouse")):
        lost = 0
        for name in names:
            lost += (await deployment.until(name, "completed")).count("lost")
        await deployment.quiet()
    assert lost == 0


async def test_a_worker_that_has_lost_its_redis_can_be_stopped(deployment, worker, proxy):
    """It does not wait for what does not come back; exit 0, with nothing on standard error."""
    async with worker(redis_url=proxy.url) as process:
        await process.wait_ready()
        proxy.refuse_connections()
        proxy.drop_connections()
        await process.wait_log("read_interrupted")
        process.terminate()
        assert await process.wait() == 0
    assert process.stderr_path.read_text() == ""
