"""A start for a run id that is taken: its next generation, and what is left of the one before."""

import anyio
import pytest
from tests.apps.parts import app
from tests.helpers.history_checker import check_all
from tests.helpers.waiting import wait_until

from askel import (
    Client,
    ConflictError,
    RedisWorkflowService,
    RunExistsError,
    WaitTimeoutError,
)


async def start(deployment, if_exists, input=1, workflow="one_step", **fields):
    given = {"workflow": workflow, "input": input, "run_id": "r", **fields}
    await deployment.send("run.start", **given, if_exists=if_exists)


async def generation(deployment, number):
    """Wait until run r is of this generation."""

    async def there():
        value = await deployment.client.hget(f"{deployment.prefix}:run:r", "generation")
        return int(value or 1) == number

    await wait_until(there)


async def test_after_terminal_runs_the_workflow_anew(deployment):
    """The former run stays whole under its own id; both histories hold."""
    async with deployment.worker(app):
        await start(deployment, "after-terminal", 1)
        await deployment.until("r", "completed")
        await start(deployment, "after-terminal", 2)
        await generation(deployment, 2)
        await deployment.until("r", "completed")
        await deployment.quiet(dead=0)
    assert sorted(await deployment.runs()) == ["r", "r.g1"]
    records = {r.run["id"]: r for r in await check_all(deployment.client, deployment.prefix)}
    assert records["r.g1"].run["input"] == "1"
    assert records["r"].run["input"] == "2"
    assert records["r"].entries[0]["previous"] == "r.g1"


async def test_after_terminal_is_refused_while_the_run_lives(deployment, tmp_path):
    """It waits for nothing: whoever sent it sees it among the dead letters."""
    gate = tmp_path / "gate"
    async with deployment.worker(app):
        await start(deployment, "reject", str(gate), "waits")
        await wait_until((tmp_path / "gate.begun").exists)
        await start(deployment, "after-terminal", str(gate), "waits")
        (letter,) = await deployment.dead_letters()
        assert letter["reason"] == "run_exists"
        gate.touch()
        await deployment.until("r", "completed")
        await deployment.quiet(dead=1)


async def test_terminate_existing_ends_what_is_executed_and_starts_anew(deployment, tmp_path):
    """The step of the former generation is abandoned; its result lands nowhere."""
    gate = tmp_path / "gate"
    async with deployment.worker(app) as worker:
        await start(deployment, "reject", str(gate), "waits")
        await wait_until((tmp_path / "gate.begun").exists)
        await start(deployment, "terminate-existing", 2)
        await generation(deployment, 2)
        record = await deployment.until("r", "completed")
        gate.touch()
        await deployment.quiet(dead=0)
        assert not worker.logged("run_ended", run_id="r", status="failed")
    assert record.run["workflow"] == "one_step"
    assert await deployment.status("r.g1") == "cancelled"


async def test_timer_of_a_former_generation_ends_no_sleep_of_the_next(deployment):
    """Both sleep under the same name: the second one sleeps as long as it says."""
    async with deployment.worker(app):
        await start(deployment, "reject", "400ms", "rests")
        await wait_until(lambda: deployment.client.zcard(f"{deployment.prefix}:timers"))
        await start(deployment, "terminate-existing", "900ms", "rests")
        await generation(deployment, 2)
        record = await deployment.until("r", "completed")
        await deployment.quiet(dead=0)
    slept = [e["at"] for e in record.entries if e["t"] == "step"]
    assert slept[-1] - slept[0] >= 900


@pytest.mark.parametrize("if_exists", ["after-terminal", "terminate-existing"])
async def test_start_with_an_id_sent_again_begins_no_further_generation(deployment, if_exists):
    """The id of a command is remembered as long as its run, whatever the policy."""
    async with deployment.worker(app):
        for _ in range(2):
            await start(deployment, if_exists, id="order-42")
            await deployment.until("r", "completed")
        await deployment.quiet(dead=0)
    assert await deployment.runs() == ["r"]


@pytest.mark.parametrize("if_exists", ["reject", "after-terminal", "terminate-existing"])
async def test_late_copy_of_a_start_is_known_to_later_generations(deployment, tmp_path, if_exists):
    """It neither takes the place of a run that was started after it nor executes anything anew."""
    gate = tmp_path / "gate"
    async with deployment.worker(app):
        for number in range(5):
            await start(deployment, "after-terminal", number, id=f"order {number}")
            await generation(deployment, number + 1)
            await deployment.until("r", "completed")
        await start(deployment, "after-terminal", str(gate), "waits", id="order 5")
        await generation(deployment, 6)
        await deployment.until_step("r", "gate", "running")
        for number in range(5):
            await start(deployment, if_exists, number, id=f"order {number}")
        await start(deployment, if_exists, str(gate), "waits", id="order 5")

        async def all_settled():
            return await deployment.client.xlen(deployment.stream()) == 1  # the token of the run

        await wait_until(all_settled)
        gate.touch()
        await deployment.until("r", "completed")
        await deployment.quiet(dead=0)
    assert sorted(await deployment.runs()) == ["r", *(f"r.g{n}" for n in range(1, 6))]


async def test_commands_that_waited_are_not_applied_to_the_next_run_of_the_id(
    deployment, redis_url, prefix
):
    """Sent to a run that was deleted, or gave way, before any worker read them."""
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as service:
        for run_id in ("deleted", "replaced"):
            await service.create_run("w", 1, run_id=run_id)
            step = {"step_name": "s", "rpc_name": "echo", "data": "old"}
            await deployment.send("step.execute", run_id=run_id, **step)
            await deployment.send("run.signal", run_id=run_id, name="go")
            await deployment.send("run.complete", run_id=run_id, output="old")
            await deployment.send("run.cancel", run_id=run_id)
        assert await service.delete_run("deleted", force=True)
        await service.create_run("w", 2, run_id="deleted")
        await service.create_run("w", 2, run_id="replaced", if_exists="terminate-existing")
        async with deployment.worker(app):
            await deployment.quiet(dead=0)
        for run_id in ("deleted", "replaced"):
            assert (await service.get_run(run_id)).status == "running"
            assert [e.kind for e in await service.get_history_entries(run_id)] == ["run"]


async def test_retry_of_a_queued_step_is_not_executed_for_the_next_run_of_the_id(
    deployment, redis_url, prefix
):
    """Its timer was set for the run before."""
    async with (
        RedisWorkflowService(redis_url, key_prefix=prefix) as service,
        deployment.worker(app) as worker,
    ):
        await service.create_run("w", run_id="r")
        await deployment.send(
            "step.execute",
            run_id="r",
            step_name="s",
            rpc_name="broken",
            data=1,
            retries=3,
            retry_delay="300ms",
        )
        await wait_until(lambda: deployment.client.zcard(f"{prefix}:timers"))
        await service.delete_run("r", force=True)
        await service.create_run("w", run_id="r")
        await wait_until(lambda: worker.reached["after_fire"])
        await deployment.quiet(dead=0)
        assert await service.get_run_steps("r") == []


async def test_timers_of_ended_deleted_and_former_runs_are_swept(deployment, redis_url, prefix):
    """They would do nothing, and keep what was to be repeated until they are due."""
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as service:
        async with deployment.worker(app) as worker:
            for run_id in ("ended", "deleted", "replaced", "asleep"):
                await deployment.send("run.start", workflow="rests", input="9d", run_id=run_id)

            async def all_asleep():
                return await deployment.client.zcard(f"{prefix}:timers") == 4

            await wait_until(all_asleep)
            await service.update_run_status("ended", "cancelled")
            await service.delete_run("deleted", force=True)
            await service.create_run("w", run_id="replaced", if_exists="terminate-existing")
            await worker.worker._retention.run_once()
        (left,) = await deployment.client.zrange(f"{prefix}:timers", 0, -1)
        assert b"asleep" in left


async def test_each_start_is_told_the_result_of_its_own_run(deployment, redis_url, prefix):
    """They share a run id: what ended before, or after, is another order's."""
    async with Client(redis_url, prefix) as client:

        async def order(number):
            return await client.start("one_step", number, run_id="r", if_exists="after-terminal")

        async with deployment.worker(app):
            first = await order(1)
            assert await first.result("10s") == 1
        second = await order(2)
        with pytest.raises(WaitTimeoutError):
            await second.result("50ms")  # the former run has ended, this one has not begun
        async with deployment.worker(app):
            assert await second.result("10s") == 2
            assert await (await order(2)).result("10s") == 2
            assert await first.result("10s") == 1
            await deployment.quiet(dead=0)
    assert sorted(await deployment.runs()) == ["r", "r.g1", "r.g2"]


@pytest.mark.parametrize("given", [{"id": "order-2"}, {"if_exists": "after-terminal"}])
async def test_a_start_that_was_refused_is_not_told_the_result_of_the_run_that_is_there(
    deployment, redis_url, prefix, tmp_path, given
):
    gate = tmp_path / "gate"
    async with Client(redis_url, prefix) as client, deployment.worker(app):
        first = await client.start("waits", str(gate), run_id="r")
        await deployment.until_step("r", "gate", "running")
        second = await client.start("waits", str(gate), run_id="r", **given)
        with pytest.raises(RunExistsError, match="run 'r'"):
            await second.result("10s")
        gate.touch()
        same = await client.start("waits", str(gate), run_id="r", if_exists="return")
        assert await same.result("10s") == await first.result("10s")
        with pytest.raises(RunExistsError):
            await second.result("10s")


async def test_a_start_that_could_not_be_applied_says_so_to_who_waits(
    deployment, redis_url, prefix
):
    """No worker had its workflow: there is no run, and none will come."""
    async with Client(redis_url, prefix) as client, deployment.worker(app, unknown_after_ms=1):
        handle = await client.start(
            "nobody_has_it", 1, run_id="r", id="one", if_exists="after-terminal"
        )
        with pytest.raises(ConflictError, match=r"dead letter .* no worker has 'nobody_has_it'"):
            await handle.result("10s")


@pytest.mark.parametrize("given", [{}, {"run_id": "r"}, {"id": "one"}])
async def test_a_start_without_a_policy_learns_that_it_was_refused_though_it_was_put_back(
    deployment, redis_url, prefix, monkeypatch, given
):
    """What nobody knows goes from worker to worker, each time as another entry."""
    monkeypatch.setattr("askel.wire.events.REREAD_S", 0.05)
    async with Client(redis_url, prefix) as client, deployment.worker(app, unknown_after_ms=1):
        handle = await client.start("nobody_has_it", 1, **given)
        with pytest.raises(ConflictError, match=r"dead letter .* no worker has 'nobody_has_it'"):
            await handle.result("20s")


async def test_what_became_of_an_earlier_copy_says_nothing_of_the_one_sent_again(
    deployment, redis_url, prefix, tmp_path
):
    gate = tmp_path / "gate"
    again = {"run_id": "r", "id": "order-2", "if_exists": "after-terminal"}
    async with Client(redis_url, prefix) as client:
        async with deployment.worker(app):
            first = await client.start("waits", str(gate), run_id="r")
            await deployment.until_step("r", "gate", "running")
            refused = await client.start("one_step", 2, **again)
            with pytest.raises(RunExistsError):
                await refused.result("10s")
            gate.touch()
            await first.result("10s")
        second = await client.start("one_step", 2, **again)
        with pytest.raises(WaitTimeoutError):
            await second.result("50ms")
        async with deployment.worker(app):
            assert await second.result("10s") == 2


async def test_the_expiry_of_a_former_run_is_not_that_of_the_one_to_come(
    deployment, redis_url, prefix
):
    async with Client(redis_url, prefix) as client:
        async with deployment.worker(app):
            await (await client.start("one_step", 1, run_id="r")).result("10s")
        second = await client.start("one_step", 2, run_id="r", if_exists="after-terminal")
        async with anyio.create_task_group() as tasks:
            results = []

            async def wait():
                results.append(await second.result("20s"))

            tasks.start_soon(wait)
            await wait_until(lambda: client._waiter._waiting)
            async with RedisWorkflowService(redis_url, key_prefix=prefix) as service:
                await service.set_retention("one_step", max_runs=0)
                await service.apply_retention()
            # Whoever waits has been told of it: the event is behind what its reader has read.
            await wait_until(lambda: any(one.deleted for one in client._waiter._waiting["r"]))
            async with deployment.worker(app):
                await deployment.until("r", "completed")
        assert results == [2]
