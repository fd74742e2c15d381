"""Scenarios of the state service and its lock: how each answer of their scripts comes about."""

import pytest
from tests.state.scenarios import answers

from askel import ConflictError, LockLostError, LockNotAcquiredError, NotFoundError, RunLock
from askel.state.locks.run_lock import _held


def refused(call):
    """Make the call of a service method that raises what the answer means."""

    async def caught():
        with pytest.raises((ConflictError, NotFoundError, LockLostError)):
            await call()

    return caught


def robbed(w):
    """Return the service as it is under a lock that was taken away."""
    _held.set({(id(w.service), "r"): RunLock("r", "robbed", 1)})
    return w.service


@answers("apply status", "OK")
async def _(w):
    await w.run()
    return lambda: w.service.update_run_status("r", "completed", output=1)


@answers("apply status", "ALREADY")
async def _(w):
    await w.run()
    await w.service.update_run_status("r", "completed", output=1)
    return lambda: w.service.update_run_status("r", "completed")


@answers("apply status", "ILLEGAL")
async def _(w):
    await w.run()
    await w.service.update_run_status("r", "completed", output=1)
    return refused(lambda: w.service.update_run_status("r", "completed", output=2))


@answers("apply status", "NOTFOUND")
async def _(w):
    return refused(lambda: w.service.update_run_status("r", "completed"))


@answers("apply status", "LOCKLOST")
async def _(w):
    await w.run()
    return refused(lambda: robbed(w).update_run_status("r", "completed"))


@answers("insert_step", "OK")
async def _(w):
    await w.run()
    return lambda: w.service.insert_step_state("r", "s", "f", {"n": 1}, {"retries": 1}, "before")


@answers("insert_step", "ALREADY")
async def _(w):
    await w.step()
    return lambda: w.service.insert_step_state("r", "s", "f", {"n": 2})


@answers("insert_step", "CONFLICT")
async def _(w):
    await w.step()
    return refused(lambda: w.service.insert_step_state("r", "s", "another"))


@answers("insert_step", "NOTFOUND")
async def _(w):
    return refused(lambda: w.service.insert_step_state("r", "s", "f"))


@answers("insert_step", "TERMINAL")
async def _(w):
    await w.run()
    await w.service.update_run_status("r", "failed")
    return refused(lambda: w.service.insert_step_state("r", "s", "f"))


@answers("insert_step", "LOCKLOST")
async def _(w):
    await w.run()
    return refused(lambda: robbed(w).insert_step_state("r", "s", "f"))


@answers("move_step", "OK")
async def _(w):
    step_id = await w.step()
    return lambda: w.service.set_step_running(step_id)


@answers("move_step", "ALREADY")
async def _(w):
    step_id = await w.step()
    await w.service.set_step_running(step_id)
    return lambda: w.service.set_step_running(step_id)


@answers("move_step", "ILLEGAL")
async def _(w):
    step_id = await w.step()
    await w.service.set_step_running(step_id)
    return refused(lambda: w.service.set_step_scheduled(step_id))


@answers("finish_step", "OK")
async def _(w):
    step_id = await w.step()
    return lambda: w.service.set_step_result(step_id, [1])


@answers("finish_step", "ALREADY")
async def _(w):
    step_id = await w.step()
    await w.service.set_step_result(step_id, [1])
    return lambda: w.service.set_step_result(step_id, [1])


@answers("finish_step", "CONFLICT")
async def _(w):
    step_id = await w.step()
    await w.service.set_step_result(step_id, [1])
    return refused(lambda: w.service.set_step_result(step_id, [2]))


@answers("finish_step", "ILLEGAL")
async def _(w):
    step_id = await w.step()
    await w.service.set_step_result(step_id, [1])
    return refused(lambda: w.service.set_step_error(step_id, ValueError("late")))


@answers("apply retry", "OK")
async def _(w):
    step_id = await w.step()
    await w.service.set_step_error(step_id, ValueError("no"))
    w.service.ids.nonce = lambda: "one call's"
    return lambda: w.service.create_retry_attempt(step_id)


@answers("apply retry", "ILLEGAL")
async def _(w):
    step_id = await w.step()
    return refused(lambda: w.service.create_retry_attempt(step_id))


@answers("apply retry", "SPENT")
async def _(w):
    step_id = await w.step(retries=0)
    await w.service.set_step_error(step_id, ValueError("no"))
    return refused(lambda: w.service.create_retry_attempt(step_id))


@answers("apply set", "OK")
async def _(w):
    await w.run()
    return lambda: w.service.update_run_state("r", "v", [1])


@answers("apply set", "ALREADY")
async def _(w):
    await w.run()
    await w.service.update_run_state("r", "v", [1])
    return lambda: w.service.update_run_state("r", "v", [1])


@answers("apply set", "TERMINAL")
async def _(w):
    await w.run()
    await w.service.update_run_status("r", "failed")
    return refused(lambda: w.service.update_run_state("r", "v", [1]))


@answers("apply note", "OK")
async def _(w):
    step_id = await w.step()
    return lambda: w.service.set_branch_taken(step_id, "left")


@answers("apply note", "ALREADY")
async def _(w):
    step_id = await w.step()
    await w.service.set_step_child_run_id(step_id, "child")
    return lambda: w.service.set_step_child_run_id(step_id, "child")


def transaction(w, step_id, result=1, status="completed"):
    """Return a call that changes something of every kind, as the same copy each time."""
    w.service.ids.suffix = lambda: "one call"

    async def call():
        async with w.service.transaction("r") as tx:
            tx.set_branch_taken(step_id, "left")
            tx.set_step_result(step_id, result)
            other = tx.insert_step_state("other", "f").step_id
            tx.set_step_running(other)
            tx.set_step_error(other, ValueError("no"))
            tx.create_retry_attempt(other, "running")
            tx.set_step_result(other, 2)
            tx.update_run_state("v", 3)
            tx.update_run_status(status)

    return call


@answers("apply transaction", "OK")
async def _(w):
    return transaction(w, await w.step())


@answers("apply transaction", "ALREADY")
async def _(w):
    step_id = await w.step()
    await transaction(w, step_id)()
    return transaction(w, step_id)


@answers("apply transaction", "CONFLICT")
async def _(w):
    step_id = await w.step()
    await w.service.set_step_result(step_id, "another")
    return refused(transaction(w, step_id))


@answers("apply transaction", "ILLEGAL")
async def _(w):
    step_id = await w.step()
    await w.service.set_step_error(step_id, ValueError("no"))
    return refused(transaction(w, step_id))


METHODS = {
    "apply note": lambda service, step_id: service.set_branch_taken(step_id, "left"),
    "move_step": lambda service, step_id: service.set_step_running(step_id),
    "finish_step": lambda service, step_id: service.set_step_result(step_id, 1),
    "apply retry": lambda service, step_id: service.create_retry_attempt(step_id),
}


def for_each_method(script, method):
    """Register what the three scripts on a step that exists refuse alike."""

    @answers(script, "NOTFOUND")
    async def _(w):
        await w.step()
        return refused(lambda: method(w.service, "r:s:of another insertion"))

    @answers(script, "TERMINAL")
    async def _(w):
        step_id = await w.step()
        if script == "apply retry":
            await w.service.set_step_error(step_id, ValueError("no"))
        await w.service.update_run_status("r", "cancelled")
        return refused(lambda: method(w.service, step_id))

    @answers(script, "LOCKLOST")
    async def _(w):
        step_id = await w.step()
        return refused(lambda: method(robbed(w), step_id))


for name, one in METHODS.items():
    for_each_method(name, one)


# Generations of a run.


def created_anew(w, policy="terminate-existing"):
    """Return the call that makes a new generation of run r, as the same copy each time."""
    w.service.ids.suffix = lambda: "one call"
    return lambda: w.service.create_run("w", {"n": 2}, run_id="r", if_exists=policy)


@answers("create_run anew", "OK")
async def _(w):
    step_id = await w.step()
    await w.service.set_step_running(step_id)
    await w.service.update_run_state("r", "v", 1)
    return created_anew(w)


@answers("create_run after the end", "OK")
async def _(w):
    await w.service.set_step_result(await w.step(), 1)
    await w.service.update_run_status("r", "completed")
    return created_anew(w, "after-terminal")


@answers("create_run after the end", "CONFLICT")
async def _(w):
    await w.step()
    return refused(created_anew(w, "after-terminal"))


@answers("create_run anew", "LOCKLOST")
async def _(w):
    await w.step()
    return refused(lambda: created_anew(w)() if robbed(w) else None)


@answers("create_run anew", "BUSY")
async def _(w):
    await w.step()
    await w.hold_lock()

    async def call():
        with pytest.raises(LockNotAcquiredError):
            await created_anew(w)()

    return call


# The run lock.


def acquire(w, holder="me", lease_ms=5_000, longest_ms=60_000):
    keys = [w.keys.run("r"), w.keys.ctl("r"), w.keys.lock("r")]
    return lambda: w.scripts.run("acquire_lock", keys, [holder, lease_ms, longest_ms])


@answers("acquire_lock", "OK")
async def _(w):
    await w.run()
    return acquire(w)


@answers("acquire_lock", "BUSY")
async def _(w):
    await w.run()
    await acquire(w, "somebody")()
    return acquire(w)


@answers("acquire_lock", "NOTFOUND")
async def _(w):
    return acquire(w)


@answers("acquire_lock", "RELEASED")
async def _(w):
    await w.run()
    await acquire(w)()
    await release(w)()
    return acquire(w)


def renew(w):
    return lambda: w.scripts.run("renew_lock", [w.keys.lock("r")], ["me", 9_000])


def release(w):
    keys = [w.keys.ctl("r"), w.keys.lock("r")]
    return lambda: w.scripts.run("release_lock", keys, ["me"])


@answers("renew_lock", "OK")
async def _(w):
    await w.run()
    await acquire(w)()
    return renew(w)


@answers("renew_lock", "LOST")
async def _(w):
    await w.hold_lock()
    return renew(w)


@answers("release_lock", "OK")
async def _(w):
    await w.run()
    await acquire(w)()
    return release(w)


@answers("release_lock", "LOST")
async def _(w):
    await w.hold_lock()
    return release(w)
