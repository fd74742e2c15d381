"""Scenarios of the state service and its lock: how each answer of their scripts comes about."""

import pytest
from tests.state.scenarios import answers

from askel import ConflictError, LockLostError, NotFoundError


def refused(call):
    """Make the call of a service method that raises what the answer means."""

    async def caught():
        with pytest.raises((ConflictError, NotFoundError, LockLostError)):
            await call()

    return caught


def robbed(w):
    """Return the service as it is under a lock that was taken away."""
    w.service._holder = lambda run_id: "robbed"
    return w.service


@answers("update_run", "OK")
async def _(w):
    await w.run()
    return lambda: w.service.update_run_status("r", "completed", output=1)


@answers("update_run", "ALREADY")
async def _(w):
    await w.run()
    await w.service.update_run_status("r", "completed", output=1)
    return lambda: w.service.update_run_status("r", "completed")


@answers("update_run", "ILLEGAL")
async def _(w):
    await w.run()
    await w.service.update_run_status("r", "completed", output=1)
    return refused(lambda: w.service.update_run_status("r", "completed", output=2))


@answers("update_run", "NOTFOUND")
async def _(w):
    return refused(lambda: w.service.update_run_status("r", "completed"))


@answers("update_run", "LOCKLOST")
async def _(w):
    await w.run()
    return refused(lambda: robbed(w).update_run_status("r", "completed"))


@answers("insert_step", "OK")
async def _(w):
    await w.run()
    return lambda: w.service.insert_step_state("r", "s", "f", {"n": 1}, {"retries": 1}, "before")


@answers("insert_step", "EXISTS")
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


@answers("retry_step", "OK")
async def _(w):
    step_id = await w.step()
    await w.service.set_step_error(step_id, ValueError("no"))
    w.service.ids.nonce = lambda: "one call's"
    return lambda: w.service.create_retry_attempt(step_id)


@answers("retry_step", "ILLEGAL")
async def _(w):
    step_id = await w.step()
    return refused(lambda: w.service.create_retry_attempt(step_id))


@answers("retry_step", "SPENT")
async def _(w):
    step_id = await w.step(retries=0)
    await w.service.set_step_error(step_id, ValueError("no"))
    return refused(lambda: w.service.create_retry_attempt(step_id))


METHODS = {
    "move_step": lambda service, step_id: service.set_step_running(step_id),
    "finish_step": lambda service, step_id: service.set_step_result(step_id, 1),
    "retry_step": lambda service, step_id: service.create_retry_attempt(step_id),
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
        if script == "retry_step":
            await w.service.set_step_error(step_id, ValueError("no"))
        await w.service.update_run_status("r", "cancelled")
        return refused(lambda: method(w.service, step_id))

    @answers(script, "LOCKLOST")
    async def _(w):
        step_id = await w.step()
        return refused(lambda: method(robbed(w), step_id))


for name, one in METHODS.items():
    for_each_method(name, one)


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


def renew(w):
    return lambda: w.scripts.run("renew_lock", [w.keys.lock("r")], ["me", 9_000])


def release(w):
    return lambda: w.scripts.run("release_lock", [w.keys.lock("r")], ["me"])


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
