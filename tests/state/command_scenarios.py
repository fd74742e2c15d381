"""Scenarios of recorded commands, queued steps and timers: how each answer comes about."""

from tests.state.scenarios import answers

from askel.state import (
    RunStatus,
    Sweeping,
    TokenSweep,
    denied_commands,
    load_scripts,
    renew_call,
    started_body,
    status_body,
)

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


@answers("complete", "DUP")
async def _(w):
    await w.step()
    first = await w.entry("type", "step.complete")
    await w.complete(first, nonce="", command_id="once")
    entry = await w.entry("type", "step.complete")
    return lambda: w.complete(entry, nonce="", command_id="once")


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


def stall(w, entry, **given):
    parts = {"rpc_name": "f", "born": "", "error": b'{"message":"x"}', "detail": "why", **given}
    return w.attempts.stall(entry, "r", "s", **parts)


@answers("stall", "OK")
async def _(w):
    await w.step()
    entry = await w.entry("type", "step.execute")
    return lambda: stall(w, entry)


@answers("stall", "GONE")
async def _(w):
    await w.run()
    entry = await w.entry("type", "step.execute")
    return lambda: stall(w, entry, born="1")


@answers("stall", "BUSY")
async def _(w):
    await w.run()
    entry = await w.entry("type", "step.execute")
    await w.hold_lock()
    return lambda: stall(w, entry)


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


def swept(w, **given):
    consumer = given.pop("consumer", "me")
    options = {"idle_ms": 0, "room": 10, "every_ms": 60_000, **given}
    return lambda: w.caller(Sweeping, consumer).sweep(w.keys.commands("q"), **options)


@answers("sweep", "OK")
async def _(w):
    await w.entry("type", "run.signal", queue="q", consumer="dead")
    return swept(w)


@answers("sweep", "WAIT")
async def _(w):
    await w.entry("type", "run.signal", queue="q", consumer="dead")
    await swept(w, consumer="another")()
    return swept(w)


@answers("renew of a deleted entry", "OK")
async def _(w):
    entry = await w.started()
    await w.redis.xdel(entry.stream, entry.id)
    await renewal(w, entry)()  # claims it, and from Redis 7 on so forgets that it was pending
    return renewal(w, entry)


@answers("renew of a deleted entry", "LOST")
async def _(w):
    entry = await w.started()
    await w.redis.xdel(entry.stream, entry.id)
    await renewal(w, entry)()
    return renewal(w, entry, nonce="robbed")


@answers("self_test", "OK")
async def _(w):
    await w.redis.hset(w.keys.meta, mapping={"store": "s", "layout": 1, "partitions": 1})
    return lambda: denied_commands(w.scripts, w.keys, list(load_scripts()))


@answers("self_test", "NOMETA")
async def _(w):
    return lambda: denied_commands(w.scripts, w.keys, list(load_scripts()))


@answers("remake_tokens", "OK")
async def _(w):
    entry = await w.started()
    await w.redis.xdel(entry.stream, entry.id)
    sweep = w.caller(TokenSweep)
    await sweep.run_once(silent_ms=0)
    return lambda: sweep.run_once(silent_ms=0)
