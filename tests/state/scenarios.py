"""Scenarios of the run protocol: how each answer of its scripts comes about."""

from tests.state.world import begins, succeeded

from askel.state import (
    Activations,
    RunStatus,
    StepDecision,
    create_call,
    renew_call,
    started_body,
    status_body,
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


# Commands that are recorded.


def signalled(w, entry, **given):
    return lambda: w.recording.record(entry, "r", "signal", '"t":"signal","name":"x"', **given)


@answers("record", "OK")
async def _(w):
    await w.started()
    return signalled(w, await w.entry("type", "run.signal"), command_id="once")


@answers("record", "STALE")
async def _(w):
    await w.step()
    entry = await w.entry("type", "timer.fire")
    return lambda: w.recording.record(entry, "r", "timer", '"t":"timer"', step_name="s", attempt=7)


@answers("record", "DUP")
async def _(w):
    await w.started()
    await signalled(w, await w.entry("type", "run.signal"), command_id="once")()
    return signalled(w, await w.entry("type", "run.signal"), command_id="once")


@answers("record", "NOTFOUND")
async def _(w):
    return signalled(w, await w.entry("type", "run.signal"))


@answers("record", "TERMINAL")
async def _(w):
    await w.run()
    await w.service.update_run_status("r", "failed")
    return signalled(w, await w.entry("type", "run.signal"))


@answers("record", "GONE")
async def _(w):
    await w.started()
    entry = await w.entry("type", "run.signal")
    await signalled(w, entry)()
    return signalled(w, entry)


@answers("record", "BUSY")
async def _(w):
    await w.started()
    await w.hold_lock()
    return signalled(w, await w.entry("type", "run.signal"))


def cancelled(w, entry, **given):
    return lambda: w.recording.settle(
        entry, "r", RunStatus.CANCELLED, status_body("cancelled"), **given
    )


@answers("settle", "OK")
async def _(w):
    await w.started()
    return cancelled(w, await w.entry("type", "run.cancel"))


@answers("settle", "ALREADY")
async def _(w):
    await w.run()
    await w.service.update_run_status("r", "cancelled")
    return cancelled(w, await w.entry("type", "run.cancel"))


@answers("settle", "ILLEGAL")
async def _(w):
    await w.run()
    await w.service.update_run_status("r", "failed")
    return cancelled(w, await w.entry("type", "run.cancel"))


@answers("settle", "DUP")
async def _(w):
    await w.started()
    await signalled(w, await w.entry("type", "run.signal"), command_id="once")()
    return cancelled(w, await w.entry("type", "run.cancel"), command_id="once")


@answers("settle", "NOTFOUND")
async def _(w):
    return cancelled(w, await w.entry("type", "run.cancel"))


@answers("settle", "GONE")
async def _(w):
    await w.started()
    entry = await w.entry("type", "run.cancel")
    await w.recording.drop(entry)
    return cancelled(w, entry)


@answers("settle", "BUSY")
async def _(w):
    await w.started()
    await w.hold_lock()
    return cancelled(w, await w.entry("type", "run.cancel"))


def created(w, entry, workflow="w"):
    return lambda: w.recording.create(entry, "r", workflow, b'{"n":1}', started_body(workflow))


@answers("create_run", "OK")
async def _(w):
    return created(w, await w.entry("type", "run.create"))


@answers("create_run", "EXISTS")
async def _(w):
    await w.run()
    return created(w, await w.entry("type", "run.create"))


@answers("create_run", "CONFLICT")
async def _(w):
    await w.run()
    return created(w, await w.entry("type", "run.create"), workflow="another")


@answers("create_run", "GONE")
async def _(w):
    entry = await w.entry("type", "run.create")
    await w.recording.drop(entry)
    return created(w, entry)


@answers("put_back", "OK")
async def _(w):
    entry = await w.started()
    return lambda: w.recording.put_back(entry, ("type", "run.start"), run_id="r")


@answers("put_back", "GONE")
async def _(w):
    entry = await w.entry("type", "x")
    await w.recording.drop(entry)
    return lambda: w.recording.put_back(entry, ("type", "x"), due="+5", timer=b"{}", run_id="r")


@answers("bury", "OK")
async def _(w):
    entry = await w.entry("type", "x")
    return lambda: w.recording.bury(entry, "why", "because")


@answers("bury", "GONE")
async def _(w):
    entry = await w.entry("type", "x")
    await w.recording.drop(entry)
    return lambda: w.recording.bury(entry, "why", "because")


@answers("drop", "OK")
async def _(w):
    entry = await w.entry("type", "x")
    return lambda: w.recording.drop(entry)


@answers("forget_consumer", "OK")
async def _(w):
    await w.recording.drop(await w.entry("type", "x"))
    return lambda: w.scripts.run("forget_consumer", [w.keys.commands()], ["askeld", "me"])


@answers("forget_consumer", "KEPT")
async def _(w):
    await w.entry("type", "x")
    return lambda: w.scripts.run("forget_consumer", [w.keys.commands()], ["askeld", "me"])


# Attempts of queued steps.


@answers("begin", "OK")
async def _(w):
    await w.run()
    entry = await w.entry("type", "step.execute", queue="q")
    return lambda: w.begin(entry)


@answers("begin", "LOST")
async def _(w):
    await w.run()
    entry = await w.entry("type", "step.execute", queue="q", consumer="another")
    return lambda: w.begin(entry)


@answers("begin", "NOTFOUND")
async def _(w):
    entry = await w.entry("type", "step.execute", queue="q")
    return lambda: w.begin(entry)


@answers("begin", "TERMINAL")
async def _(w):
    await w.run()
    await w.service.update_run_status("r", "failed")
    entry = await w.entry("type", "step.execute", queue="q")
    return lambda: w.begin(entry)


@answers("begin", "GONE")
async def _(w):
    await w.service.set_step_result(await w.step(), 1)
    entry = await w.entry("type", "step.execute", queue="q")
    return lambda: w.begin(entry)


@answers("begin", "CONFLICT")
async def _(w):
    await w.step()
    entry = await w.entry("type", "step.execute", queue="q")
    return lambda: w.begin(entry, rpc_name="another")


@answers("begin", "SPENT")
async def _(w):
    await w.run()
    entry = await w.begun(retries=0)
    return lambda: w.begin(entry, nonce="after a crash", retries=0)


@answers("begin", "SUSPENDED")
async def _(w):
    await w.run()
    await w.service.update_run_status("r", "suspended")
    entry = await w.entry("type", "step.execute", queue="q")
    return lambda: w.begin(entry)


@answers("begin", "BUSY")
async def _(w):
    await w.run()
    await w.hold_lock()
    entry = await w.entry("type", "step.execute", queue="q")
    return lambda: w.begin(entry)


@answers("complete", "OK")
async def _(w):
    await w.run()
    entry = await w.begun()
    return lambda: w.complete(entry)


@answers("complete", "ALREADY")
async def _(w):
    await w.run()
    entry = await w.begun()
    retry = {"becomes": "failed", "json": b"{}", "final": False, "retry": ("type", "step.execute")}
    await w.complete(entry, **retry)
    return lambda: w.complete(entry, **retry)


@answers("complete", "NOTFOUND")
async def _(w):
    entry = await w.entry("type", "step.complete")
    return lambda: w.complete(entry, nonce="")


@answers("complete", "TERMINAL")
async def _(w):
    await w.run()
    await w.service.update_run_status("r", "failed")
    entry = await w.entry("type", "step.complete")
    return lambda: w.complete(entry, nonce="")


@answers("complete", "GONE")
async def _(w):
    await w.run()
    entry = await w.begun()
    await w.service.update_run_status("r", "failed")
    return lambda: w.complete(entry)


@answers("complete", "FENCED")
async def _(w):
    await w.run()
    entry = await w.begun()
    await w.begin(entry, nonce="of the next attempt")
    return lambda: w.complete(entry)


@answers("complete", "BUSY")
async def _(w):
    await w.run()
    entry = await w.begun()
    await w.hold_lock()
    return lambda: w.complete(entry)


def poison(w, entry):
    return w.attempts.poison(entry, "r", "s", error=b'{"message":"x"}', detail="why", deliveries=5)


@answers("poison", "OK")
async def _(w):
    await w.run()
    entry = await w.begun()
    return lambda: poison(w, entry)


@answers("poison", "GONE")
async def _(w):
    await w.run()
    entry = await w.begun()
    await w.complete(entry)
    return lambda: poison(w, entry)


@answers("poison", "BUSY")
async def _(w):
    await w.run()
    entry = await w.begun()
    await w.hold_lock()
    return lambda: poison(w, entry)


@answers("deliver", "OK")
async def _(w):
    entry = await w.entry("type", "x")
    return lambda: w.recording.deliver(entry, 2)


@answers("deliver", "LOST")
async def _(w):
    entry = await w.entry("type", "x", consumer="another")
    return lambda: w.recording.deliver(entry, 2)


def renewal(w, entry, nonce="own"):
    call = renew_call(
        w.keys, "me", entry, "r", field="owner", holder_key=w.keys.ctl("r"), nonce=nonce
    )
    return lambda: w.scripts.run(*call)


@answers("renew", "OK")
async def _(w):
    return renewal(w, await w.started())


@answers("renew", "LOST")
async def _(w):
    return renewal(w, await w.started(), nonce="robbed")


@answers("due", "OK")
async def _(w):
    await w.redis.zadd(w.keys.timers, {"past": 1, "far": 9e14})
    return lambda: w.timers.due(5)


@answers("fire", "OK")
async def _(w):
    await w.redis.zadd(w.keys.timers, {"past": 1})
    return lambda: w.timers.fire([(b"past", w.keys.commands(), ["type", "timer.fire"])])
