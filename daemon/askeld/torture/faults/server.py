"""Faults of the server: killed and restarted, without power, out of memory."""

from __future__ import annotations

import random
from collections.abc import Callable

import anyio
import redis
from redis.exceptions import RedisError, ResponseError

from askeld.torture.fault import now_ms
from askeld.torture.server import TortureServer

_LONGEST_DOWN_S = 0.3
_SHORTEST_FULL_S, _LONGEST_FULL_S = 0.2, 0.8


class RedisKill:
    """SIGKILL of the server, and a start on the same port and data; what was acknowledged stays."""

    name = "redis-kill"

    def __init__(self, server: TortureServer) -> None:
        """Kill *server*."""
        self._server = server
        self.bites = 0
        self.over_at: list[int] = []

    async def strike(self, dice: random.Random) -> None:
        """Kill it, leave it away for a moment, start it again."""
        down_s = dice.random() * _LONGEST_DOWN_S
        async with self._server.turn:
            await anyio.to_thread.run_sync(self._server.kill)
            self.bites += 1
            await anyio.sleep(down_s)
            await self._server.restart()
        self.over_at.append(now_ms())


class PowerLoss:
    """A power cut: everything that was not fsynced is gone.

    With ``appendfsync always`` that takes nothing away that was acknowledged. ``bytes_lost`` says
    how much of the files was cut off: with ``everysec``, none at all means that no cut was tested.
    """

    name = "power-loss"

    def __init__(self, server: TortureServer) -> None:
        """Cut the power of *server*."""
        self._server = server
        self.bites = 0
        self.bytes_lost = 0
        self.over_at: list[int] = []

    async def strike(self, dice: random.Random) -> None:
        """Cut the power, leave the server away for a moment, start it again.

        Raises:
            ShimError: That cannot be simulated on this machine.
        """
        down_s = dice.random() * _LONGEST_DOWN_S
        async with self._server.turn:
            self.bytes_lost += await anyio.to_thread.run_sync(self._server.cut_power)
            self.bites += 1
            await anyio.sleep(down_s)
            await self._server.restart()
        self.over_at.append(now_ms())


class OutOfMemory:
    """The server has no memory left for a while: it refuses what would need more.

    Bites where a write was really refused meanwhile.
    """

    name = "oom"

    def __init__(self, server: TortureServer) -> None:
        """Limit the memory of *server*."""
        self._server = server
        self.bites = 0
        self.over_at: list[int] = []

    async def strike(self, dice: random.Random) -> None:
        """Allow less memory than is in use, and take the limit away again."""
        full_s = dice.uniform(_SHORTEST_FULL_S, _LONGEST_FULL_S)
        async with self._server.turn:
            if not await self._asked(_fill):
                return  # it was away at that moment
            try:
                await anyio.sleep(full_s)
                self.bites += await self._asked(_is_full)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._asked(_empty)
        self.over_at.append(now_ms())

    async def _asked(self, ask: Callable[[redis.Redis], bool]) -> bool:
        return await anyio.to_thread.run_sync(self._ask, ask)

    def _ask(self, ask: Callable[[redis.Redis], bool]) -> bool:
        with self._server.client() as client:
            try:
                return ask(client)
            except RedisError:
                return False


def _fill(client: redis.Redis) -> bool:
    return bool(client.config_set("maxmemory", 1))


def _is_full(client: redis.Redis) -> bool:
    try:
        client.set("askel-torture-oom", "1", ex=1)
    except ResponseError as error:
        return "OOM" in str(error) or "maxmemory" in str(error)
    return False


def _empty(client: redis.Redis) -> bool:
    return bool(client.config_set("maxmemory", 0))
