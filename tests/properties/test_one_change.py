"""One change made by its own short script is the change that `apply` makes of a list of one."""

import random
import uuid

import pytest
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.helpers.keyspace import read_keyspace, without_times
from tests.helpers.stubs import CountedIds

from askel import UNSET, RedisWorkflowService, StepOptions, StepStatus
from askel.state.codec import PLAIN
from askel.state.writes.change_makers import ChangeMakers
from askel.state.writes.changes import Writer, pack, pack_list

pytestmark = pytest.mark.allow_keys(r".*")  # the twins have prefixes of their own

STEPS = ("a", "b:ü", 'c"\\')
SEQUENCES = 40
LENGTH = 25
#: What must have come about, or the dice have not tried hard.
ANSWERS = {
    b"OK", b"ALREADY", b"NOTFOUND", b"CONFLICT", b"ILLEGAL", b"TERMINAL", b"LOCKLOST",
}  # fmt: skip


class Dice:
    """Draws changes as programs make them, with mistakes: of names, ids, order and content."""

    def __init__(self, seed):
        self.draw = random.Random(seed)
        self.make = ChangeMakers(CountedIds(), PLAIN)
        self.ids = {name: [f"r:{name}:never"] for name in STEPS}

    def writer(self):
        """Return a new writer; some hold a lock that is another's, a few repeat a nonce."""
        holder = "another" if self.draw.random() < 0.05 else ""
        return Writer(holder, 0, f"{self.draw.randrange(150):08d}")

    def rare(self):
        """Return what no short script makes: the run ends, or a failed step is tried again."""
        if self.draw.random() < 0.1:
            return self.make.status(
                self.draw.choice(["suspended", "running", "failed"]), UNSET, None
            )
        return self.make.retry(self._id(), self.draw.choice(["pending", "running"]))

    def change(self):
        """Return an insertion, a move or an outcome."""
        payload = self.draw.choice([None, 1, {"x": ["ü"]}])
        kind = self.draw.randrange(4)
        if kind == 0:
            return self._insertion(payload)
        if kind == 1:
            status = self.draw.choice([StepStatus.SCHEDULED, StepStatus.RUNNING])
            return self.make.move(self._id(), status)
        if kind == 2:
            return self.make.error(self._id(), self.draw.choice(["no", "never"]))
        return self.make.result(self._id(), payload)

    def _insertion(self, payload):
        name = self.draw.choice(STEPS)
        options = self.draw.choice(
            [None, StepOptions(retries=0), StepOptions(2, "5s"), StepOptions(None, "exponential")]
        )
        rpc = self.draw.choice(["f", "f", "g", None])
        made = self.make.insert("r", name, rpc, payload, options, self.draw.choice([None, "a"]))
        self.ids[name].append(made.step_id)
        return made

    def _id(self):
        known = self.ids[self.draw.choice(STEPS)]
        return known[min(1, len(known) - 1)] if self.draw.random() < 0.9 else known[-1]


class Twins:
    """The same run twice, under two prefixes."""

    def __init__(self, url, client):
        self.client = client
        stem = uuid.uuid4().hex[:12]
        self.short, self.listed = (
            RedisWorkflowService(url, key_prefix=f"p:{stem}:{name}", ids=CountedIds())
            for name in "ab"
        )

    async def create(self):
        for service in (self.short, self.listed):
            await service.create_run("w", run_id="r")

    async def close(self):
        for service in (self.short, self.listed):
            await service.close()

    async def make(self, change, by, packed):
        """Make *change* once by each; return the two answers without the time."""
        answers = []
        for service, way in ((self.short, packed), (self.listed, pack_list)):
            answer = await service.scripts.run(*way(service.keys, "r", [change], by))
            if answer[0] == b"OK":
                answer[2] = b"time"
            answers.append([_timeless(part) for part in answer])
        return answers

    async def keyspaces(self):
        """Return the two keyspaces without times."""
        prefixes = (self.short.keys.prefix, self.listed.keys.prefix)
        return [without_times(await read_keyspace(self.client, prefix)) for prefix in prefixes]


def _timeless(part):
    """Return a step's hash as a mapping without its times; any other part as it is."""
    if not isinstance(part, list):
        return part
    fields = dict(zip(part[::2], part[1::2], strict=True))
    return {name: value for name, value in fields.items() if not name.endswith(b"At")}


async def test_short_scripts_and_apply_agree(redis_server):
    seen = set()
    client = redis.asyncio.Redis.from_url(
        redis_server.url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=20
    )
    for seed in range(SEQUENCES):
        twins, dice = Twins(redis_server.url, client), Dice(seed)
        await twins.create()
        for _ in range(LENGTH):
            is_rare = dice.draw.random() < 0.2
            change, by = (dice.rare() if is_rare else dice.change()), dice.writer()
            short, listed = await twins.make(change, by, pack)
            assert short == listed, f"seed {seed}: {change} by {by}"
            seen.add(short[0])
            before, after = await twins.keyspaces()
            assert before == after, f"seed {seed}: {change} by {by}"
        await twins.close()
    await client.aclose()
    assert seen >= ANSWERS
