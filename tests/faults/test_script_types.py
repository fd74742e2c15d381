"""Keys of another type that the daemons share: a script refuses them before it writes anything."""

import pytest
from tests.helpers.state import keys, snapshot
from tests.state import command_scenarios, keeping_scenarios, read_scenarios, service_scenarios
from tests.state.scenarios import SCENARIOS
from tests.state.world import World, begins, succeeded

from askel import StoreReplyError
from askel.state import (
    GROUP,
    RunStatus,
    StepDecision,
    Sweeping,
    connect,
    status_body,
    step_body,
)

__all__ = ["keys"]

pytestmark = pytest.mark.usefixtures("redis_server")
assert command_scenarios  # all are imported for what they register
assert keeping_scenarios
assert read_scenarios
assert service_scenarios

#: What is arranged -> the call that must land whole, or not at all.
MORE = {}


def arranged(name):
    def register(scenario):
        MORE[name] = scenario
        return scenario

    return register


async def passive(w):
    """Start a run that nobody drives: what happens to it makes a token."""
    entry = await w.started()
    await w.turn(entry, end="passivate")


@arranged("put_back later")
async def _(w):
    entry = await w.entry("type", "run.signal")
    return lambda: w.recording.put_back(entry, ("type", "x"), due="+5", timer=b"{}")


@arranged("record, to a run that waits")
async def _(w):
    await passive(w)
    entry = await w.entry("type", "run.signal")
    return lambda: w.recording.record(
        entry, "r", "signal", '"t":"signal","name":"x"', command_id="once"
    )


@arranged("record, of a timer")
async def _(w):
    await passive(w)
    await w.service.set_step_scheduled(await w.step())
    entry = await w.entry("type", "timer.fire")
    return lambda: w.recording.record(entry, "r", "timer", '"t":"timer"', step_name="s", attempt=1)


@arranged("settle, of a run that waits")
async def _(w):
    await passive(w)
    entry = await w.entry("type", "run.suspend")
    target = RunStatus.SUSPENDED
    return lambda: w.recording.settle(entry, "r", target, status_body("suspended"))


@arranged("complete, of a run that waits")
async def _(w):
    await passive(w)
    entry = await w.begun()
    return lambda: w.complete(entry)


def retried(delay_ms):
    async def scenario(w):
        await w.run()
        entry = await w.begun()
        retry = {"becomes": "failed", "json": b"{}", "final": False}
        words = ("type", "step.execute")
        return lambda: w.complete(entry, **retry, retry=words, timer=b"{}", delay_ms=delay_ms)

    return scenario


arranged("complete, to be retried at once")(retried(0))
arranged("complete, to be retried later")(retried(40))


@arranged("begin, spent, of a run that waits")
async def _(w):
    await passive(w)
    entry = await w.begun(retries=0)
    return lambda: w.begin(entry, nonce="after a crash", retries=0)


@arranged("poison, of a run that waits")
async def _(w):
    await passive(w)
    entry = await w.begun()
    return lambda: w.attempts.poison(
        entry, "r", "s", error=b'{"message":"x"}', detail="why", deliveries=5
    )


@arranged("stall, of a run that waits")
async def _(w):
    await passive(w)
    await w.step()
    entry = await w.entry("type", "step.execute")
    return lambda: w.attempts.stall(
        entry, "r", "s", rpc_name="f", born="", error=b'{"message":"x"}', detail="why"
    )


@arranged("turn, with all there is")
async def _(w):
    entry = await w.started()
    await w.turn(entry, 0, 1, decisions=[begins()])
    queued = StepDecision(
        "q", "", "", "pending", 1, "", step_body("q", "pending", 1), ("stepId", "r:q:x"),
        queue=w.keys.commands("q"), command=("type", "step.execute"),
    )  # fmt: skip
    sleeping = StepDecision(
        "z", "", "", "scheduled", 1, "", step_body("z", "scheduled", 1), ("stepId", "r:z:x"),
        delay_ms=1_000, timer=b"{}",
    )  # fmt: skip
    return lambda: w.turn(
        entry, 1, 2, results=[succeeded(seen=2)], decisions=[queued, sleeping, begins("t")]
    )


@arranged("turn, that ends the run")
async def _(w):
    entry = await w.started()
    return lambda: w.turn(entry, end="completed", outcome="output", json=b"1")


@arranged("turn, of a run that was ended")
async def _(w):
    entry = await w.started()
    await w.service.update_run_status("r", "cancelled")
    return lambda: w.turn(entry, decisions=[begins()])


@arranged("sweep, of an entry without a body")
async def _(w):
    entry = await w.entry("type", "run.signal", consumer="dead")
    await w.entry("type", "run.signal", consumer="dead")
    await w.redis.xdel(entry.stream, entry.id)
    sweeping = w.caller(Sweeping)
    return lambda: sweeping.sweep(entry.stream, idle_ms=0, room=10, every_ms=60_000)


@arranged("activate, of a run that has ended")
async def _(w):
    entry = await w.started()
    await w.service.update_run_status("r", "cancelled")
    return lambda: w.activations.activate(entry, "robber", "r")


#: What daemons alone call; the calls of the state service are looked at in test_state_refusals.
OF_DAEMONS = {
    "start", "start anew", "activate", "adopt", "turn", "requeue", "record", "settle", "begin",
    "complete", "poison", "put_back", "bury", "drop", "fire", "sweep", "redrive", "revive",
    "rearm", "create_run", "finish_step", "stall",
}  # fmt: skip
CALLS = {name: scenario for (name, word), scenario in SCENARIOS.items() if word == "OK"}
CALLS = {name: CALLS[name] for name in sorted(OF_DAEMONS)} | MORE

#: The shared keys, by what follows the prefix, of which another type is refused whatever else is.
INDEXES = "runs runs:status:running runs:workflow-status:running:w runs:workflow:w runs:workflows"
REFUSED = {
    "bury": "dead",
    "poison": "dead history:r",
    "poison, of a run that waits": "dead history:r commands",
    "stall": f"dead history:r events {INDEXES} runs:status:stalled",
    "stall, of a run that waits": f"dead history:r commands events {INDEXES}",
    "sweep, of an entry without a body": "dead",
    "put_back later": "timers",
    "record": "history:r",
    "record, to a run that waits": "history:r commands",
    "record, of a timer": "history:r commands step:r:s",
    "settle": f"history:r events {INDEXES} runs:ended:w runs:status:cancelled",
    "settle, of a run that waits": f"history:r commands events {INDEXES}",
    "complete": "history:r",
    "complete, of a run that waits": "history:r commands",
    "complete, to be retried at once": "history:r commands:q",
    "complete, to be retried later": "history:r timers",
    "begin": "history:r steps:r",
    "begin, spent, of a run that waits": "history:r commands",
    "start": f"history:r events {INDEXES} steps:r",
    "start anew": f"history:r events {INDEXES} steps:r step:r:s runs:usage:w",
    "create_run": f"history:r events {INDEXES} steps:r",
    "turn": "timers steps:r history:r",
    "turn, with all there is": "commands:q timers steps:r history:r",
    "turn, that ends the run": f"events history:r {INDEXES} runs:ended:w runs:status:completed",
    "turn, of a run that was ended": "lock:r",
    "activate": "history:r",
    "activate, of a run that has ended": "lock:r",
    "requeue": "commands lock:r",
    "fire": "timers commands",
    "redrive": "dead commands",
    "revive": "commands",
    "rearm": "timers",
}


@pytest.fixture
async def world(redis, redis_url, keys):
    connection = connect(redis_url)
    yield World(redis, connection, keys)
    await connection.close()


async def state(w):
    """Return every key, and what is pending: a key's dump need not tell that."""
    pending = {}
    for queue in ("", "q"):
        stream = w.keys.commands(queue)
        if await w.redis.type(stream) == b"stream" and await w.redis.xinfo_groups(stream):
            pending[stream] = await w.redis.xpending_range(stream, GROUP, "-", "+", 99)
            for one in pending[stream]:
                del one["time_since_delivered"]
    return await snapshot(w.redis, w.keys.prefix), pending


async def spoil(w, name):
    """Make a key one of another type, as another program would."""
    key = f"{w.keys.prefix}:{name}"
    await w.redis.delete(key)
    if name.startswith("lock:"):
        await w.redis.sadd(key, "of another type")
        await w.redis.pexpire(key, 60_000)
    else:
        await w.redis.set(key, "of another type")


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name, text in REFUSED.items() for key in text.split()]
)
async def test_a_key_of_another_type_is_refused_before_anything_is_written(world, name, key):
    call = await CALLS[name](world)
    await spoil(world, key)
    before = await state(world)

    with pytest.raises(StoreReplyError, match="WRONGTYPE"):
        await call()

    assert await state(world) == before


@pytest.mark.parametrize("name", CALLS)
async def test_whatever_key_is_of_another_type_nothing_is_half_written(world, redis, name):
    """Every key that the call changes, or finds, in turn."""
    found = set(await snapshot(redis, world.keys.prefix))
    call = await CALLS[name](world)
    found |= set(await snapshot(redis, world.keys.prefix))
    await call()
    found |= set(await snapshot(redis, world.keys.prefix))
    told = []
    for key in sorted(found | {f"{world.keys.prefix}:lock:r"}):
        await redis.delete(*await snapshot(redis, world.keys.prefix), "none")
        call = await CALLS[name](world)
        await spoil(world, key.removeprefix(f"{world.keys.prefix}:"))
        before = await state(world)
        try:
            await call()
        except StoreReplyError as error:
            if await state(world) != before:
                told.append(f"{key}: {error}")
    assert told == []
