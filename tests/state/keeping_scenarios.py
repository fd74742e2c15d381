"""Scenarios of listing, deletion, retention and reindexing: how each answer comes about."""

import pytest
from tests.state.scenarios import answers

from askel import LockError, RunActiveError
from askel.state import StepDecision, Watching, step_body
from askel.state.writes.deletion import delete_call


def refused(call):
    """Make the call of a method that raises what the answer means."""

    async def caught():
        with pytest.raises((RunActiveError, LockError)):
            await call()

    return caught


async def ended(w, run_id="r"):
    """A completed run with two steps and a variable."""
    for name in ("s", "t"):
        await w.step(run_id, name)
    await w.service.update_run_status(run_id, "completed", output=1)


@answers("list_runs", "OK")
async def _(w):
    for run_id in ("r1", "r2", "r3"):
        await w.run(run_id)
    return lambda: w.service.list_runs(workflow_name="w", status="running", limit=2)


def delete(w, **given):
    return lambda: w.service.delete_run("r", **given)


@answers("delete_run", "OK")
async def _(w):
    await w.started()
    await w.step(name="s")
    await w.service.update_run_state("r", "n", 1)
    await w.redis.set(f"{w.keys.prefix}:step-lock:r:s", "somebody", px=60_000)
    await w.run("another")
    return delete(w, force=True)


@answers("delete_run", "ALREADY")
async def _(w):
    await ended(w)
    await delete(w)()
    return delete(w)


@answers("delete_run", "NOTFOUND")
async def _(w):
    return delete(w)


@answers("delete_run", "ACTIVE")
async def _(w):
    await w.step()
    return refused(delete(w))


@answers("delete_run", "BUSY")
async def _(w):
    await ended(w)
    await w.hold_lock()
    return refused(delete(w))


@answers("delete_run", "LOCKLOST")
async def _(w):
    await ended(w)
    await w.hold_lock()
    return lambda: w.scripts.run(*delete_call(w.keys, "r", holder="robbed", forced=True))


def set_policy(w):
    return lambda: w.service.set_retention("w", ttl="1h")


@answers("confirmed", "OK")
async def _(w):
    await w.service.create_run("w", run_id="r")
    await w.redis.zadd(w.keys.unconfirmed, {"r": 7})
    return lambda: w.scripts.run("confirmed", [w.keys.runs], ["r", "7"])


@answers("set_retention", "OK")
async def _(w):
    return set_policy(w)


@answers("set_retention", "ALREADY")
async def _(w):
    await set_policy(w)()
    return set_policy(w)


@answers("expired", "OK")
async def _(w):
    await ended(w)
    return lambda: w.scripts.run("expired", [w.keys.runs], [0, "w", 0, 0, 0, 0, 10])


@answers("prune_timers", "OK")
async def _(w):
    await ended(w)
    await w.redis.zadd(w.keys.timers, {"m": 1})
    return lambda: w.scripts.run(
        "prune_timers", [w.keys.timers, w.keys.run("")], ["m", "r", "another"]
    )


@answers("measure_runs", "OK")
async def _(w):
    await ended(w)
    keys = [w.keys.runs, *w.keys.stems()]
    return lambda: w.scripts.run("measure_runs", keys, ["w", 100])


@answers("index_runs", "OK")
async def _(w):
    await ended(w)
    await w.redis.delete(*w.keys.run_indexes("w"))
    keys = [w.keys.runs, w.keys.run("")]
    return lambda: w.scripts.run("index_runs", keys, ["0", "r", "nobody"])


@answers("prune_index", "OK")
async def _(w):
    await ended(w)
    index = w.keys.runs_ended("w")
    await w.redis.zadd(index, {"nobody": 5})
    keys = [index, w.keys.runs, w.keys.run("")]
    return lambda: w.scripts.run("prune_index", keys, ["0", "ended", "w", "r", "nobody"])


@answers("prune_workflows", "OK")
async def _(w):
    await w.run()
    await w.redis.zadd(w.keys.workflows, {"nothing": 0})
    return lambda: w.scripts.run("prune_workflows", [w.keys.runs], ["0", "w", "nothing"])


def name_steps(w):
    keys = [w.keys.run("r"), w.keys.steps("r"), w.keys.step_stem("r")]
    return lambda: w.scripts.run("index_steps", keys, ["0", "t", "s"])


@answers("index_steps", "OK")
async def _(w):
    await ended(w)
    await w.redis.delete(w.keys.steps("r"))
    return name_steps(w)


@answers("index_steps", "NOTFOUND")
async def _(w):
    return name_steps(w)


def erase(w):
    keys = [*w.keys.run_keys("r"), *w.keys.step_keys("r"), w.keys.step("r", "stray")]
    return lambda: w.scripts.run("erase_orphan", keys, ["0"])


@answers("erase_orphan", "OK")
async def _(w):
    await ended(w)
    await w.redis.hset(w.keys.step("r", "stray"), "status", "pending")
    await w.redis.delete(w.keys.run("r"))
    return erase(w)


@answers("erase_orphan", "EXISTS")
async def _(w):
    await w.run()
    return erase(w)


def watching(w):
    return w.caller(Watching)


async def quiet(w, every_ms=60_000):
    return await watching(w).quiet_runs(every_ms=every_ms)


async def passive(w, *, delay_ms=3_600_000):
    """A run of which nobody has a part, with a sleep and its timer."""
    entry = await w.started()
    body = step_body("z", "scheduled", 1) + ',"seen":1'
    decision = StepDecision(
        "z", "", "", "scheduled", 1, "", body, ("stepId", "r:z:x"), delay_ms=delay_ms, timer=b"t"
    )
    await w.turn(entry, decisions=[decision])
    await w.turn(entry, 1, 2, end="passivate")


async def found(w):
    return await watching(w).facts("r")


@answers("watch", "OK")
async def _(w):
    await passive(w)
    await w.run("other")
    return lambda: quiet(w)


@answers("watch", "WAIT")
async def _(w):
    await quiet(w)
    return lambda: quiet(w)


def take_up(w):
    return lambda: watching(w).take_up(w.keys.commands("q"), every_ms=60_000)


@answers("take_up", "OK")
async def _(w):
    entry = await w.entry("type", "run.signal", queue="q", consumer="gone")
    await w.redis.xgroup_delconsumer(entry.stream, "askeld", "gone")
    await w.entry("type", "run.signal", queue="q")
    await w.redis.xadd(entry.stream, {"type": "run.signal"})
    return take_up(w)


@answers("take_up", "WAIT")
async def _(w):
    await take_up(w)()
    return take_up(w)


@answers("revive", "OK")
async def _(w):
    await passive(w)
    facts = await found(w)
    return lambda: watching(w).revive(facts)


@answers("revive", "MOVED")
async def _(w):
    await w.started()
    facts = await found(w)
    return lambda: watching(w).revive(facts)


@answers("rearm", "OK")
async def _(w):
    await passive(w)
    await w.redis.delete(w.keys.timers)
    facts = await found(w)
    return lambda: watching(w).rearm(facts, facts.steps[0], b"t")


@answers("rearm", "FIRED")
async def _(w):
    await passive(w, delay_ms=0)
    await w.redis.delete(w.keys.timers)
    words = {"type": "timer.fire", "run_id": "r", "step_name": "z"}
    await w.redis.xadd(w.keys.commands_default, words)
    facts = await found(w)
    return lambda: watching(w).rearm(facts, facts.steps[0], b"t")


@answers("rearm", "DRIVEN")
async def _(w):
    await passive(w)
    await w.redis.delete(w.keys.timers)
    facts = await found(w)
    await w.redis.hset(w.keys.ctl("r"), "token", "9-1")
    return lambda: watching(w).rearm(facts, facts.steps[0], b"t")


@answers("rearm", "MOVED")
async def _(w):
    await passive(w)
    facts = await found(w)
    return lambda: watching(w).rearm(facts, facts.steps[0], b"t")


@answers("rearm", "UNKNOWN")
async def _(w):
    await passive(w)
    await w.redis.delete(w.keys.timers)
    await w.redis.lset(w.keys.history("r"), 1, '{"at":1,"t":"signal","name":"z","due":5}')
    facts = await found(w)
    return lambda: watching(w).rearm(facts, facts.steps[0], b"t")
