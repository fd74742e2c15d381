"""Scenarios of the run protocol: how each answer of its scripts comes about."""

from tests.state.world import begins, succeeded

from askel.state import (
    Activations,
    IfExists,
    StepDecision,
    create_call,
    started_body,
    step_body,
)

# (script, word) -> the scenario: it arranges, then returns the call to make.
SCENARIOS = {}


def answers(script, *words):
    """Register a scenario that makes *script* answer one of *words*."""

    def register(scenario):
        for word in words:
            SCENARIOS[script, word] = scenario
        return scenario

    return register


# Runs that daemons drive.


@answers("start", "OK")
async def _(w):
    entry = await w.entry("type", "run.start")
    return lambda: w.start(entry)


@answers("start", "LOST")
async def _(w):
    entry = await w.entry("type", "run.start", consumer="another")
    return lambda: w.start(entry)


@answers("start", "GONE")
async def _(w):
    entry = await w.started()
    await w.service.update_run_status("r", "cancelled")
    return lambda: w.start(entry)


@answers("start", "EXISTS")
async def _(w):
    await w.started()
    entry = await w.entry("type", "run.start")
    return lambda: w.start(entry, owner="another")


@answers("start anew", "OK")
async def _(w):
    await w.begun_run()
    entry = await w.entry("type", "run.start")
    return lambda: w.start(entry, owner="another", policy=IfExists.TERMINATE_EXISTING)


@answers("start anew", "GONE")
async def _(w):
    first = await w.begun_run()
    entry = await w.entry("type", "run.start")
    await w.start(entry, owner="another", policy=IfExists.TERMINATE_EXISTING)
    return lambda: w.start(first, policy=IfExists.TERMINATE_EXISTING)


@answers("start", "CONFLICT")
async def _(w):
    await w.started()
    entry = await w.entry("type", "run.start")
    return lambda: w.start(entry, owner="another", workflow="another")


@answers("start", "BUSY")
async def _(w):
    entry = await w.started()
    await w.hold_lock()
    return lambda: w.start(entry)


@answers("start", "POISON")
async def _(w):
    entry = await w.started()
    w.activations = w.caller(Activations, robbed_limit=0)
    return lambda: w.start(entry, owner="robber")


@answers("activate", "OK")
async def _(w):
    entry = await w.started()
    return lambda: w.activations.activate(entry, "robber", "r")


@answers("activate", "LOST")
async def _(w):
    entry = await w.started()
    other = w.caller(Activations, "another")
    return lambda: other.activate(entry, "robber", "r")


@answers("activate", "GONE")
async def _(w):
    await w.started()
    entry = await w.entry("type", "run.advance")
    return lambda: w.activations.activate(entry, "robber", "r")


@answers("activate", "BUSY")
async def _(w):
    entry = await w.started()
    await w.hold_lock()
    return lambda: w.activations.activate(entry, "robber", "r")


@answers("activate", "POISON")
async def _(w):
    entry = await w.started()
    callers = w.caller(Activations, robbed_limit=0)
    return lambda: callers.activate(entry, "robber", "r")


async def inline(w, owner="own"):
    """Create an inline run whose owner holds the lock."""
    await w.scripts.run(
        *create_call(w.keys, "r", "w", b"{}", started_body("w"), owner=owner, lease_ms=60_000)
    )


@answers("adopt", "OK")
async def _(w):
    await inline(w)
    return lambda: w.activations.adopt("own", "r")


@answers("adopt", "NOTFOUND")
async def _(w):
    return lambda: w.activations.adopt("own", "r")


@answers("adopt", "TERMINAL")
async def _(w):
    await w.run()
    await w.service.update_run_status("r", "failed")
    return lambda: w.activations.adopt("own", "r")


@answers("adopt", "MANAGED")
async def _(w):
    await w.started()
    return lambda: w.activations.adopt("robber", "r")


@answers("adopt", "BUSY")
async def _(w):
    await inline(w)
    return lambda: w.activations.adopt("another", "r")


@answers("adopt", "POISON")
async def _(w):
    await inline(w)
    await w.redis.delete(w.keys.lock("r"))
    callers = w.caller(Activations, robbed_limit=0)
    return lambda: callers.adopt("another", "r")


@answers("turn", "OK")
async def _(w):
    entry = await w.started()
    await w.turn(entry, 0, 1, decisions=[begins()])
    decisions = [begins("t", nonce="tn"), sleeps("z")]
    return lambda: w.turn(entry, 1, 2, results=[succeeded(seen=2)], decisions=decisions)


def sleeps(name):
    body = step_body(name, "scheduled", 1) + ',"seen":1'
    return StepDecision(
        name,
        "",
        "",
        "scheduled",
        1,
        "",
        body,
        ("stepId", f"r:{name}:x"),
        delay_ms=1_000,
        timer=b"{}",
    )


@answers("turn", "END")
async def _(w):
    entry = await w.started()
    return lambda: w.turn(entry, end="passivate")


@answers("turn", "BEHIND")
async def _(w):
    entry = await w.started()
    await w.recording.record(await w.entry("type", "run.signal"), "r", "signal", '"t":"signal"')
    return lambda: w.turn(entry, end="passivate")


@answers("turn", "LOST")
async def _(w):
    entry = await w.started()
    return lambda: w.turn(entry, owner="robbed", decisions=[begins()])


@answers("turn", "GONE")
async def _(w):
    return lambda: w.turn(None, decisions=[begins()])


@answers("turn", "TERMINAL")
async def _(w):
    entry = await w.started()
    await w.service.update_run_status("r", "cancelled")
    return lambda: w.turn(entry, decisions=[begins()])


@answers("turn", "CONFLICT")
async def _(w):
    entry = await w.started()
    await w.turn(entry, decisions=[begins()])
    return lambda: w.turn(entry, 1, 2, results=[succeeded(nonce="stale", seen=2)])


@answers("turn after a failover that lost history", "CONFLICT")
async def _(w):
    entry = await w.started()
    await w.redis.rpush(w.keys.history("r"), "{}")
    await w.redis.rpop(w.keys.history("r"))
    return lambda: w.turn(entry, 0, 2, decisions=[begins()])


@answers("turn", "BUSY")
async def _(w):
    entry = await w.started()
    await w.hold_lock()
    return lambda: w.turn(entry, decisions=[begins()])


@answers("requeue", "OK")
async def _(w):
    entry = await w.started()
    return lambda: w.activations.requeue(entry, "own", "r")


@answers("requeue", "LOST")
async def _(w):
    entry = await w.started()
    return lambda: w.activations.requeue(entry, "another", "r")
