"""Input and handlers that mean harm: one run suffers, the daemon and the others go on."""

import json
from typing import Any

import msgspec
import structlog
from tests.helpers.waiting import wait_until

from askel import App, Run

app = App("hostile")


class BadCodeError(Exception):
    """An error whose code cannot be shown."""

    code: Any = 10**5000


@app.step(retries=0)
async def raises_bad_code(data: Any) -> None:
    """Raise it."""
    raise BadCodeError(data)


@app.step(retries=0)
async def returns_garbage(data: Any) -> Any:
    """Return text that is passed on as JSON, and is none."""
    return msgspec.Raw(b"}{" + str(data).encode())


@app.step
async def fine(data: Any) -> Any:
    """Return what it is given."""
    return data


@app.workflow
async def bad_code(run: Run) -> None:
    await run.do("s", raises_bad_code, 1)


@app.workflow
async def bad_code_in_workflow(run: Run) -> None:
    raise BadCodeError


@app.workflow
async def garbage(run: Run) -> None:
    await run.do("s", returns_garbage, 1)


@app.workflow
async def good(run: Run) -> int:
    return await run.do("s", fine, 1)


async def test_an_entry_too_wide_for_a_script_is_kept_whole(deployment):
    words = [word for n in range(4_500) for word in (f"f{n}", "v")]
    await deployment.client.execute_command("XADD", deployment.stream(), "*", *words)
    async with deployment.worker(app) as worker:
        (letter,) = await deployment.dead_letters(1)
        await deployment.send("run.start", workflow="good", run_id="after")
        await deployment.until("after", "completed")
        assert not worker.ended.is_set()
    assert letter["reason"] == "invalid_command"
    assert json.loads(letter["fields"]) == words


async def test_a_timer_too_wide_for_a_script_stops_nothing(deployment):
    member = json.dumps(["", *["a"] * 9_000])
    await deployment.client.zadd(f"{deployment.prefix}:timers", {member: 1})
    async with deployment.worker(app) as worker:
        await deployment.dead_letters(1)
        await deployment.send("run.start", workflow="good", run_id="after")
        await deployment.until("after", "completed")
        assert not worker.ended.is_set()


async def test_errors_that_cannot_be_shown_fail_their_runs_and_nothing_else(deployment):
    async with deployment.worker(app) as worker:
        for workflow in ("bad_code", "bad_code_in_workflow", "garbage"):
            await deployment.send("run.start", workflow=workflow, run_id=workflow)
        for workflow in ("bad_code", "bad_code_in_workflow", "garbage"):
            await deployment.until(workflow, "failed")
        await deployment.send("run.start", workflow="good", run_id="after")
        await deployment.until("after", "completed")
        assert not worker.ended.is_set()


async def test_commands_that_wait_hold_no_slot(deployment):
    await deployment.send("run.create", workflow="w", run_id="held")
    async with deployment.worker(app, concurrency=3):
        await deployment.until("held", "running")
        await deployment.send("run.suspend", run_id="held")
        await deployment.until("held", "suspended")
        for n in range(8):
            await deployment.send("step.execute", run_id="held", step_name=f"s{n}", rpc_name="fine")
        await deployment.send("run.start", workflow="good", run_id="other")
        await deployment.until("other", "completed")
        await deployment.send("run.resume", run_id="held")
        for n in range(8):
            await deployment.until_step("held", f"s{n}", "succeeded")


async def test_a_step_key_of_another_type_stalls_its_run_alone(deployment):
    await deployment.client.set(f"{deployment.prefix}:step:hurt:s", "junk")
    async with deployment.worker(app) as worker:
        await deployment.send("run.start", workflow="good", run_id="hurt")
        await deployment.until("hurt", "stalled")
        await deployment.send("run.start", workflow="good", run_id="after")
        await deployment.until("after", "completed")
        assert not worker.ended.is_set()
        await deployment.client.delete(f"{deployment.prefix}:step:hurt:s")
        await deployment.send("run.resume", run_id="hurt")
        await deployment.until("hurt", "completed")


async def test_a_second_completion_with_another_output_is_refused(deployment):
    async with deployment.worker(app):
        await deployment.send("run.create", workflow="w", run_id="d")
        await deployment.until("d", "running")
        await deployment.send("run.complete", run_id="d", output=1)
        await deployment.until("d", "completed")
        await deployment.send("run.complete", run_id="d", output=2)
        (letter,) = await deployment.dead_letters(1)
        assert letter["reason"] == "illegal_transition"


async def test_a_signal_sent_again_after_the_end_is_the_same_signal(deployment):
    async with deployment.worker(app) as worker:
        await deployment.send("run.create", workflow="w", run_id="d")
        await deployment.until("d", "running")
        await deployment.send("run.signal", run_id="d", name="n", id="S1")
        await wait_until(lambda: deployment.client.hexists(f"{deployment.prefix}:ctl:d", "id:S1"))
        await deployment.send("run.complete", run_id="d", output=1)
        await deployment.until("d", "completed")
        await deployment.send("run.signal", run_id="d", name="n", id="S1")
        await deployment.quiet()
        assert not worker.logged("command_dead_lettered")


def test_tracebacks_in_logs_show_no_values():
    from askeld.observability import _TRACEBACKS  # noqa: PLC0415

    secret = "s3cr3t"
    try:
        int(f"x{len(secret)}")
    except ValueError as error:
        shown = _TRACEBACKS(structlog.get_logger(), "error", {"exc_info": error})
    assert secret not in json.dumps(shown, default=str)
