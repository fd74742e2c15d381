"""The control: a worker as one would write it in an afternoon. It breaks, and that is its use.

It takes the same commands, executes the same programs and writes the same keys, under a lock and
with a renewed lease; but a transition is several commands, and whatever is delivered again is done
again. Without faults its histories keep every rule; with them, a judge that finds nothing is blind.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import anyio
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from askel.state import GROUP
from askeld.config import WorkerConfig, new_consumer
from askeld.failpoints import arm
from askeld.torture.evidence import Evidence
from askeld.torture.programs import effects

_BATCH = 20
_LONGEST_PAUSE_S = 0.2


def serve(config: WorkerConfig, evidence: Evidence) -> int:
    """Work until killed."""
    anyio.run(_NaiveWorker(config, evidence).run)
    return 0


class _NaiveWorker:
    def __init__(self, config: WorkerConfig, evidence: Evidence) -> None:
        self._config = config
        self._evidence = evidence
        self._consumer = new_consumer()
        self._stream = f"{config.prefix}:commands"
        self._busy: set[str] = set()
        self._reach: Callable[[str], None] | None = None

    async def run(self) -> None:
        self._reach = arm()
        self._client: Any = redis.asyncio.Redis.from_url(
            self._config.url, retry=Retry(NoBackoff(), 0), socket_timeout=10, decode_responses=True
        )
        with contextlib.suppress(ResponseError):
            await self._do("XGROUP", "CREATE", self._stream, GROUP, "0", "MKSTREAM")
        self._evidence.write("worker_ready", level="info")
        async with anyio.create_task_group() as tasks:
            while True:
                try:
                    await self._take(tasks)
                except RedisError:
                    await anyio.sleep(_LONGEST_PAUSE_S)

    async def _take(self, tasks: Any) -> None:
        """Read what is new, take over what nobody renews, renew what is in work."""
        config = self._config
        read = await self._do(
            *("XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", _BATCH, "BLOCK", "20"),
            *("STREAMS", self._stream, ">"),
        )
        claimed = await self._do(
            *("XAUTOCLAIM", self._stream, GROUP, self._consumer, config.claim_idle_ms, "0-0"),
            *("COUNT", _BATCH),
        )
        new = [entry for entries in _streams(read).values() for entry in entries]
        for entry_id, fields in [*new, *_claimed(claimed)]:
            if entry_id not in self._busy and fields:
                self._busy.add(entry_id)
                tasks.start_soon(self._work_on, entry_id, fields)
        for entry_id in list(self._busy):
            await self._do("XCLAIM", self._stream, GROUP, self._consumer, 0, entry_id, "JUSTID")

    async def _work_on(self, entry_id: str, fields: dict[str, str]) -> None:
        try:
            if await self._apply(fields):
                await self._do("XACK", self._stream, GROUP, entry_id)
                await self._do("XDEL", self._stream, entry_id)
        except RedisError:
            pass  # it stays pending, and is delivered again
        finally:
            self._busy.discard(entry_id)

    async def _apply(self, fields: dict[str, str]) -> bool:
        """Apply the command; False when it is to be delivered again later."""
        run_id, lock = fields["run_id"], f"{self._config.prefix}:lock:{fields['run_id']}"
        lease_ms = self._config.claim_idle_ms
        if not await self._do("SET", lock, self._consumer, "NX", "PX", lease_ms):
            await anyio.sleep(_LONGEST_PAUSE_S)
            return False
        try:
            status = await self._do("HGET", self._key("run", run_id), "status")
            if fields["type"] == "run.start":
                if status != "completed":
                    await self._drive(run_id, fields, status is not None)
            elif status is None:
                return False
            elif fields["type"] == "run.signal" and status == "running":
                await self._history(run_id, t="signal", name=fields["name"], command=fields["id"])
        finally:
            await self._do("DEL", lock)
        return True

    async def _drive(self, run_id: str, fields: dict[str, str], exists: bool) -> None:  # noqa: FBT001
        """Execute the program of the run from its beginning to its end."""
        run, program = self._key("run", run_id), json.loads(fields["input"])
        if not exists:
            at = _now()
            created = ("id", run_id, "workflow", fields["workflow"], "createdAt", at)
            await self._do("HSET", run, *created, "status", "running", "updatedAt", at)
            await self._history(run_id, at, t="run", status="running", workflow=fields["workflow"])
            for index in ("", ":status:running", f":workflow:{fields['workflow']}"):
                await self._do("ZADD", f"{self._config.prefix}:runs{index}", at, run_id)
        total = 0
        for number, (kind, *given) in enumerate(program):
            for place, order in enumerate(given if kind == "gather" else [[kind, *given]]):
                name = f"{order[0]} {number}" + (f"#{place}" if place else "")
                total += await self._step(run_id, name, order)
        at = _now()
        created_at = await self._do("HGET", run, "createdAt")
        await self._do("HSET", run, "status", "completed", "output", total, "updatedAt", at)
        await self._history(run_id, at, t="run", status="completed", output=total)
        await self._do("ZREM", f"{self._config.prefix}:runs:status:running", run_id)
        ended = f"{self._config.prefix}:runs:status:completed"
        await self._do("ZADD", ended, created_at, run_id)

    async def _step(self, run_id: str, name: str, order: list[Any]) -> int:
        """Execute one step until it succeeds; return its value."""
        step, at = self._key("step", f"{run_id}:{name}"), _now()
        await self._do("RPUSH", self._key("steps", run_id), name)
        await self._do("HSET", step, "createdAt", at)
        milliseconds = order[1]
        fails, value = order[2:] or (0, None)  # a sleep has neither
        for attempt in range(1, fails + 2):
            await self._move(run_id, name, "running", attempt, at)
            for file in effects:
                file.write("begin", run=run_id, step=name, attempt=attempt)
            await anyio.sleep(milliseconds / 1_000)
            at = _now()
            if attempt <= fails:
                await self._move(run_id, name, "failed", attempt, at, error={"message": "failed"})
            else:
                await self._move(run_id, name, "succeeded", attempt, at, result=value)
        return value or 0

    async def _move(
        self, run_id: str, name: str, status: str, attempt: int, at: int, **more: Any
    ) -> None:
        step = self._key("step", f"{run_id}:{name}")
        words = {"status": status, "attemptCount": attempt, "updatedAt": at}
        if "result" in more:
            words["result"] = json.dumps(more["result"])
        await self._do("HSET", step, *(word for pair in words.items() for word in pair))
        await self._history(run_id, at, t="step", name=name, status=status, attempt=attempt, **more)

    async def _history(self, run_id: str, at: int | None = None, **entry: Any) -> None:
        line = json.dumps({"at": at or _now(), **entry})
        await self._do("RPUSH", self._key("history", run_id), line)

    def _key(self, kind: str, rest: str) -> str:
        return f"{self._config.prefix}:{kind}:{rest}"

    async def _do(self, *words: Any) -> Any:
        """Send one command; the process may be made to die before it and after it."""
        if self._reach is not None:
            self._reach("before_command")
        said = await self._client.execute_command(*words)
        if self._reach is not None:
            self._reach("after_command")
        return said


def _streams(read: Any) -> dict[str, list[Any]]:
    return dict(read.items() if isinstance(read, dict) else read or ())


def _claimed(answer: Any) -> list[Any]:
    return [entry for entry in answer[1] if entry is not None and entry[0] is not None]


def _now() -> int:
    return time.time_ns() // 1_000_000
