"""Every public write of the state service, and runs to try it on that are each other's twins."""

from __future__ import annotations

import contextlib
import re
from itertools import count

import pytest
from tests.helpers.keyspace import read_keyspace, without_times
from tests.helpers.stubs import CountedIds

from askel import RedisWorkflowService


async def transaction(service):
    async with service.transaction("r") as tx:
        tx.set_step_running("r:s:id")
        other = tx.insert_step_state("other", "f").step_id
        tx.set_step_error(other, ValueError("no"))
        tx.update_run_state("v", 1)
        tx.update_run_status("suspended", error=ValueError("waits"))


async def locked(service):
    async with service.run_lock("r", wait="5s"):
        await service.update_run_state("r", "v", 1)


async def step_locked(service):
    async with service.step_lock("r", "s", wait="5s"):
        pass


#: Every public write: what it needs, and the call. The run is r, its step s has the id r:s:id.
WRITES = {
    "create_run": ("nothing", lambda s: s.create_run("w", {"n": 1}, run_id="r")),
    "create_run by a key": ("nothing", lambda s: s.create_run("w", 1, idempotency_key="k")),
    "create_run without an id": ("nothing", lambda s: s.create_run("w", 1)),
    "create_run anew": (
        "step",
        lambda s: s.create_run("w", 2, run_id="r", if_exists="terminate-existing"),
    ),
    "update_run_status": ("step", lambda s: s.update_run_status("r", "completed", output=1)),
    "update_run_status to suspended": ("step", lambda s: s.update_run_status("r", "suspended")),
    "update_run_state": ("step", lambda s: s.update_run_state("r", "v", 1)),
    "insert_step_state": ("step", lambda s: s.insert_step_state("r", "new", "f", 1)),
    "set_step_scheduled": ("step", lambda s: s.set_step_scheduled("r:s:id")),
    "set_step_running": ("step", lambda s: s.set_step_running("r:s:id")),
    "set_step_result": ("step", lambda s: s.set_step_result("r:s:id", [1])),
    "set_step_error": ("step", lambda s: s.set_step_error("r:s:id", ValueError("no"))),
    "create_retry_attempt": ("failure", lambda s: s.create_retry_attempt("r:s:id")),
    "create_retry_attempt running": (
        "failure",
        lambda s: s.create_retry_attempt("r:s:id", "running"),
    ),
    "set_branch_taken": ("step", lambda s: s.set_branch_taken("r:s:id", "left")),
    "set_step_child_run_id": ("step", lambda s: s.set_step_child_run_id("r:s:id", "child")),
    "transaction": ("step", transaction),
    "delete_run": ("end", lambda s: s.delete_run("r")),
    "delete_run by force": ("step", lambda s: s.delete_run("r", force=True)),
    "run_lock": ("step", locked),
    "step_lock": ("step", step_locked),
    "upsert_workflow_version": (
        "nothing",
        lambda s: s.upsert_workflow_version("w", "h", {"nodes": {}}, "cli", "draft"),
    ),
    "update_workflow_version_status": (
        "version",
        lambda s: s.update_workflow_version_status("w", "h", "active"),
    ),
    "set_retention": ("nothing", lambda s: s.set_retention("w", ttl="1h")),
}


async def arrange(service, need):
    """Make what a write needs."""
    if need == "version":
        await service.upsert_workflow_version("w", "h", {"nodes": {}}, "cli", "draft")
    if need in {"nothing", "version"}:
        return
    await service.create_run("w", run_id="r")
    service.ids.suffix = lambda: "id"
    await service.insert_step_state("r", "s", "f", None, {"retries": 3})
    del service.ids.suffix
    if need == "failure":
        await service.set_step_error("r:s:id", ValueError("no"))
    if need == "end":
        await service.set_step_result("r:s:id", 1)
        await service.update_run_status("r", "completed")


class Twins:
    """The same run as often as wanted, each under a prefix of its own."""

    def __init__(self, redis, prefix, proxy, url):
        self.redis, self.proxy, self.url = redis, proxy, url
        self._prefix, self._number = prefix, count()

    @contextlib.asynccontextmanager
    async def made(self, need, url=None, **options):
        """Yield a service beside what *need* names; its ids are those of every twin."""
        prefix = f"{self._prefix}:{next(self._number)}"
        service = RedisWorkflowService(url or self.proxy.url, key_prefix=prefix, **options)
        service.ids = CountedIds()
        try:
            await arrange(service, need)
            service.ids = CountedIds(first=1_001)  # a call is known by its ids: none twice
            yield service
        finally:
            await service.close()

    async def state(self, service):
        """Return all that Redis holds for this twin."""
        return without_times(await read_keyspace(self.redis, service.keys.prefix))

    async def leases_end(self, service):
        """Let time pass until a lock that could not be given back expires: it has a lease."""
        for kind in ("lock:r", "step-lock:r:s"):
            key = f"{service.keys.prefix}:{kind}"
            if await self.redis.exists(key):
                assert 0 < await self.redis.pttl(key) <= 30_000
                await self.redis.delete(key)

    async def undisturbed(self, need, call):
        """Return what the call leaves where nothing disturbs it."""
        async with self.made(need) as service:
            await call(service)
            return await self.state(service)


@pytest.fixture
def twins(redis, redis_url, prefix, proxy, in_a_hurry):
    return Twins(redis, prefix, proxy, redis_url)


def fit_to_compare(state, write):
    """Leave out how often a lock was taken, and the ids, which a call of one's own draws anew."""
    text = {name: ID.sub("id", repr(value)) for name, value in sorted(state.items())}
    return {
        ID.sub("id", name): value
        for name, value in text.items()
        if not (name.startswith("ctl:") and "lock" in write)
    }


ID = re.compile(r"(suffix|nonce|run)\d+")


async def impatient(call, service):
    """Make the call; a lock does not wait either."""
    lock, step_lock = service.run_lock, service.step_lock
    service.run_lock = lambda run_id, wait: lock(run_id, wait=0)
    service.step_lock = lambda run_id, name, wait: step_lock(run_id, name, wait=0)
    try:
        await call(service)
    finally:
        del service.run_lock, service.step_lock
