"""The network between workers and server: lost replies, peers that are gone, slow lines."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from askeld.torture.fault import now_ms
from askeld.torture.fault_proxy import FaultProxy

#: What changes something: its lost reply is what hurts.
_SCRIPT, _COMMAND = (b"evalsha", b"EVALSHA"), (b"XADD", b"xadd")
_WAIT_S = 2.0
_LONGEST_HALF_OPEN_S = 0.4
_LONGEST_DELAY_S, _SLOW_FOR_S = 0.2, 0.3


class ProxyFault:
    """Stands between clients and a server; whoever is to suffer connects to ``url``.

    ``kinds`` counts what really happened: a command that was executed and whose reply was lost,
    connections that went silent and then were cut, replies that were late.
    """

    name = "proxy"

    def __init__(self, host: str, port: int) -> None:
        """Forward to *host*:*port*; `open` begins with it."""
        self._proxy = FaultProxy(host, port)
        self.url = self._proxy.url
        self.kinds: Counter[str] = Counter()
        self._turn = 0
        self.over_at: list[int] = []

    @property
    def bites(self) -> int:
        """How often harm was done."""
        return self.kinds.total()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Forward for the time of the block."""
        async with self._proxy:
            yield

    async def strike(self, dice: random.Random) -> None:
        """Lose a reply to a program or a worker, or make connections silent or slow, in turn."""
        turn, self._turn = self._turn, self._turn + 1
        match turn % 4:
            case 0:
                await self._lose_reply(_COMMAND)
            case 1:
                await self._half_open(dice.random() * _LONGEST_HALF_OPEN_S)
            case 2:
                await self._lose_reply(_SCRIPT)
            case _:
                await self._be_slow(dice.random() * _LONGEST_DELAY_S)
        self.over_at.append(now_ms())

    async def _lose_reply(self, words: tuple[bytes, ...]) -> None:
        """Swallow exactly one reply to a request with one of *words*, and cut the connection."""
        rule = self._proxy.lose_next_reply(lambda request: any(word in request for word in words))
        with anyio.move_on_after(_WAIT_S):
            await rule.bit.wait()
        self._proxy.disarm(rule)
        self.kinds["lost reply"] += rule.hits

    async def _half_open(self, seconds: float) -> None:
        """Commands arrive and are executed, no reply comes; then everybody is cut off."""
        before = self._proxy.faults["black_hole_to_client"]
        self._proxy.black_hole("to_client")
        await anyio.sleep(seconds)
        self._proxy.drop_connections()
        self._proxy.open("to_client")
        self.kinds["half open"] += self._proxy.faults["black_hole_to_client"] > before

    async def _be_slow(self, seconds: float) -> None:
        rule = self._proxy.delay_replies(seconds)
        await anyio.sleep(_SLOW_FOR_S)
        self._proxy.disarm(rule)
        self.kinds["slow"] += rule.hits > 0
