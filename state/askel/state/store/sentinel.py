"""Sentinel: finding the primary, and leaving one that has been replaced.

Sentinels are asked all at once. Whoever answers within a moment of the first is heard, and of
several views the one with the highest configuration epoch counts, so that a sentinel that was cut
off together with an old primary does not lead back to it.

A primary that was frozen during a failover comes back believing that it is one, and takes writes
for about ten seconds before Sentinel demotes it; all of them are lost. So each connection asks
again every second where the primary is, and breaks off when that is elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import redis.asyncio as aioredis

from askel.errors import StoreAccessError, StoreError, StoreUnavailableError
from askel.state.store.addresses import OwnOptions
from askel.state.store.connection import MultiplexedConnection
from askel.state.store.sentinel_addresses import SentinelOptions
from askel.state.store.settings import ConnectionSettings, Login

#: How often a connection asks whether its server is still the primary, in seconds.
VERIFY_S = 1.0
#: How long the others are waited for once a sentinel has answered, in seconds.
_HEARING_S = 0.1
#: A sentinel that is silent for so long counts as away, in seconds.
_SENTINEL_TIMEOUT_S = 1.0
#: A primary that cannot be reached for so long is asked for anew, in seconds.
_CONNECT_S = 2.0


class Primary(NamedTuple):
    """Where sentinels say that the primary is, and since which configuration."""

    host: str
    port: int
    epoch: int

    @property
    def where(self) -> str:
        """Its address for messages."""
        return _address(self.host, self.port)


class Sentinels:
    """The sentinels of one primary, each with a connection that stays open."""

    def __init__(self, options: SentinelOptions) -> None:
        """Prepare to ask; nothing is opened yet."""
        own = OwnOptions(password_file=options.password_file)
        self.options = options
        self._connections = {
            _address(host, port): MultiplexedConnection(
                ConnectionSettings(options.pool(host, port), own),
                timeout_s=_SENTINEL_TIMEOUT_S,
                name="askel-sentinel",
            )
            for host, port in options.sentinels
        }

    @property
    def where(self) -> str:
        """The primary's name and the sentinels, for messages."""
        return f"{self.options.master!r} (sentinels {', '.join(self._connections)})"

    async def find(self) -> Primary:
        """Return where the primary is, by the newest view of those that answer.

        Raises:
            StoreUnavailableError: None answers, or none knows the primary.
            StoreAccessError: All refuse the login, or the command.
        """
        asked = {
            asyncio.create_task(self._ask(where, connection))
            for where, connection in self._connections.items()
        }
        answers: list[Primary | StoreError] = []
        waiting, found = asked, False
        try:
            while waiting:
                done, waiting = await asyncio.wait(
                    waiting,
                    timeout=_HEARING_S if found else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                answers += [task.result() for task in done]
                found = found or any(isinstance(answer, Primary) for answer in answers)
                if not done:
                    break
        finally:
            for task in asked:
                task.cancel()
        views = [answer for answer in answers if isinstance(answer, Primary)]
        if views:
            return max(views, key=lambda view: view.epoch)
        errors = [answer for answer in answers if isinstance(answer, StoreError)]
        if all(isinstance(error, StoreAccessError) for error in errors):
            raise StoreAccessError(f"{errors[0]} (of the sentinel: sentinel_username, …_password)")
        whys = [str(error).removeprefix("cannot reach Redis at ") for error in errors]
        raise StoreUnavailableError(f"no sentinel tells where it is: {'; '.join(whys)}")

    async def _ask(self, where: str, connection: MultiplexedConnection) -> Primary | StoreError:
        """Ask one sentinel; what fails is returned, to be told if nobody else knows."""
        name = self.options.master
        replies: tuple[Any, Any] = await asyncio.gather(
            connection.send("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name),
            connection.send("SENTINEL", "MASTER", name),
            return_exceptions=True,
        )
        address, details = replies
        if isinstance(address, StoreError):
            if "unknown command" in str(address).lower():
                return StoreUnavailableError(f"{where} is no sentinel")
            return address
        if isinstance(address, BaseException):
            raise address
        if not address:
            return StoreUnavailableError(f"{where} knows no primary of that name")
        return Primary(address[0].decode(), int(address[1]), _epoch(details))

    async def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            await connection.close()


class SentinelSettings(ConnectionSettings):
    """How to reach, and to keep to, the primary that sentinels name."""

    def __init__(self, pool: aioredis.ConnectionPool, own: OwnOptions) -> None:
        """Take the parameters of the primary from *pool*, and whom to ask from *own*."""
        assert own.sentinel is not None
        self._sentinels = Sentinels(own.sentinel)
        self._primary: Primary | None = None
        self._watches: set[asyncio.Task[None]] = set()
        super().__init__(pool, own)

    @property
    def where(self) -> str:
        """The primary's address, its name, and the sentinels."""
        if self._primary is None:
            return self._sentinels.where
        return f"{self._primary.where}, the primary of {self._sentinels.where}"

    async def open(
        self, protocol: Callable[[], asyncio.Protocol]
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Find the primary and open the socket to it; from then on ask whether it still is."""
        self.read_again()
        assert self._own.sentinel is not None
        if self._own.sentinel != self._sentinels.options:
            former, self._sentinels = self._sentinels, Sentinels(self._own.sentinel)
            await former.close()
        self._primary = None
        self._primary = primary = await self._sentinels.find()
        self._parameters.host, self._parameters.port = primary.host, primary.port
        async with asyncio.timeout(_CONNECT_S):
            transport, link = await self.dial(protocol)
        watch = asyncio.create_task(self._watch(link, transport, primary))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        return transport, link

    async def login(self) -> Login:
        """Return the commands of the login, and ROLE: a former primary may have come back."""
        return [*await super().login(), ("ROLE",)]

    def accept(self, command: tuple[str | bytes, ...], answer: Any) -> None:
        """Refuse a server that is a replica.

        Raises:
            StoreUnavailableError: It is; sentinels may know more in a moment.
        """
        if command[0] == "ROLE" and answer[0] != b"master":
            msg = f"it is a replica (ROLE says {answer[0].decode()}): a failover is under way"
            raise StoreUnavailableError(msg)

    async def close(self) -> None:
        """Stop asking, and close the connections to the sentinels."""
        for watch in self._watches:
            watch.cancel()
        await self._sentinels.close()

    async def _watch(self, link: Any, transport: asyncio.Transport, primary: Primary) -> None:
        """Break *link* off as soon as sentinels say that the primary is elsewhere.

        While none of them answers nobody knows better, and the connection is kept.
        """
        while not link.gone.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(link.gone.wait(), VERIFY_S)
                return
            try:
                now = await self._sentinels.find()
            except StoreError:
                continue
            if now.epoch >= primary.epoch and not await _leads_to(transport, primary, now):
                link.break_off(
                    f"the primary of {self._sentinels.options.master!r} is now "
                    f"{now.where}, no longer {primary.where}"
                )
                return


async def _leads_to(transport: asyncio.Transport, known: Primary, now: Primary) -> bool:
    """Tell whether *transport* leads to *now*, which another sentinel may spell otherwise."""
    if (known.host, known.port) == (now.host, now.port):
        return True
    peer = transport.get_extra_info("peername")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(now.host, now.port)
    except OSError:
        return False
    return peer is not None and any(sockaddr[:2] == peer[:2] for *_, sockaddr in found)


def _epoch(details: Any) -> int:
    """Return the configuration epoch in the reply to SENTINEL MASTER; 0 where none may ask."""
    if isinstance(details, BaseException):
        return 0
    fields = dict(zip(details[::2], details[1::2], strict=False))
    return int(fields.get(b"config-epoch", 0))


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
