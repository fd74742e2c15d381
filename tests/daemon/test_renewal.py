"""Leases: kept by a thread of its own, told to whom they concern, and never given up silently."""

import time

import pytest
from tests.apps.parts import app
from tests.helpers.waiting import wait_until

from askel.state import Entry
from askeld.renewal import Authority, Leases, lease_clock

SHORT = {"lease_ms": 60, "claim_idle_ms": 120_000}


async def idle_ms(deployment):
    """For how long the one pending entry has not been renewed."""
    (entry,) = await deployment.client.xpending_range(deployment.stream(), "askeld", "-", "+", 1)
    return entry["time_since_delivered"]


async def renewed_again(deployment, times=3):
    """Wait until the pending entry was renewed some times."""
    before, count = 0, 0

    async def once_more():
        nonlocal before, count
        now = await idle_ms(deployment)
        count += now < before
        before = now
        return count >= times

    await wait_until(once_more)


@pytest.mark.parametrize("what", ["run", "step", "command"])
async def test_whatever_is_in_work_is_renewed(deployment, tmp_path, what):
    """A token, a step command, and a command that waits for its run."""
    gate = str(tmp_path / "gate")
    async with deployment.worker(app, **SHORT, not_found_after_ms=60_000):
        if what == "run":
            await deployment.send("run.start", workflow="waits", input=gate, run_id="r")
            await deployment.until_step("r", "gate", "running")
        elif what == "step":
            await deployment.send("run.create", workflow="w", run_id="r")
            await deployment.until("r", "running")
            step = {"run_id": "r", "step_name": "gate", "rpc_name": "wait_for_file"}
            await deployment.send("step.execute", **step, data=gate)
            await deployment.until_step("r", "gate", "running")
        else:
            await deployment.send("run.signal", run_id="nobody-yet", name="n")
            await wait_until(lambda: deployment.client.xpending_range(
                deployment.stream(), "askeld", "-", "+", 1))  # fmt: skip
        await renewed_again(deployment)
        (tmp_path / "gate").touch()


async def test_work_that_was_taken_away_is_dropped(deployment):
    """The entry is another consumer's: the handler is cancelled, and nothing is written for it."""
    told = []
    mine = type(app)("mine")

    @mine.step
    async def endless() -> None:
        told.append("begun")
        try:
            await wait_until(lambda: False, 30)
        except BaseException as error:
            told.append(type(error).__name__)
            raise

    @mine.workflow
    async def w(run) -> None:
        await run.do("endless", endless)

    async with deployment.worker(mine, **SHORT) as worker:
        entry = await deployment.send("run.start", workflow="w", run_id="r")
        await wait_until(lambda: told == ["begun"])
        before = (await deployment.record("r")).entries
        await deployment.client.xclaim(deployment.stream(), "askeld", "robber", 0, [entry])
        await wait_until(lambda: told == ["begun", "CancelledError"])
        await wait_until(lambda: len(worker.worker._leases) == 0)
        assert (await deployment.record("r")).entries == before
        (pending,) = await deployment.client.xpending_range(
            deployment.stream(), "askeld", "-", "+", 1
        )
        assert pending["consumer"] == b"robber"


async def test_a_renewing_thread_that_fails_takes_the_worker_down(deployment, monkeypatch):
    """Without it, all its work would be robbed while it goes on."""

    def fails(*_):
        raise ZeroDivisionError("on purpose")

    async def work():
        async with deployment.worker(app, **SHORT) as worker:
            monkeypatch.setattr(Leases, "older_than", fails)
            await worker.ended.wait()

    with pytest.raises(BaseExceptionGroup) as caught:
        await work()
    assert caught.group_contains(ZeroDivisionError, match="on purpose")


def test_row_vm_freeze_leases_are_judged_by_a_clock_that_goes_on(monkeypatch):
    """Row `SIGSTOP of whole tree (VM freeze)`: what a machine slept counts as time.

    After it all leases are due at once, and the first question tells which are lost.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        assert abs(lease_clock() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1
    slept = 0.0
    real = time.clock_gettime
    boottime = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    monkeypatch.setattr(
        "time.clock_gettime", lambda which: real(which) + (slept if which == boottime else 0)
    )
    leases = Leases()
    held = leases.hold(Entry("s", "1-0"))
    assert leases.older_than(60) == []
    slept = 61.0
    assert leases.older_than(60) == [held]


def test_an_authority_is_replaced_as_a_whole():
    """The thread reads it while the loop changes it: half of one and half of another is neither."""
    with pytest.raises(AttributeError):
        Authority(run_id="r").nonce = "n"
