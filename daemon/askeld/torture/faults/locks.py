"""Locks that vanish: what an eviction, or a person with redis-cli, does to keys that expire."""

from __future__ import annotations

import random
import time
from typing import Any

import anyio
from redis.exceptions import RedisError

_WAIT_S = 2.0
_PAUSE_S = 0.002


class Evict:
    """Deletes the run locks that are held at the moment."""

    name = "evict"

    def __init__(self, client: Any, prefix: str) -> None:
        """Delete locks under *prefix* by *client*."""
        self._client = client
        self._prefix = prefix
        self.bites = 0
        self.over_at: list[int] = []

    async def strike(self, dice: random.Random) -> None:
        """Delete the locks that there are; where there are none, wait for some."""
        with anyio.move_on_after(_WAIT_S):
            while not await self._delete(dice):  # noqa: ASYNC110 - they are in Redis
                await anyio.sleep(_PAUSE_S)

    async def _delete(self, dice: random.Random) -> int:
        try:
            running = await self._client.zrange(f"{self._prefix}:runs:status:running", 0, -1)
            dice.shuffle(running)
            locks = [f"{self._prefix}:lock:{run_id.decode()}" for run_id in running]
            gone = int(await self._client.delete(*locks)) if locks else 0
        except RedisError:
            return 0
        if gone:
            self.bites += 1
            self.over_at.append(time.time_ns() // 1_000_000)
        return gone
