"""Reclaim: all that dead consumers hold is reached, by one sweeper at a time."""

from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
from redis import ResponseError
from tests.apps.parts import app
from tests.helpers.forked import ForkedWorker
from tests.helpers.monitor import Monitor
from tests.helpers.waiting import wait_until

from askel.state import load_scripts
from askeld.torture.fault_proxy import FaultProxy

BATCH = 5_000
EVERY_MS = 200


@pytest.fixture
async def group(deployment):
    """The stream, with the group on it."""
    await deployment.client.xgroup_create(deployment.stream(), "askeld", "0", mkstream=True)
    return deployment.stream()


#: Longer than any delay of a busy machine: that is no jump of the server's clock.
LONG_LEASES = {"lease_ms": 20_000, "claim_idle_ms": 30_000}
SILENT_MS = 60_000


async def left_by_the_dead(deployment, count, silent_ms=0, **fields):
    """Send *count* commands, all of them pending for consumers that are no more."""
    words = {"type": "run.signal", "run_id": "d", "name": "n", "id": "the same", **fields}
    for first in range(0, count, BATCH):
        pipeline = deployment.client.pipeline(transaction=False)
        size = min(BATCH, count - first)
        for _ in range(size):
            pipeline.xadd(deployment.stream(), words)
        await pipeline.execute()
        dead = f"dead-{first}"
        reply = await deployment.client.xreadgroup(
            "askeld", dead, {deployment.stream(): ">"}, count=size
        )
        if silent_ms:
            names = [entry for entry, _ in reply[0][1]]
            await deployment.client.xclaim(
                deployment.stream(), "askeld", dead, 0, names, idle=silent_ms, justid=True
            )


async def a_run(deployment):
    """Have a run that a program drives, of the id that the commands are for."""
    await deployment.send("run.create", workflow="w", run_id="d")
    async with deployment.worker(app):
        await deployment.until("d", "running")


class Sweeps:
    """What MONITOR says of the sweeps of one stream."""

    def __init__(self, monitor, deployment):
        """Read what *monitor* kept: XAUTOCLAIM, and the HSET of the turn that follows it."""
        stream, turn = deployment.stream(), f"{deployment.prefix}:sweep"
        self.calls = [
            (told.at, *told.words[3:4], told.words[5], int(told.words[7]))
            for told in monitor.told
            if told.words[:2] == ["XAUTOCLAIM", stream]
        ]
        self.turns = [
            dict(zip(told.words[2::2], told.words[3::2], strict=True))
            for told in monitor.told
            if told.words[:2] == ["HSET", turn] and "more" in told.words
        ]
        self.calls, self.turns = self.calls[: len(self.turns)], self.turns[: len(self.calls)]

    def check(self):
        """One sweeper at a time, who goes on where the one before stopped, in small bites."""
        cursor, turn = None, None
        for (at, consumer, start, count), after in zip(self.calls, self.turns, strict=True):
            assert count <= 200
            if turn is not None:
                assert start == cursor, "the cursor is kept from call to call, whoever calls"
                if consumer != turn["consumer"] or after["at"] != turn["at"]:
                    assert at * 1_000 >= int(turn["until"]) - 1, "a turn is over before the next"
            cursor, turn = after["cursor"], {**after, "consumer": consumer}


async def swept_by_workers(deployment, count, workers, timeout, **settings):
    """Let *workers* workers reclaim *count* commands of dead consumers; return their sweeps."""
    patterns = (b'"XAUTOCLAIM"', f'"{deployment.prefix}:sweep"'.encode())
    async with AsyncExitStack() as stack:
        monitor = stack.enter_context(Monitor(deployment.url, *patterns))
        running = [
            await stack.enter_async_context(
                deployment.worker(app, **LONG_LEASES, sweep_ms=EVERY_MS, **settings)
            )
            for _ in range(workers)
        ]
        await deployment.quiet(timeout=timeout)
    return Sweeps(monitor, deployment), [
        len(worker.logged("entry_reclaimed")) for worker in running
    ]


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_hundred_thousand_entries_of_dead_consumers_are_reclaimed(deployment, group):
    """M5: all of them, by eight workers of which one sweeps at a time, 200 entries a call."""
    await a_run(deployment)
    await left_by_the_dead(deployment, 100_000, SILENT_MS)

    sweeps, reclaimed = await swept_by_workers(deployment, 100_000, 8, 300)

    sweeps.check()
    assert sum(reclaimed) == 100_000
    assert min(reclaimed) > 0, "who has no more room lets others have their share"


@pytest.mark.usefixtures("redis_server")
async def test_entries_of_dead_consumers_are_shared_by_the_workers(deployment, group):
    """The same on every server, with little room in each worker."""
    await a_run(deployment)
    await left_by_the_dead(deployment, 3_000, SILENT_MS)

    sweeps, reclaimed = await swept_by_workers(deployment, 3_000, 3, 60, concurrency=50)

    sweeps.check()
    assert sum(reclaimed) == 3_000
    assert min(reclaimed) > 0
    assert len({consumer for _, consumer, _, _ in sweeps.calls}) == 3


async def test_who_has_room_sweeps_alone_and_once_an_interval(deployment, group):
    """Nothing is claimed by two in one turn, and a list that was swept is left alone."""
    await a_run(deployment)
    await left_by_the_dead(deployment, 1_000, SILENT_MS)
    async with AsyncExitStack() as stack:
        monitor = stack.enter_context(
            Monitor(deployment.url, b'"XAUTOCLAIM"', f'"{deployment.prefix}:sweep"'.encode())
        )
        for _ in range(4):
            settings = {"concurrency": 2_000, "sweep_ms": EVERY_MS, **LONG_LEASES}
            await stack.enter_async_context(deployment.worker(app, **settings))
        await deployment.quiet()
        swept = len(Sweeps(monitor, deployment).calls)
        await wait_until(lambda: len(Sweeps(monitor, deployment).calls) >= swept + 12)
        sweeps = Sweeps(monitor, deployment)
    sweeps.check()
    idle = [at for at, *_ in sweeps.calls[swept:]]
    between = [later - at for at, later in pairwise(idle)]
    assert min(between) >= EVERY_MS / 1_000 - 0.002, "one call an interval, of all four together"


@pytest.mark.usefixtures("redis_server")
async def test_a_sweeper_that_is_killed_is_followed_by_another(deployment, group, tmp_path):
    """SIGKILL of whoever sweeps: the next sweep is one interval later."""
    await a_run(deployment)
    workers = {}
    settings = {"lease_ms": 300, "claim_idle_ms": 450, "sweep_ms": EVERY_MS}
    patterns = (b'"XAUTOCLAIM"', f'"{deployment.prefix}:sweep"'.encode())
    async with AsyncExitStack() as stack:
        monitor = stack.enter_context(Monitor(deployment.url, *patterns))
        for number in range(3):
            worker = ForkedWorker(
                "tests.apps.parts:app",
                redis_url=deployment.url,
                prefix=deployment.prefix,
                directory=tmp_path,
                settings={**settings, "consumer": f"w{number}"},
            )
            workers[f"w{number}"] = await stack.enter_async_context(worker)
            await worker.wait_ready()
        for _ in range(2):
            seen = len(Sweeps(monitor, deployment).calls)
            await wait_until(lambda s=seen: len(Sweeps(monitor, deployment).calls) > s)
            last, sweeper, *_ = Sweeps(monitor, deployment).calls[-1]
            workers.pop(sweeper).kill()

            def another(after=last, dead=sweeper):
                calls = Sweeps(monitor, deployment).calls
                return next((at for at, who, *_ in calls if at > after and who != dead), None)

            assert await wait_until(another) - last < 10 * EVERY_MS / 1_000
        await left_by_the_dead(deployment, 10)
        await deployment.quiet()
        Sweeps(monitor, deployment).check()


async def test_what_was_claimed_by_a_lost_reply_is_not_left_for_another_lease(
    deployment, group, redis_url
):
    """The sweeper asks what is pending for it, and works on what it did not know of."""
    host, _, port = redis_url.removeprefix("redis://").rpartition(":")
    await a_run(deployment)
    await left_by_the_dead(deployment, 20)
    pending = await deployment.client.xpending_range(group, "askeld", "-", "+", 50)
    ids = [entry["message_id"] for entry in pending]
    await deployment.client.xclaim(group, "askeld", "dead-0", 0, ids, idle=600_000, justid=True)
    sweep = load_scripts()["sweep"].sha.encode()
    async with FaultProxy(host, int(port)) as proxy:
        lost = proxy.lose_next_reply(sweep)
        long = {"lease_ms": 60_000, "claim_idle_ms": 120_000, "sweep_ms": 20}
        async with deployment.worker(app, **long, url=proxy.url):
            await deployment.quiet()
    assert lost.hits == 1


@pytest.mark.usefixtures("redis_server")
async def test_what_was_deleted_while_it_was_pending_is_a_dead_letter(deployment, group):
    """XDEL or XTRIM by somebody: what it said is lost, that it was there is not."""
    await left_by_the_dead(deployment, 3)
    first, _, third = [
        entry["message_id"]
        for entry in await deployment.client.xpending_range(group, "askeld", "-", "+", 9)
    ]
    await a_run(deployment)
    await deployment.client.xdel(group, first, third)
    async with deployment.worker(app) as worker:
        letters = await deployment.dead_letters(2)
        await deployment.quiet(dead=2)
    assert {letter["entry"] for letter in letters} == {first.decode(), third.decode()}
    assert {letter["reason"] for letter in letters} == {"body_lost"}
    assert {letter["stream"] for letter in letters} == {group}
    assert len(worker.logged("command_dead_lettered", reason="body_lost")) == 2


async def test_a_turn_that_cannot_be_read_is_told_of_once(deployment, group):
    """Somebody wrote over the key: the other work goes on, and a person is told."""
    await deployment.client.set(f"{deployment.prefix}:sweep", "not a hash")
    async with deployment.worker(app, sweep_ms=10) as worker:
        await wait_until(lambda: worker.reached["before_sweep"] > 5)
        await deployment.send("run.start", workflow="one_step", run_id="r")
        await deployment.until("r", "completed")
        refused = worker.logged("sweep_refused")
        await deployment.client.delete(f"{deployment.prefix}:sweep")
        await left_by_the_dead(deployment, 1)
        await deployment.quiet(dead=1)
    assert [line["stream"] for line in refused] == [group]
    with pytest.raises(ResponseError):
        await deployment.client.xgroup_create(group, "askeld", "0")
