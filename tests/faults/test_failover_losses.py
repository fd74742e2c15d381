"""What asynchronous replication loses, and what becomes of those who remember it.

The link to the replica is cut, not only the replica stopped: what lies in the buffers of the kernel
would still arrive, and the loss look like none. Figures are printed: `pytest -s`.
"""

import asyncio
from contextlib import asynccontextmanager

import pytest
import redis.asyncio
from tests.apps.parts import app
from tests.helpers.daemon import Deployment
from tests.helpers.fake_sentinel import FakeSentinel
from tests.helpers.history_checker import check_all
from tests.helpers.replicas import Cable, replicated
from tests.helpers.sentinels import plain_client
from tests.helpers.waiting import wait_until

from askel import LockLostError, RedisWorkflowService, RunNotFoundError, StoreReplyError
from askel.state.store import sentinel

pytestmark = pytest.mark.timeout(120)

PREFIX = "p"
WAREHOUSE = {"queues": ("", "warehouse")}


class Failing:
    """A primary whose replica can be cut off and promoted; clients find either by `url`."""

    def __init__(self, pair, link, told):
        self.pair = pair
        self.link = link
        self.told = told
        self.url = f"redis+sentinel://127.0.0.1:{told.port}/m"

    async def in_step(self):
        """Wait until the replica has all that the primary has."""

        def reached():
            with plain_client(self.pair.primary.port) as client:
                _, offset, replicas = client.execute_command("ROLE")
            return replicas and int(replicas[0][2]) >= int(offset)

        await wait_until(reached, 20)

    def cut(self):
        """Nothing reaches the replica from now on, whatever was written to a socket."""
        self.link.cut()

    def fail_over(self):
        """The primary dies, the replica takes its place."""
        self.pair.primary.kill()
        self.pair.promote()
        self.told.primary, self.told.epoch = self.pair.replica.port, 2

    @asynccontextmanager
    async def looking(self, node):
        client = redis.asyncio.Redis(port=node.port, protocol=2)
        yield Deployment(client, self.url, PREFIX)
        await client.aclose()


@pytest.fixture
async def failing(redis_server, monkeypatch):
    monkeypatch.setattr(sentinel, "VERIFY_S", 0.1)
    with replicated(redis_server.binary) as pair:
        async with (
            Cable(pair.primary.port) as link,
            FakeSentinel(pair.primary.port) as told,
        ):
            pair.follow(link.port)
            await wait_until(lambda: link.in_use and pair.is_following(), 20)
            yield Failing(pair, link, told)


async def test_all_that_was_acknowledged_behind_a_cut_link_is_lost(failing):
    """Every one of these writes was answered with success; a prefix of them is left, consistent."""
    async with failing.looking(failing.pair.primary):
        service = RedisWorkflowService(failing.url, key_prefix=PREFIX, resend_s=20)
        for number in range(100):
            await service.create_run("w", run_id=f"kept{number}")
        await failing.in_step()
        failing.cut()
        for number in range(200):
            await service.create_run("w", run_id=f"lost{number}")
        failing.fail_over()
        await service.create_run("w", run_id="after")
    async with failing.looking(failing.pair.replica) as look:
        left = set(await look.runs())
        await check_all(look.client, PREFIX)
    await service.close()
    lost = sum(f"lost{number}" not in left for number in range(200))
    print(f"\nlink cut, replica promoted: {lost} of 200 acknowledged runs lost")  # noqa: T201
    assert lost == 200
    assert {f"kept{number}" for number in range(100)} | {"after"} <= left


async def test_min_replicas_to_write_bounds_the_loss_and_does_not_close_it(failing):
    """An isolated primary refuses after the lag; what it took before that is lost all the same."""
    with plain_client(failing.pair.primary.port) as client:
        client.config_set("min-replicas-max-lag", 2)
        client.config_set("min-replicas-to-write", 1)
    service = RedisWorkflowService(failing.url, key_prefix=PREFIX, resend_s=0)
    failing.link.clog()  # the replica seems to be there, until it has been silent for long enough
    taken = 0
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def until_refused():
        nonlocal taken
        while True:
            await service.create_run("w", run_id=f"r{taken}")
            taken += 1

    with pytest.raises(StoreReplyError, match="NOREPLICAS"):
        await until_refused()
    await service.close()
    print(  # noqa: T201
        f"\nmin-replicas-to-write 1, max-lag 2: {taken} more runs acknowledged in "
        f"{loop.time() - began:.1f} s before NOREPLICAS"
    )
    assert taken > 0


async def test_workers_that_remember_what_was_lost_go_on_from_what_is_left(failing, tmp_path):
    """Their turns and results are refused or applied whole: every history is legal, every run ends.

    Runs stand in all places of a journey when the link is cut, and go on for a while behind it.
    """
    gate = tmp_path / "gate"
    async with (
        failing.looking(failing.pair.primary) as before,
        before.worker(app, **WAREHOUSE) as worker,
    ):
        for number in range(10):
            await before.send("run.start", workflow="journey", input=1, run_id=f"early{number}")
            await before.send(
                "run.start", workflow="waits_in", input=["", str(gate)], run_id=f"gate{number}"
            )
            far = ["warehouse", str(gate)]
            await before.send("run.start", workflow="waits_in", input=far, run_id=f"far{number}")
        for kind in ("gate", "far"):
            for number in range(10):
                await before.until_step(f"{kind}{number}", "gate", "running")
        await failing.in_step()
        for number in range(10):
            await before.send("run.start", workflow="journey", input=1, run_id=f"late{number}")
        failing.cut()
        turns = worker.reached["after_turn"]
        gate.touch()  # whatever waited there goes on where the replica does not see it
        await wait_until(lambda: worker.reached["after_turn"] > turns + 20)
        failing.fail_over()
        async with failing.looking(failing.pair.replica) as after:
            await after.send("run.start", workflow="one_step", input=1, run_id="next")
            await after.until("next", "completed", 30)
            for run_id in await after.runs():
                await after.until(run_id, "completed", 30)
            await after.quiet(timeout=30)
            records = await check_all(after.client, PREFIX)
        assert not worker.ended.is_set()
    kept = {record.run_id for record in records}
    assert {f"{kind}{n}" for kind in ("gate", "far") for n in range(10)} <= kept
    again = sum(record.count("lost") for record in records)
    print(f"\n{len(records)} runs went on, {again} attempts begun again")  # noqa: T201


async def test_a_lock_that_was_lost_with_the_primary_protects_nothing_any_more(failing):
    """Its holder is refused; another may have it, with a fence that was given out before."""
    service = RedisWorkflowService(failing.url, key_prefix=PREFIX, resend_s=20)
    await service.create_run("w", run_id="r")
    await failing.in_step()
    failing.cut()
    fences = []

    async def under_lock():
        async with service.run_lock("r") as lock:
            fences.append(lock.fence)
            failing.fail_over()
            await service.update_run_status("r", "completed")

    with pytest.raises(LockLostError):
        await under_lock()
    async with service.run_lock("r") as lock:
        assert fences == [lock.fence]  # said plainly in docs/durability.md
    assert (await service.get_run("r")).status == "running"
    await service.close()


async def test_a_program_that_remembers_what_was_lost_is_told(failing):
    """A step that was inserted behind the cut is not there any more; nothing is made of it."""
    service = RedisWorkflowService(failing.url, key_prefix=PREFIX, resend_s=20)
    await service.create_run("w", run_id="r")
    step = await service.insert_step_state("r", "s", "f")
    await failing.in_step()
    failing.cut()
    await service.set_step_running(step.step_id)
    await service.create_run("w", run_id="gone")
    failing.fail_over()
    with pytest.raises(RunNotFoundError):
        await service.update_run_status("gone", "completed")
    await service.set_step_result(step.step_id, 1)  # from pending, which is legal, too
    async with failing.looking(failing.pair.replica) as look:
        record = await look.record("r")
        assert await look.runs() == ["r"]
    assert [entry["status"] for entry in record.of_step("s")] == ["pending", "succeeded"]
    await service.close()
