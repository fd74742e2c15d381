"""A deployment to examine: healthy at first, then broken in one way."""

from __future__ import annotations

from typing import Self

import redis.asyncio

from askel import RedisWorkflowService
from askel.state import GROUP
from askeld.doctor import Finding, examine, gather


class Patient:
    """A prefix of a private server, its service, and what the doctor says of it."""

    CHANGED = (
        "maxmemory", "maxmemory-policy", "maxclients", "timeout", "appendfsync", "appendonly",
        "min-replicas-to-write", "save",
    )  # fmt: skip

    def __init__(self, url: str, client: redis.asyncio.Redis) -> None:
        self.url = url
        self.redis = client
        self.service = RedisWorkflowService(url)
        self.keys = self.service.keys
        self.options = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_) -> None:
        await self.service.close()

    async def become_well(self) -> None:
        """Have a meta key, a worker's consumer, and a run that has ended."""
        await self.service.init()
        stream = self.keys.commands_default
        await self.redis.xgroup_create(stream, GROUP, "0", mkstream=True)
        await self.redis.xreadgroup(GROUP, "worker", {stream: ">"})
        await self.redis.execute_command("XGROUP", "CREATECONSUMER", stream, GROUP, "worker")
        await self.service.create_run("shop", {"n": 1}, run_id="done")
        await self.service.update_run_status("done", "completed", 1)
        await self.service.create_run("shop", {"n": 1}, run_id="live")

    async def send(self, *words: str, entry: str = "*") -> str:
        """Put a command on the default stream; return the entry's id."""
        reply = await self.redis.execute_command(
            "XADD", self.keys.commands_default, entry, *(words or ("type", "x"))
        )
        return reply.decode()

    async def taken(self, **claim: int) -> None:
        """Let the consumer take an entry, that was silent or delivered often."""
        stream = self.keys.commands_default
        entry = await self.send()
        await self.redis.xreadgroup(GROUP, "worker", {stream: ">"})
        await self.redis.xclaim(stream, GROUP, "worker", 0, [entry], **claim)

    async def examine(self) -> dict[str, Finding]:
        """Return what each check says."""
        url = self.options.pop("url", self.url)
        service = self.options.pop("service", self.service)
        facts = await gather(service, url, **self.options)
        return {finding.check: finding for finding in examine(facts)}
