"""Inline mode when something goes wrong around it: the store, the lock, other programs."""

import asyncio

import anyio
import pytest
from tests.helpers.history_checker import check_run
from tests.helpers.waiting import wait_until
from tests.state.world import World

from askel import (
    App,
    LockLostError,
    LockNotAcquiredError,
    RedisWorkflowService,
    RegistrationError,
    Run,
    RunExistsError,
    RunFailedError,
    RunNotFoundError,
    StepContext,
    StoreReplyError,
    StoreUnavailableError,
)
from askel.state import started_body

pytestmark = pytest.mark.usefixtures("server")

app = App("faults")
gates: dict[str, asyncio.Event] = {}
entered: dict[str, asyncio.Event] = {}
hooks: dict[str, object] = {}


@pytest.fixture(autouse=True)
def gate():
    """What the step `wait` waits for."""
    gates["r"], entered["r"] = asyncio.Event(), asyncio.Event()
    hooks.clear()
    return gates["r"]


@pytest.fixture
async def other(redis_url, prefix):
    """The service of another process."""
    service = RedisWorkflowService(redis_url, key_prefix=prefix)
    yield service
    await service.close()


@pytest.fixture
def short_lease(monkeypatch):
    monkeypatch.setattr("askel.workflow.inline.LEASE_MS", 300)


@app.step(retries=1, retry_delay=0)
async def wait(ctx: StepContext) -> str:
    entered["r"].set()
    await gates["r"].wait()
    return f"own {ctx.attempt}"


@app.step(retries=0)
async def note(text: str) -> str:
    return text


@app.workflow
async def waits(run: Run) -> str:
    first = await run.do("wait", wait)
    return await run.do("note", note, f"after {first}")


async def begun(service, workflow=waits):
    """Start a run whose first step waits."""
    task = asyncio.create_task(app.start(service, workflow, run_id="r"))
    await wait_until(entered["r"].is_set)
    return task


# The store.


async def test_refusal_of_the_store_is_raised_as_it_is(service, monkeypatch):
    run_script = service.scripts.run

    async def refuse(name, keys, args):
        if name == "turn":
            raise StoreReplyError("NOPERM this user may not")
        return await run_script(name, keys, args)

    monkeypatch.setattr(service.scripts, "run", refuse)
    with pytest.raises(StoreReplyError, match="NOPERM"):
        await app.start(service, waits, run_id="r")


async def test_server_that_is_not_there_is_said_when_patience_ends(prefix):
    service = RedisWorkflowService("redis://127.0.0.1:1", key_prefix=prefix, resend_s=0.05)

    with anyio.fail_after(5), pytest.raises(StoreUnavailableError):
        await app.start(service, waits, run_id="r")
    with anyio.fail_after(5), pytest.raises(StoreUnavailableError):
        await app.resume(service, "r")
    await service.close()


async def test_run_outlasts_lost_replies_and_short_absences(distant, proxy, redis, prefix, gate):
    task = await begun(distant)
    rule = proxy.lose_next_reply(b"EVALSHA", times=2)
    gate.set()
    await task

    assert rule.hits == 2
    record = await check_run(redis, prefix, "r")
    assert record.path("wait") == ["running 1", "succeeded 1"]


# The caller.


async def test_cancelled_start_lets_another_go_on_at_once(service, other, redis, prefix, gate):
    task = await begun(service)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()

    assert await app.resume(other, "r") == "r"
    record = await check_run(redis, prefix, "r")
    assert record.path("wait") == ["running 1", "lost 1", "running 2", "succeeded 2"]
    assert (await service.get_run("r")).output == "after own 2"


async def test_timeout_of_the_caller_ends_the_start(service, redis, keys):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await app.start(service, waits, run_id="r")
    assert await redis.get(keys.lock("r")) is None
    assert (await service.get_run("r")).status == "running"


# Other programs.


async def test_run_is_started_once(service, other, gate):
    gate.set()
    outcomes = await asyncio.gather(
        app.start(service, waits, run_id="r"),
        app.start(other, waits, run_id="r"),
        return_exceptions=True,
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["RunExistsError", "str"]
    with pytest.raises(RunExistsError):
        await app.start(service, waits, run_id="r")


async def test_run_that_is_driven_cannot_be_resumed(service, other, gate):
    task = await begun(service)

    with pytest.raises(LockNotAcquiredError):
        await app.resume(other, "r")
    gate.set()
    await task


async def test_step_that_another_program_settles_is_settled(service, other, redis, prefix, gate):
    task = await begun(service)
    state = await other.get_step_state("r", "wait")
    await other.set_step_result(state.step_id, "theirs")
    gate.set()
    await task

    assert (await service.get_run("r")).output == "after theirs"
    record = await check_run(redis, prefix, "r")
    assert record.path("wait") == ["running 1", "succeeded 1"]


async def test_attempt_that_another_program_takes_over_is_theirs_to_end(
    service, other, redis, prefix, gate, short_lease
):
    task = await begun(service)
    state = await other.get_step_state("r", "wait")
    await other.set_step_error(state.step_id, ValueError("theirs"))
    await other.create_retry_attempt(state.step_id, "running")
    gate.set()
    await other.set_step_result(state.step_id, "theirs")

    with anyio.fail_after(10):
        await task
    assert (await service.get_run("r")).output == "after theirs"
    record = await check_run(redis, prefix, "r")
    assert record.path("wait") == ["running 1", "failed 1", "running 2", "succeeded 2"]


async def test_run_that_another_program_cancels_ends_cancelled(service, other, redis, keys, gate):
    task = await begun(service)
    await other.update_run_status("r", "cancelled", error=ValueError("no stock"))
    gate.set()

    with pytest.raises(RunFailedError, match="run 'r' ended cancelled: no stock"):
        await task
    assert await redis.get(keys.lock("r")) is None


async def test_cancelled_run_is_noticed_while_its_step_still_works(service, other, short_lease):
    task = await begun(service)
    await other.update_run_status("r", "cancelled")

    with anyio.fail_after(10), pytest.raises(RunFailedError, match="ended cancelled"):
        await task


async def test_suspended_run_waits_and_goes_on(service, other, redis, prefix, gate, short_lease):
    task = await begun(service)
    await other.update_run_status("r", "suspended")
    gate.set()
    await wait_until(lambda: settled(other, "wait"))
    assert [a.step_name for a in await other.get_run_history("r")] == ["wait"]
    await other.update_run_status("r", "running")

    with anyio.fail_after(10):
        await task
    await check_run(redis, prefix, "r")
    assert (await service.get_run("r")).output == "after own 1"


async def settled(service, name):
    return (await service.get_step_state("r", name)).status == "succeeded"


async def test_lock_that_another_takes_ends_the_start(
    service, other, redis, keys, gate, short_lease
):
    task = await begun(service)
    await redis.set(keys.lock("r"), "another", px=60_000)

    with anyio.fail_after(10), pytest.raises(LockLostError):
        await task
    assert await redis.get(keys.lock("r")) == b"another"
    gate.set()


async def test_lock_is_renewed_for_as_long_as_the_run_lasts(service, other, gate, short_lease):
    task = await begun(service)
    for _ in range(3):
        with pytest.raises(LockNotAcquiredError):
            async with other.run_lock("r", wait="250ms"):
                pytest.fail("the run's owner has lost its lock")
    gate.set()
    await task


# Resuming.


async def test_run_that_has_ended_is_left_as_it_is(service, redis, prefix, gate):
    gate.set()
    await app.start(service, waits, run_id="r")
    before = await service.get_history_entries("r")

    assert await app.resume(service, "r") == "r"
    assert await service.get_history_entries("r") == before


@app.workflow
async def fails(run: Run) -> None:
    raise ValueError("broken")


async def test_run_that_has_failed_says_so_again(service):
    for call in (lambda: app.start(service, fails, run_id="r"), lambda: app.resume(service, "r")):
        with pytest.raises(RunFailedError, match="ended failed: broken"):
            await call()


async def test_unknown_run_cannot_be_resumed(service):
    with pytest.raises(RunNotFoundError):
        await app.resume(service, "nobody")


async def test_run_of_daemons_cannot_be_resumed(redis, service, keys):
    world = World(redis, service.connection, keys)
    entry = await world.entry("type", "run.start")
    await world.activations.start(entry, "own", "r", "waits", b"null", started_body("waits"))

    with pytest.raises(RegistrationError, match="driven by daemons; nothing needs to resume it"):
        await app.resume(service, "r")


async def test_run_whose_workflow_is_not_here_is_left_to_others(service, other, gate):
    task = await begun(service)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    gate.set()

    with pytest.raises(
        RegistrationError, match=r"app 'empty' has no workflow 'waits' \(it has: none\)"
    ):
        await App("empty").resume(other, "r")
    assert await app.resume(service, "r") == "r"


async def test_unknown_workflow_is_not_even_created(service):
    with pytest.raises(RegistrationError, match="has no workflow 'nothing'"):
        await app.start(service, "nothing", run_id="r")
    assert await service.get_run("r") is None


@app.workflow
async def needs_more(run: Run) -> list[str]:
    return await run.gather(run.do("wait", wait, retries=0), run.do("more", "moreSteps"))


async def test_stalled_run_goes_on_when_its_code_is_back(service, redis, prefix, gate):
    with pytest.raises(RunFailedError, match="stalled: step 'more' needs 'moreSteps'"):
        await app.start(service, needs_more, run_id="r")
    assert await service.get_run_history("r") == []  # nothing was begun in vain
    gate.set()

    richer = App("richer")
    richer.step(retries=1, retry_delay=0, name="wait")(wait)
    richer.step(name="moreSteps")(note_nothing)
    richer.workflow(name="needs_more")(needs_more_here)
    with anyio.fail_after(10):
        assert await richer.resume(service, "r") == "r"
    assert (await service.get_run("r")).output == ["own 1", "more"]
    await check_run(redis, prefix, "r")


async def note_nothing() -> str:
    return "more"


async def needs_more_here(run: Run) -> list[str]:
    return await run.gather(run.do("wait", "wait", retries=0), run.do("more", "moreSteps"))


async def test_run_still_stalled_says_so_again(service):
    for call in (
        lambda: app.start(service, needs_more, run_id="r"),
        lambda: app.resume(service, "r"),
    ):
        with (
            anyio.fail_after(10),
            pytest.raises(RunFailedError, match="ended stalled: step 'more' needs"),
        ):
            await call()


@app.workflow
async def stalls_later(run: Run) -> list[str]:
    async def later() -> str:
        await run.do("note", note, "x")
        return await run.do("more", "moreSteps")

    return await run.gather(run.do("wait", wait, retries=0), later())


async def test_stalling_lets_running_attempts_end(service, gate):
    task = asyncio.create_task(app.start(service, stalls_later, run_id="r"))
    await wait_until(entered["r"].is_set)
    await wait_until(lambda: noted(service))
    assert not task.done()
    gate.set()

    with anyio.fail_after(10), pytest.raises(RunFailedError, match="stalled"):
        await task
    assert (await service.get_step_state("r", "wait")).status == "succeeded"


async def noted(service):
    names = {a.step_name: str(a.status) for a in await service.get_run_history("r")}
    return names.get("note") == "succeeded"


async def test_run_that_kills_its_process_again_and_again_is_given_up(service, redis, keys, gate):
    task = await begun(service)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await redis.hset(keys.ctl("r"), "robbed", 5)

    with pytest.raises(RunFailedError):
        await app.resume(service, "r")
    assert (await service.get_run("r")).status == "running"
