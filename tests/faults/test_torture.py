"""Three workers, random programs, kills and freezes at random moments: every promise is kept."""

import json
import random
from collections import Counter
from contextlib import AsyncExitStack

import anyio
import pytest
from tests.apps.programs import outcome, random_program
from tests.helpers.forked import ForkedWorker
from tests.helpers.history_checker import TERMINAL, check_all
from tests.helpers.waiting import wait_until

RUNS = 150
KILLS = 40
SETTINGS = {
    "lease_ms": 150,
    "claim_idle_ms": 250,
    "sweep_ms": 20,
    "linger_ms": 60,
    "max_deliveries": 30,
    "queues": ("", "warehouse"),
}


class Torture:
    """One deployment and all that is done to it, by one seed."""

    def __init__(self, deployment, directory, seed):
        self.deployment = deployment
        self.directory = directory
        self.dice = random.Random(seed)
        self.dice_of_death = random.Random(-seed)
        self.counts = Counter()
        self.programs = {}
        self.cancelled = set()
        self.workers = []
        self.stack = AsyncExitStack()

    async def hire(self):
        """Start one more worker."""
        worker = ForkedWorker(
            "tests.apps.programs:app",
            redis_url=self.deployment.url,
            prefix=self.deployment.prefix,
            directory=self.directory,
            settings=SETTINGS,
        )
        self.workers.append(await self.stack.enter_async_context(worker))

    async def happen(self, count):
        """Wait until *count* more things have happened in Redis, or all runs have ended."""
        client = self.deployment.client
        before = (await client.info("stats"))["total_commands_processed"]

        async def happened():
            now = (await client.info("stats"))["total_commands_processed"]
            return now - before >= count

        await wait_until(happened, 30)

    async def submit(self):
        """Start runs, some of them twice; disturb some of those under way."""
        for number in range(RUNS):
            name = f"r{number}"
            self.programs[name] = random_program(self.dice)
            start = {"workflow": "program", "input": self.programs[name], "run_id": name}
            for _ in range(self.dice.choice([1, 1, 2])):
                await self.deployment.send("run.start", **start, if_exists="return")
                self.counts["starts"] += 1
            await self.disturb(f"r{max(number - self.dice.randrange(8), 0)}")
            await self.happen(self.dice.randrange(60))

    async def disturb(self, name):
        """Signal, suspend, resume or cancel a run."""
        send, kind = self.deployment.send, self.dice.randrange(12)
        if kind == 0:
            self.cancelled.add(name)
            await send("run.cancel", run_id=name)
        elif kind in {1, 2}:
            await send("run.suspend", run_id=name)
        elif kind in {3, 4, 5}:
            for _ in range(self.dice.choice([1, 2, 3])):
                await send("run.signal", run_id=name, name="news", id=f"s{self.dice.randrange(9)}")
        self.counts["disturbances"] += kind in range(6)

    async def kill(self):
        """Kill or freeze a worker at random moments, and replace the dead."""
        dice = self.dice_of_death
        for _ in range(KILLS):
            await self.happen(dice.randrange(50, 400))
            victim = self.workers.pop(dice.randrange(len(self.workers)))
            if dice.random() < 0.2:
                victim.pause()
                await self.hire()
                await self.happen(3_000)
                victim.resume()
                await self.happen(300)  # it says what it has to say, too late
                self.counts["freezes"] += 1
            victim.kill()
            self.counts["kills"] += 1
            await self.hire()

    async def end(self):
        """Resume whatever is suspended until every run has ended."""
        client, prefix = self.deployment.client, self.deployment.prefix

        async def all_ended():
            for name in await client.zrange(f"{prefix}:runs:status:suspended", 0, -1):
                await self.deployment.send("run.resume", run_id=name.decode())
            ended = [await client.zcard(f"{prefix}:runs:status:{s}") for s in TERMINAL]
            return sum(ended) == RUNS

        await wait_until(all_ended, 30, lambda: f"the end of all runs: {self.counts}")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20261122])
async def test_nothing_is_lost_and_nothing_happens_twice(deployment, tmp_path, seed, capsys):
    """Every program returns what it must, its history is legal, and nothing is left behind."""
    torture = Torture(deployment, tmp_path, seed)
    async with torture.stack:
        for _ in range(3):
            await torture.hire()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(torture.kill)
            tasks.start_soon(torture.submit)
        await torture.end()
        letters = await deployment.dead_letters(0)
        await deployment.quiet(dead=len(letters), timeout=20)
    records = await check_all(deployment.client, deployment.prefix)
    counts = torture.counts
    for record in records:
        counts[record.status] += 1
        counts["steps"] += len(record.step_names)
        counts["attempts"] += record.count("running")
        for status in ("lost", "failed", "succeeded"):
            counts[f"attempts {status}"] += record.count(status)
        if record.status == "completed":
            assert json.loads(record.run["output"]) == outcome(torture.programs[record.run_id])
        else:
            assert record.status == "cancelled"
            assert record.run_id in torture.cancelled
    # What came after the end of a run is a dead letter and nothing else is.
    counts["dead letters"] = len(letters)
    assert {letter["reason"] for letter in letters} <= {"run_ended", "illegal_transition"}
    with capsys.disabled():
        print(f"\ntorture of seed {seed}: {dict(counts)}")  # noqa: T201 - for people
    assert sum(counts[status] for status in ("completed", "cancelled")) == RUNS
    # It was a torture:
    assert counts["kills"] == KILLS
    assert counts["freezes"] >= 2
    assert counts["attempts lost"] >= 10
    assert counts["attempts failed"] >= 50
    assert counts["cancelled"] >= 1
