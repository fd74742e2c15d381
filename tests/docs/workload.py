"""Everything that this release does to Redis, and what stands there at any moment of it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import anyio
import redis.asyncio
from tests.helpers.daemon import Deployment
from tests.helpers.waiting import wait_until

from askel import App, NotConfirmedError, RedisWorkflowService, Run, StepContext
from askel.state import Confirmer, Sweeping, connect

KINDS = {
    b"hash": "hash",
    b"list": "list",
    b"zset": "sorted set",
    b"stream": "stream",
    b"string": "string",
    b"none": "gone",
}
Found = dict[str, tuple[str, set[str]]]


def make_app(gate: anyio.Event) -> App:
    """Return an app whose first step waits at *gate*."""
    app = App("everything")

    @app.step(retries=1, retry_delay="1ms")
    async def flaky(data: Any, ctx: StepContext) -> Any:
        await gate.wait()
        if ctx.attempt == 1:
            raise ConnectionError("once")
        return data

    @app.step
    async def pack(data: Any) -> Any:
        return data

    @app.workflow
    async def checkout(run: Run, pause: str) -> None:
        await run.do("flaky", flaky, {"n": 1})
        await run.do("packed", pack, queue="warehouse")
        await run.sleep("nap", pause)

    @app.workflow
    async def short(run: Run) -> None:
        await run.do("packed", pack)
        with suppress(TimeoutError):
            await run.wait_signal("news", timeout="1ms")

    return app


class Watch:
    """Remembers every key and field that was there at any look."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str) -> None:
        """Look at the keys of *prefix*."""
        self._client = client
        self._prefix = prefix
        self.found: Found = {}

    async def look(self) -> None:
        """Add what is there now; the prefix is called P."""
        async for key in self._client.scan_iter(match=f"{self._prefix}:*", count=1_000):
            kind = KINDS[await self._client.type(key)]
            if kind == "gone":
                continue
            name = key.decode().replace(self._prefix, "P", 1)
            known = self.found.setdefault(name, (kind, set()))
            known[1].update(await self._names(key, kind))

    async def _names(self, key: bytes, kind: str) -> set[str]:
        if kind == "hash":
            return {name.decode() for name in await self._client.hkeys(key)}
        if kind == "stream":
            entries = await self._client.xrange(key)
            return {name.decode() for _, fields in entries for name in fields}
        if b":step-history:" in key:
            members = await self._client.zrange(key, 0, -1)
            return {name for member in members for name in json.loads(member)}
        return set()


async def do_everything(client: redis.asyncio.Redis, url: str, prefix: str) -> Found:
    """Do all there is under *prefix* and return what was found, as (type, names) by key."""
    watch = Watch(client, prefix)
    async with RedisWorkflowService(url, key_prefix=prefix, compat="pikku") as service:
        await _embed(service, watch)
        service.confirmer = Confirmer(lambda: connect(url), service.keys, confirm_s=0.01)
        with suppress(NotConfirmedError):
            await service.create_run("careful", run_id="careful", durability="replicated(9)")
        await watch.look()
        await make_app(anyio.Event()).start(service, "short", run_id="inline")
        await watch.look()
        await _serve(Deployment(client, url, prefix), watch)
        await _lose_a_token(Deployment(client, url, prefix), watch)
        await service.set_retention("w", ttl="1h", max_runs=9, max_bytes="1GiB")
        await service.set_retention(None, ttl="1h")
        await service.apply_retention()
        await service.delete_run("other", force=True)
        # As after a jump of the server's clock: far beyond what was expected.
        sweeping = Sweeping(service.scripts, service.keys, consumer="c")
        stream = service.keys.commands_default
        await sweeping.sweep(stream, idle_ms=1_000, room=1, every_ms=1, expected_ms=0)
    await watch.look()
    return watch.found


async def _embed(service: RedisWorkflowService, watch: Watch) -> None:
    """Every write of an embedding program."""
    await service.create_run(
        "w",
        {"n": 1},
        run_id="r",
        inline=True,
        graph_hash="h:1",
        wire={"http": 1},
        deterministic=True,
        planned_steps=["a"],
    )
    await service.create_run("w", run_id="other")
    options = {"retries": 2, "retry_delay": "5s"}
    step = await service.insert_step_state("r", "a:b", "f", 1, options, "before")
    await service.set_step_scheduled(step.step_id)
    async with service.step_lock("r", "a:b"):
        await service.set_step_running(step.step_id)
        await watch.look()
    await service.set_step_error(step.step_id, ValueError("no"))
    await watch.look()
    await service.create_retry_attempt(step.step_id, "running")
    await service.set_branch_taken(step.step_id, "left")
    await service.set_step_child_run_id(step.step_id, "other")
    async with service.run_lock("r"):
        await service.set_step_result(step.step_id, 2)
        await watch.look()
    async with service.transaction("r") as changes:
        changes.update_run_state("v", 1)
        changes.update_run_status("suspended", error=ValueError("why"))
    await watch.look()
    await service.update_run_status("r", "running")
    await service.update_run_status("r", "completed", output=[])
    await watch.look()
    await service.create_run("w", run_id="r", if_exists="after-terminal")
    for status in ("stalled", "running", "failed"):
        await service.update_run_status("r", status)
        await watch.look()
    await service.update_run_status("other", "cancelled")
    await service.upsert_workflow_version("w", "h:1", {"nodes": []}, "graph")
    await watch.look()


async def _serve(deployment: Deployment, watch: Watch) -> None:
    """Every kind of command that moves something, by two workers."""
    gate = anyio.Event()
    app = make_app(gate)
    slow = {"lease_ms": 60_000, "claim_idle_ms": 120_000, "linger_ms": 60_000}
    async with (
        deployment.worker(app, **slow),
        deployment.worker(app, **slow, queues=("warehouse",)),
    ):
        await deployment.send("run.start", workflow="checkout", input="1h", run_id="d", id="c-1")
        await deployment.until_step("d", "flaky", "running")
        await watch.look()
        gate.set()

        async def asleep() -> bool:
            await watch.look()
            return (await deployment.step("d", "nap")).get("status") == "scheduled"

        await wait_until(asleep)
        await deployment.send("run.signal", run_id="d", name="s", data=1, id="c-2")
        await deployment.send("run.cancel", run_id="gone")
        await deployment.send("run.cancel", run_id="d", id="c-3")
        await deployment.until("d", "cancelled")
        await deployment.dead_letters()

        async def let_go() -> bool:
            return "owner" not in (await deployment.record("d")).ctl

        await wait_until(let_go)
        words = {"workflow": "short", "run_id": "d", "if_exists": "after-terminal"}
        await deployment.send("run.start", "warehouse", **words)
        await deployment.until("d", "completed")
        await watch.look()


async def _lose_a_token(deployment: Deployment, watch: Watch) -> None:
    """Delete the entry of a run that is driven."""
    gate = anyio.Event()
    quick = {"lease_ms": 60, "claim_idle_ms": 90, "retention_ms": 20}
    async with deployment.worker(make_app(gate), **quick):
        entry = await deployment.send("run.start", workflow="checkout", input="1ms", run_id="lost")
        await deployment.until_step("lost", "flaky", "running")
        await deployment.client.xdel(deployment.stream(), entry)

        async def is_noticed() -> bool:
            await watch.look()
            return {"alive", "gone"} <= set((await deployment.record("lost")).ctl)

        await wait_until(is_noticed)
        await deployment.send("run.cancel", run_id="lost")
        await deployment.until("lost", "cancelled")
        gate.set()
