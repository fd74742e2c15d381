"""How long the step of a dead worker is away, with the leases of both profiles."""

import time

import pytest
from tests.apps.parts import app
from tests.helpers.forked import ForkedWorker
from tests.helpers.waiting import wait_until

from askeld.config import PROFILES, WorkerConfig

#: What a busy machine may add; the profiles differ by more.
MARGIN_S = 4.0


@pytest.mark.slow
@pytest.mark.parametrize("queue", ["", "warehouse"])
@pytest.mark.parametrize("profile", PROFILES)
async def test_a_dead_workers_step_is_back_within_claim_idle_and_a_sweep(
    deployment, tmp_path, record_property, profile, queue
):
    """Row `kill -9 during a handler`: begun anew elsewhere in time, and not before it is lost."""
    config = WorkerConfig(**PROFILES[profile])
    leases = {
        "lease_ms": config.lease_ms,
        "claim_idle_ms": config.claim_idle_ms,
        "sweep_ms": config.sweep_ms,
        "queues": ("", "warehouse"),
    }
    gate = tmp_path / "gate"
    async with ForkedWorker(
        "tests.apps.parts:app",
        redis_url=deployment.url,
        prefix=deployment.prefix,
        directory=tmp_path,
        settings=leases,
    ) as doomed:
        await deployment.send(
            "run.start", workflow="waits_in", input=[queue, str(gate)], run_id="r"
        )
        await deployment.until_step("r", "gate", "running")
        async with deployment.worker(app, **leases):
            doomed.kill()
            await doomed.wait()
            died = time.monotonic()

            async def again():
                return (await deployment.step("r", "gate")).get("attemptCount") == "2"

            await wait_until(again, 40)
            away_s = time.monotonic() - died
            gate.touch()
            record = await deployment.until("r", "completed")
            await deployment.quiet()
    record_property("recovery_s", round(away_s, 2))
    print(f"recovery, profile {profile}, queue {queue or '-'}: {away_s:.2f} s")  # noqa: T201
    within_s = (config.claim_idle_ms + config.sweep_ms) / 1_000
    assert away_s <= within_s + MARGIN_S
    # The last renewal was at most a third of the lease before the death.
    assert away_s >= (config.claim_idle_ms - config.lease_ms / 2) / 1_000
    assert record.path("gate")[-4:] == ["running 1", "lost 1", "running 2", "succeeded 2"]


async def test_a_worker_that_dies_before_it_reads(deployment, tmp_path):
    """Row `kill -9 before claim`: what it never read another reads; no lease has to run out."""
    async with ForkedWorker(
        "tests.apps.parts:app",
        redis_url=deployment.url,
        prefix=deployment.prefix,
        directory=tmp_path,
        settings={"lease_ms": 60_000, "claim_idle_ms": 120_000},
    ) as doomed:
        await doomed.wait_ready()
        doomed.kill()
        await doomed.wait()
        await deployment.send("run.start", workflow="one_step", input=1, run_id="r")
        async with deployment.worker(app, lease_ms=60_000, claim_idle_ms=120_000):
            record = await deployment.until("r", "completed")
            await deployment.quiet()
    assert record.count("lost") == 0
