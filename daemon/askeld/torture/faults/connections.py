"""Connections that the server closes: what CLIENT KILL, a time-out or a failover does."""

from __future__ import annotations

import random
from typing import Any

from redis.exceptions import RedisError

from askeld.torture.fault import now_ms


class Disconnect:
    """Closes every other connection of the workers, and of everybody else, at random."""

    name = "disconnect"

    def __init__(self, client: Any) -> None:
        """Have them closed by *client*, which keeps its own."""
        self._client = client
        self.bites = 0
        self.over_at: list[int] = []

    async def strike(self, dice: random.Random) -> None:
        """Close about half of the connections there are; bites if the server closed any."""
        try:
            own = int(await self._client.client_id())
            ids = [int(one["id"]) for one in await self._client.client_list()]
            chosen = [one for one in ids if one != own and dice.random() < 0.5]  # noqa: PLR2004
            for one in chosen or [one for one in ids if one != own][:1]:
                self.bites += bool(await self._client.client_kill_filter(_id=one))
        except RedisError:
            return  # it was away at that moment
        self.over_at.append(now_ms())
