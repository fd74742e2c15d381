"""Runs in every state, on a real server: what the tests of the scripts arrange and look at."""

from __future__ import annotations

from typing import Any

import redis.asyncio

from askel import RedisWorkflowService
from askel.state import (
    GROUP,
    Activated,
    Activations,
    Attempts,
    Connection,
    Entry,
    IfExists,
    Keys,
    Recording,
    Scripts,
    StepDecision,
    StepResult,
    Timers,
    Turn,
    started_body,
    step_body,
)


class HeardScripts(Scripts):
    """Scripts that remember the last word that was answered."""

    last = ""

    async def run(self, name: str, keys: Any, args: Any) -> list[Any]:
        """Run the script; remember its answer."""
        answer = await super().run(name, keys, args)
        self.last = answer[0].decode()
        return answer


class World:
    """One prefix of a real server with a service, all protocol callers, and streams."""

    def __init__(self, client: redis.asyncio.Redis, connection: Connection, keys: Keys):
        self.redis = client
        self.keys = keys
        self.scripts = HeardScripts(connection)
        self.service = RedisWorkflowService("redis://127.0.0.1:1", key_prefix=keys.prefix)
        self.service.connection, self.service.scripts = connection, self.scripts
        self.activations = self.caller(Activations)
        self.recording = self.caller(Recording)
        self.attempts = self.caller(Attempts)
        self.timers = self.caller(Timers)

    def caller(self, kind: Any, consumer: str = "me", **options: Any) -> Any:
        """Return a protocol caller that acts as *consumer*."""
        return kind(self.scripts, self.keys, consumer=consumer, **options)

    @property
    def heard(self) -> str:
        """The last word that a script answered."""
        return self.scripts.last

    async def entry(self, *words: str, queue: str = "", consumer: str = "me") -> Entry:
        """Return an entry with the fields *words*, delivered to *consumer* and pending for it."""
        stream = self.keys.commands(queue)
        try:
            await self.redis.xgroup_create(stream, GROUP, "0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        await self.redis.execute_command("XADD", stream, "*", *(words or ("type", "x")))
        return await self.deliver(queue=queue, consumer=consumer)

    async def deliver(self, *, queue: str = "", consumer: str = "me") -> Entry:
        """Return the next undelivered entry, now pending for *consumer*."""
        stream = self.keys.commands(queue)
        reply = await self.redis.execute_command(
            "XREADGROUP", "GROUP", GROUP, consumer, "COUNT", 1, "STREAMS", stream, ">"
        )
        ((_, ((entry_id, fields),)),) = reply.items() if isinstance(reply, dict) else reply
        return Entry(
            stream, entry_id.decode(), tuple(word for pair in fields.items() for word in pair)
        )

    async def acked(self, entry: Entry) -> bool:
        """Tell whether *entry* is neither pending nor on its stream."""
        pending = await self.redis.xpending_range(entry.stream, GROUP, entry.id, entry.id, 1)
        return not pending and not await self.redis.xrange(entry.stream, entry.id, entry.id)

    async def run(self, run_id: str = "r") -> str:
        """Create a run that a program drives itself."""
        return await self.service.create_run("w", {"n": 1}, run_id=run_id)

    async def step(self, run_id: str = "r", name: str = "s", **options: Any) -> str:
        """Create a run with a step; return the step's id."""
        if await self.service.get_run(run_id) is None:
            await self.run(run_id)
        state = await self.service.insert_step_state(run_id, name, "f", 1, options)
        return state.step_id

    async def started(self, run_id: str = "r", owner: str = "own") -> Entry:
        """Start a run as a daemon does; return its token."""
        entry = await self.entry("type", "run.start", "workflow", "w")
        answer = await self.start(entry, run_id, owner)
        assert isinstance(answer, Activated)
        return entry

    async def begun_run(self) -> Entry:
        """Start a run, with one step that its owner executes; return its token."""
        entry = await self.started()
        await self.turn(entry, decisions=[begins("s")])
        return entry

    async def start(
        self,
        entry: Entry,
        run_id: str = "r",
        owner: str = "own",
        workflow: str = "w",
        policy: IfExists = IfExists.REJECT,
    ) -> Any:
        """Call START."""
        return await self.activations.start(
            entry, owner, run_id, workflow, b"{}", started_body(workflow), policy=policy
        )

    async def turn(self, entry: Entry | None, number: int = 0, seen: int = 1, **parts: Any) -> Any:
        """Call TURN for the owner ``own`` with the content nonce ``n{number}``."""
        given = {
            "run_id": "r",
            "owner": "own",
            "nonce": f"n{number}",
            "results": [],
            "decisions": [],
        }
        return await self.activations.turn(
            Turn(**{**given, "number": number, "seen": seen, **parts}), entry
        )

    async def begun(self, *, queue: str = "q", retries: int = 1) -> Entry:
        """Begin attempt 1 of the queued step ``s`` of run ``r`` with the nonce ``an``."""
        entry = await self.entry("type", "step.execute", queue=queue)
        await self.begin(entry, retries=retries)
        return entry

    async def begin(
        self, entry: Entry, nonce: str = "an", retries: int = 1, rpc_name: str = "f"
    ) -> Any:
        """Call BEGIN."""
        return await self.attempts.begin(
            entry, "r", "s", nonce=nonce, step_id="r:s:x", rpc_name=rpc_name, data=b"1",
            retries=retries, retry_delay="5s",
        )  # fmt: skip

    async def complete(self, entry: Entry, nonce: str = "an", **given: Any) -> Any:
        """Call COMPLETE for attempt 1 of step ``s``."""
        parts = {"attempt": 1, "becomes": "succeeded", "json": b"9", "final": True, **given}
        return await self.attempts.complete(entry, "r", "s", nonce=nonce, **parts)

    async def hold_lock(
        self, run_id: str = "r", holder: str = "somebody", ttl_ms: int = 60_000
    ) -> None:
        """Take the run lock as another program would."""
        await self.redis.set(self.keys.lock(run_id), holder, px=ttl_ms)


def begins(name: str = "s", attempt: int = 1, nonce: str = "an", **given: Any) -> StepDecision:
    """Return the decision to begin a step here."""
    body = step_body(name, "running", attempt, "f") + ',"seen":1'
    fields = (
        "stepId",
        f"r:{name}:x",
        "data",
        b"1",
        "rpcName",
        "f",
        "retries",
        5,
        "retryDelay",
        "5s",
    )
    return StepDecision(name, "", "", "running", attempt, nonce, body, fields, **given)


def succeeded(name: str = "s", attempt: int = 1, nonce: str = "an", seen: int = 1) -> StepResult:
    """Return the result of a step that was begun here."""
    return StepResult(name, "running", attempt, nonce, "succeeded", b"9", seen)
