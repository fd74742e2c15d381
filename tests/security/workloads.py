"""Everything that each role is for, on a real server, as the role's own user.

A workload arranges by an administrator's client and acts by the role's user. It raises where what
it did has not come out right; denials that the code survives are for the server's ACL LOG to tell.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import redis.asyncio
from tests.apps.parts import JOURNEY, app
from tests.helpers.daemon import Deployment
from tests.helpers.waiting import wait_until

from askel import Client, RedisWorkflowService
from askel.state import GROUP
from askel.wire import DeadLetters, RunStart, explain_run


@dataclass(frozen=True)
class Office:
    """One user of one role with a prefix of its own, and an administrator."""

    admin: redis.asyncio.Redis
    admin_url: str
    url: str
    prefix: str
    compat: str | None = None

    @property
    def deployment(self) -> Deployment:
        """What is arranged and looked at by the administrator; workers log in as the user."""
        return Deployment(self.admin, self.url, self.prefix)

    @asynccontextmanager
    async def service(self, *, as_admin: bool = False) -> AsyncIterator[RedisWorkflowService]:
        """Provide a service of the user that was not asked to verify the server."""
        service = RedisWorkflowService(
            self.admin_url if as_admin else self.url,
            key_prefix=self.prefix,
            compat=self.compat,
            resend_s=2,
        )
        try:
            yield service
        finally:
            await service.close()

    async def field(self, kind: str, run_id: str, name: str) -> bytes | None:
        """Return one field of a hash of a run."""
        return await self.admin.hget(f"{self.prefix}:{kind}:{run_id}", name)


async def worker(office: Office) -> None:
    """Two workers: everything that commands can ask for, and what loops do unasked."""
    there = office.deployment
    await _leave_to_be_found(office)
    common: dict[str, Any] = {
        "compat": office.compat,
        "retention_ms": 50,
        "max_deliveries": 3,
        "unknown_after_ms": 100,
    }
    warehouse = {**common, "queues": ("warehouse",)}
    async with there.worker(app, **common), there.worker(app, **warehouse):
        await there.send("run.start", workflow="journey", input="end", run_id="j")
        await there.send("run.start", workflow="one_step", input=1, run_id="g", id="k")
        await there.send("run.start", workflow="nonesuch", run_id="u")
        for run_id in ("x", "y"):
            await there.send("run.start", workflow="gives_up", input=1, run_id=run_id)
        await _drive_by_commands(office)
        await there.until("g", "completed")
        await there.send("run.start", workflow="one_step", input=1, run_id="g", id="k")
        again = {"run_id": "g", "if_exists": "after-terminal"}
        await there.send("run.start", workflow="one_step", input=2, **again)

        async def settled() -> bool:
            anew = await office.field("run", "g", "generation")
            return anew == b"2" and await _deleted(office) == 2

        record = await there.until("j", "completed")
        assert json.loads(record.run["output"]) == [*JOURNEY, "end"]
        await wait_until(settled, 15)
        await there.until("left", "completed")
        await _end_what_is_locked(office)
        await there.until("at", "completed")
        letters = await there.dead_letters(3)
        assert {"poison", "unknown_workflow", "unknown_command"} <= {
            letter["reason"] for letter in letters
        }


async def _leave_to_be_found(office: Office) -> None:
    """A retention policy, and what a worker that died has left: a start, and a poison."""
    there, stream = office.deployment, office.deployment.stream()
    async with office.service(as_admin=True) as service:
        await service.set_retention("gives_up", ttl="1d", max_runs=1, max_bytes="1MiB")
        await service.create_run("gives_up", run_id="token")
        await service.update_run_status("token", "completed", 1)
    await office.admin.hset(f"{office.prefix}:ctl:token", "token", "1-1")
    await there.send("run.start", workflow="one_step", input=1, run_id="left")
    poison = await there.send("step.execute", run_id="d", step_name="p", rpc_name="die")
    await office.admin.xgroup_create(stream, GROUP, "0")
    await office.admin.xreadgroup(GROUP, "dead", {stream: ">"})
    await office.admin.xclaim(stream, GROUP, "dead", 0, [poison], retrycount=3, justid=True)


async def _drive_by_commands(office: Office) -> None:
    """A run that another program drives, held, signalled, and ended."""
    there = office.deployment
    await there.send("run.create", workflow="w", run_id="d")
    await there.until("d", "running")
    await there.send("run.suspend", run_id="d")
    await there.until("d", "suspended")
    await there.send("run.resume", run_id="d")
    await there.send(
        "step.execute", run_id="d", step_name="s", rpc_name="flaky", data=1, retry_delay="10ms"
    )
    await there.until_step("d", "s", "succeeded")
    await there.send("run.signal", run_id="d", name="n", data=1, id="s1")
    seconds, _ = await office.admin.time()
    await there.send(
        "run.start", workflow="one_step", input=1, run_id="at", at=seconds * 1_000 + 1_200
    )
    await there.send("garbage")


async def _end_what_is_locked(office: Office) -> None:
    """A command that waits for the run lock; a byte budget that is measured again."""
    there, lock = office.deployment, f"{office.prefix}:lock:d"
    await office.admin.set(lock, "somebody", px=60_000)
    await there.send("run.signal", run_id="d", name="n", id="s2")
    await there.send("run.start", workflow="one_step", input=1, run_id="after")
    await there.until("after", "completed")
    await office.admin.delete(lock)
    await there.send("run.complete", run_id="d", output=1)
    await there.until("d", "completed")
    await there.send("run.start", workflow="gives_up", input=1, run_id="z")

    async def gone() -> bool:
        return await _deleted(office) == 3

    await wait_until(gone)


async def _deleted(office: Office) -> int:
    """Return how many runs have been deleted."""
    events = await office.admin.xrange(f"{office.prefix}:events")
    return sum(fields[b"status"] == b"deleted" for _, fields in events)


async def producer(office: Office) -> None:
    """Send commands, to the default stream and to that of a queue; nothing is awaited."""
    async with Client(office.url, office.prefix) as client:
        handle = await client.start("checkout", {"n": 1}, run_id="r")
        await client.send(RunStart(workflow="checkout", run_id="q"), "warehouse")
        await client.signal("r", "paid")
        await client.cancel("r", "changed my mind")
    assert handle.run_id == "r"
    assert await office.admin.xlen(f"{office.prefix}:commands") == 3
    assert await office.admin.xlen(f"{office.prefix}:commands:warehouse") == 1


async def viewer(office: Office) -> None:
    """Look at everything that there is to see."""
    await _furnish(office)
    await _leave_a_letter_and_a_sleeper(office)
    await _hold_token(office)
    async with office.service() as service:
        run = await service.get_run("r")
        assert run is not None
        assert run.status == "completed"
        assert await _listed(service) == ["sleeps", "live", "driven", "r"]
        assert await _listed(service, status="running") == ["sleeps", "live", "driven"]
        page = await service.list_runs(limit=1)
        assert await _listed(service, cursor=page.cursor) == ["live", "driven", "r"]
        assert len(await service.get_run_history("r")) == 2
        assert (await service.get_step_state("r", "a")).result == 2
        assert len(await service.get_run_steps("r")) == 1
        assert (await service.get_run_status("r")).output == 3
        assert (await service.get_run_timeline("r")).events
        assert await service.get_run_state("r") == {"v": 1}
        assert await service.get_distinct_workflow_names() == ["rests", "w"]
        assert (await service.get_completed_graph_state("r")).completed_node_ids == ["a"]
        assert await service.get_node_results("r", ["a"]) == {"a": 2}
        assert await service.get_workflow_version("w", "h") is not None
        assert set(await service.get_retention()) == {"w"}
        assert await service.get_history_entries("r")
        assert (await explain_run(service, "live")).text
        assert (await explain_run(service, "sleeps")).text
    async with DeadLetters(office.url, office.prefix) as letters:
        (letter,) = (await letters.list(older_than=0)).letters
        assert (await letters.get(letter.id)).reason == "unknown_command"
        assert await letters.count() == 1
    async with Client(office.url, office.prefix) as client:
        assert await client.result("r", "5s") == 3
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_end, office, "live", 4)
            assert await client.result("live", "20s") == 4


async def _listed(service: RedisWorkflowService, **chosen: Any) -> list[str]:
    return [run.id for run in (await service.list_runs(**chosen)).runs]


async def _end(office: Office, run_id: str, output: Any) -> None:
    """Complete a run as soon as somebody blocks on the stream of events."""

    async def blocked() -> bool:
        return bool((await office.admin.info("clients"))["blocked_clients"])

    await wait_until(blocked)
    async with office.service(as_admin=True) as service:
        await service.update_run_status(run_id, "completed", output)


async def _furnish(office: Office) -> None:
    async with office.service(as_admin=True) as service:
        await service.init()
        await service.create_run("w", {"n": 1}, run_id="r")
        step = await service.insert_step_state("r", "a", "f", 1, {"retries": 1})
        await service.set_step_running(step.step_id)
        await service.set_step_error(step.step_id, ValueError("no"))
        await service.create_retry_attempt(step.step_id, "running")
        await service.set_step_result(step.step_id, 2)
        await service.update_run_state("r", "v", 1)
        await service.update_run_status("r", "completed", output=3)
        await service.create_run("w", {"n": 2}, run_id="driven")
        await service.create_run("w", {"n": 3}, run_id="live")
        await service.upsert_workflow_version("w", "h", {}, "tests")
        await service.set_retention("w", max_runs=10)


async def _leave_a_letter_and_a_sleeper(office: Office) -> None:
    """As a worker does."""
    there = office.deployment
    as_admin = Deployment(office.admin, office.admin_url, office.prefix)
    async with as_admin.worker(app, linger_ms=1):
        await there.send("garbage", run_id="r")
        await there.dead_letters()
        await there.send("run.start", workflow="rests", input="1d", run_id="sleeps")
        await there.until_step("sleeps", "rest", "scheduled")


async def janitor(office: Office) -> None:
    """Retention, deletion, reindexing of a damaged prefix, and dead letters."""
    await _furnish(office)
    await _damage(office)
    await _bury(office, 3)
    p = office.prefix
    async with office.service() as service:
        await service.init()
        report = await service.reindex()
        assert report.indexed + report.moved == 1
        assert report.orphans == 1
        assert report.steps == 1
        await service.set_retention("w", ttl="1d", max_runs=1, max_bytes="1MiB")
        assert await service.apply_retention() == 0
        await service.update_run_status("driven", "completed", 1)
        assert await service.apply_retention() == 1
        await office.admin.set(f"{p}:lock:driven", "somebody", px=60_000)
        await service.set_retention("w", max_runs=0)
        assert await service.apply_retention() == 0
        await office.admin.delete(f"{p}:lock:driven")
        assert await service.apply_retention() == 1
        assert await service.clear_retention("w")
        assert await service.delete_run("live", force=True)
    assert await office.admin.xlen(f"{p}:commands") == 0
    async with DeadLetters(office.url, p) as letters:
        one, two, three = [letter async for letter in letters.all(older_than=0)]
        assert await letters.redrive(one)
        assert await letters.redrive(two.id)
        assert await letters.drop(three.id)
        assert await letters.count() == 0
    assert await office.admin.xlen(f"{p}:commands") == 2


async def _bury(office: Office, count: int) -> None:
    """Leave dead letters as a worker writes them."""
    fields = {"reason": "run_not_found", "detail": "x", "stream": f"{office.prefix}:commands"}
    for number in range(count):
        letter = {**fields, "entry": f"{number}-1", "deliveries": 1, "at": 1, "type": "run.cancel"}
        await office.admin.xadd(f"{office.prefix}:dead", {**letter, "run_id": f"r{number}"})


async def _damage(office: Office) -> None:
    """What reindexing mends, and a run that a worker drives."""
    p, admin = office.prefix, office.admin
    await admin.zrem(f"{p}:runs", "r")
    await admin.zadd(f"{p}:runs", {"ghost": 5})
    await admin.delete(f"{p}:steps:r")
    await admin.rpush(f"{p}:history:orphan", "{}")
    await admin.zadd(f"{p}:runs:workflows", {"no such": 1})
    await admin.xgroup_create(f"{p}:commands", GROUP, "0", mkstream=True)
    await _hold_token(office)


async def _hold_token(office: Office) -> None:
    """Let a worker that is not there have the token of a run."""
    p, admin = office.prefix, office.admin
    token = await admin.xadd(f"{p}:commands", {"type": "run.advance", "run_id": "live"})
    await admin.xreadgroup(GROUP, "owner", {f"{p}:commands": ">"})
    await admin.hset(f"{p}:ctl:live", "token", token)


#: By role.
WORKLOADS: dict[str, Callable[[Office], Awaitable[None]]] = {
    "worker": worker,
    "producer": producer,
    "viewer": viewer,
    "janitor": janitor,
}
