"""The connection is cut at every command of every write of the state service.

A write that is disturbed leaves exactly what the undisturbed one leaves; so does the same call,
made again by a caller that was told nothing. Beside every case stands what it is compared with:
the same call on a twin of the run, where nothing was disturbed.
"""

import asyncio
import contextlib
from itertools import count

import pytest
from tests.helpers.servers import server_ids
from tests.helpers.state import in_a_hurry
from tests.helpers.twins import WRITES, fit_to_compare, impatient, twins

from askel import (
    ConflictError,
    StoreUnavailableError,
    UnknownOutcomeError,
)
from askel.state import load_scripts

__all__ = ["in_a_hurry", "twins"]

pytestmark = pytest.mark.allow_keys(r".*")  # twins have prefixes of their own


each_write = pytest.mark.parametrize("write", WRITES)
#: Writes of which a second call makes a second thing.
ANOTHER = {"create_run without an id", "create_run anew"}
#: Cuts: the method of the proxy that arms it, its arguments, and whether the server is away after.
CUTS = {
    "before": ("lose_next_request", (), False),
    "in the request": ("cut_next_request", (20,), False),
    "in the reply": ("cut_next_reply", (3,), False),
    "after": ("lose_next_reply", (), False),
    "before, then away": ("lose_next_request", (), True),
    "after, then away": ("lose_next_reply", (), True),
}


@pytest.fixture(params=server_ids()[1:])
def redis_server(request, server_pool):
    """The two kinds of Redis; what does not depend on the kind is tried on the third server."""
    return server_pool.get(request.param)


async def know_scripts(redis):
    for script in load_scripts().values():
        await redis.script_load(script.body)


def is_ours(request):
    return b"EVALSHA" in request or b"SCRIPT" in request


def on_command(place, then=bool):
    """Match the command at *place*, from 0, of those that come from now on; do *then*."""
    seen = count()

    def matches(request):
        if not is_ours(request) or next(seen) != place:
            return False
        then()
        return True

    return matches


def cut(proxy, kind, place):
    """Arm a cut at the command at *place*."""
    method, args, is_away = CUTS[kind]

    def go_away():
        proxy.refuse_connections()
        asyncio.get_running_loop().call_later(0.02, proxy.accept_connections)

    return getattr(proxy, method)(*args, match=on_command(place, go_away if is_away else bool))


async def commands_of(twins, need, call, *, forget):
    """Return how many commands the call sends, on a server that knows its scripts or not."""
    async with twins.made(need) as service:
        if forget:
            await twins.redis.script_flush()
        await service.get_run("r")  # the connection is open
        twins.proxy.forget()
        await call(service)
        return sum(name in {"EVALSHA", "SCRIPT"} for name in twins.proxy.names)


async def repeated(service, call):
    """Make the call again, as a caller does who does not know whether the first one landed."""
    with contextlib.suppress(ConflictError):  # it landed, and says so
        await call(service)


@each_write
async def test_a_cut_anywhere_leaves_what_no_cut_leaves(redis_server, twins, redis, write):
    need, call = WRITES[write]
    await know_scripts(redis)
    wanted = fit_to_compare(await twins.undisturbed(need, call), write)
    for place in range(await commands_of(twins, need, call, forget=False)):
        for kind in CUTS:
            async with twins.made(need) as service:
                await service.get_run("r")
                rule = cut(twins.proxy, kind, place)
                await call(service)
                await twins.leases_end(service)
                state = fit_to_compare(await twins.state(service), write)
                assert (rule.hits, state) == (1, wanted), f"cut {kind} command {place}"
                if write not in ANOTHER:
                    await repeated(service, call)
                    state = fit_to_compare(await twins.state(service), write)
                    assert state == wanted, f"again, cut {kind} {place}"


@each_write
async def test_a_cut_while_a_forgotten_script_is_loaded(redis_server, twins, redis, write):
    need, call = WRITES[write]
    await know_scripts(redis)
    wanted = fit_to_compare(await twins.undisturbed(need, call), write)
    for place in range(await commands_of(twins, need, call, forget=True)):
        for kind in ("before", "after"):
            async with twins.made(need) as service:
                await redis.script_flush()
                await service.get_run("r")
                rule = cut(twins.proxy, kind, place)
                await call(service)
                await twins.leases_end(service)
                state = fit_to_compare(await twins.state(service), write)
                assert (rule.hits, state) == (1, wanted), f"{kind} {place}"


@each_write
async def test_a_caller_without_patience_is_told_and_may_repeat(twins, redis, write):
    need, call = WRITES[write]
    await know_scripts(redis)
    wanted = fit_to_compare(await twins.undisturbed(need, call), write)
    for kind in CUTS:
        async with twins.made(need) as service:
            await service.get_run("r")
            service.resend_s = 0.0
            rule = cut(twins.proxy, kind, 0)
            with pytest.raises((UnknownOutcomeError, StoreUnavailableError)):
                await impatient(call, service)
            assert rule.hits == 1
            service.resend_s = 5.0
            await twins.leases_end(service)
            if write in ANOTHER:
                continue
            await repeated(service, call)
            assert fit_to_compare(await twins.state(service), write) == wanted, kind


@each_write
async def test_a_server_that_is_away_is_told_and_nothing_was_sent(twins, redis, write):
    need, call = WRITES[write]
    async with twins.made(need) as service:
        before = await twins.state(service)
        service.resend_s = 0.0
        twins.proxy.refuse_connections()
        twins.proxy.drop_connections()
        with pytest.raises((StoreUnavailableError, UnknownOutcomeError)):
            await impatient(call, service)
        assert await twins.state(service) == before
        twins.proxy.accept_connections()


@each_write
async def test_a_caller_cancelled_anywhere_may_repeat(twins, redis, write):
    """Passes of the loop are counted, so that each await of the call is one that is cancelled."""
    need, call = WRITES[write]
    await know_scripts(redis)
    wanted = fit_to_compare(await twins.undisturbed(need, call), write)
    ended = False
    for passes in count():
        if ended:
            break
        async with twins.made(need, url=twins.url) as service:
            task = asyncio.create_task(call(service))
            for _ in range(passes):
                await asyncio.sleep(0)
            ended = task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if write in ANOTHER:
                assert (await service.get_run("nobody")) is None  # the connection is as it was
                continue
            await repeated(service, call)
            assert fit_to_compare(await twins.state(service), write) == wanted, passes
