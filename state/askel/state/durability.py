"""Durability by run: an answer is given only when Redis has confirmed that it is kept.

``memory`` is what every write has: the primary has it. ``fsync`` has it on the primary's disk, by
WAITAOF, or where every write is synced before it is answered. ``replicated(n)`` has it on *n*
replicas, by WAIT. Redis counts what the *same connection* wrote before; so the write and the
question leave in one pass, on a connection of their own, which alone is held up.

Redis replicates, and appends, in one order: whoever has a later write has all before it. So a run
as it was read is confirmed by a small write after the reading.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from askel.errors import (
    InvalidOptionError,
    NotConfirmedError,
    StoreAccessError,
    StoreError,
    StoreReplyError,
    StoreUnsafeError,
)
from askel.state.keys import Keys
from askel.state.store.connection import Connection
from askel.state.store.trouble import is_passing

#: How long an answer is held back for the confirmation, in seconds.
CONFIRM_S = 2.0
_REPLICATED = re.compile(r"replicated\(([1-9][0-9]?)\)")
_PAUSE_S = 0.1


class Durability(msgspec.Struct, frozen=True):
    """Who must have a write before it counts: so many replicas, or the primary's disk."""

    replicas: int = 0
    fsync: bool = False

    def __bool__(self) -> bool:
        """Tell whether anything beyond the primary's memory is asked for."""
        return self.fsync or self.replicas > 0

    def __str__(self) -> str:
        """Return how it is written."""
        if self.replicas:
            return f"replicated({self.replicas})"
        return "fsync" if self.fsync else "memory"


def as_durability(value: Durability | str | None) -> Durability:
    """Return the durability that *value* names; None and nothing mean ``memory``.

    Raises:
        InvalidOptionError: It names none.
    """
    match value:
        case Durability():
            return value
        case None | "" | "memory":
            return Durability()
        case "fsync":
            return Durability(fsync=True)
        case str() if found := _REPLICATED.fullmatch(value):
            return Durability(replicas=int(found[1]))
    msg = f"durability {value!r:.40} is not known: write memory, fsync or replicated(n)"
    raise InvalidOptionError(msg)


class Confirmer:
    """Writes that are answered when they are confirmed, on a connection of their own.

    The connection is opened by the first of them.
    """

    def __init__(
        self, make: Callable[[], Connection], keys: Keys, *, confirm_s: float = CONFIRM_S
    ) -> None:
        """Use the connection that *make* returns, and hold answers back for *confirm_s*."""
        self._make = make
        self._keys = keys
        self._confirm_s = confirm_s
        self._connection: Connection | None = None
        self._by_config = False  # every write is synced before it is answered, or was so
        self._may_wait = False  # once it was so

    async def close(self) -> None:
        """Close the connection, if there ever was one."""
        if self._connection is not None:
            await self._connection.close()

    async def check(self, level: Durability) -> None:
        """Refuse what this server can never confirm, before anything is written.

        Raises:
            StoreUnsafeError: It cannot say what it has synced, or keeps no append-only file.
            StoreAccessError: The user may not ask whether anything is confirmed.
            StoreError: It cannot be asked.
        """
        if level.replicas and not self._may_wait:
            await self._try_wait()
        if not level.fsync:
            return
        try:
            await self._send("WAITAOF", 1, 0, 1)
            self._by_config = False
        except StoreReplyError as error:
            if "unknown command" not in str(error).lower():
                if "appendonly is disabled" in str(error):
                    msg = "this Redis keeps no append-only file, so that fsync cannot be confirmed"
                    raise StoreUnsafeError(f"{msg}: set appendonly yes") from None
                raise
            try:
                synced = _syncs_always(await self._send("CONFIG", "GET", "append*"))
            except StoreReplyError:
                synced = False
            if not synced:
                msg = (
                    "this Redis cannot confirm fsync: it has no WAITAOF (Redis 7.2, Valkey), and "
                    "appendfsync is not 'always', or may not be asked for (+config|get)"
                )
                raise StoreUnsafeError(msg) from None
            self._by_config = True

    async def _try_wait(self) -> None:
        try:
            await self._send("WAIT", 0, 1)
        except StoreAccessError:
            raise
        except StoreReplyError:
            return  # a replica, for one: the write itself is refused in words that tell
        self._may_wait = True

    async def write(self, level: Durability, what: str, *command: str | bytes | int) -> Any:
        """Send *command* and return its reply, once it is confirmed.

        Raises:
            NotConfirmedError: It was applied, and is not confirmed.
            StoreUnsafeError: It can never be; nothing was sent.
            StoreError: As ``Connection.send``.
        """
        await self.check(level)
        reply, confirmation = self._send(*command), self._ask(level)
        answers = await asyncio.gather(reply, confirmation, return_exceptions=True)
        if isinstance(answers[0], BaseException):
            raise answers[0]
        self._judge(level, what, answers[1])
        return answers[0]

    async def read(self, level: Durability, what: str, *command: str | bytes | int) -> Any:
        """Return the reply of a *command* that reads, once all that it saw is confirmed.

        A connection that is lost meanwhile is asked again, as long as an answer may be held back.

        Raises:
            NotConfirmedError: It is not confirmed.
            StoreUnsafeError: It can never be.
            StoreError: It could not be read.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._confirm_s
        while True:
            try:
                await self.check(level)
                # In one pass, so on one connection: what was read, a write after it, the question.
                reply = self._send(*command)
                mark = self._send("HSET", self._keys.meta, "confirm", "1")
                answers: tuple[Any, Any, Any] = await asyncio.gather(
                    reply, mark, self._ask(level), return_exceptions=True
                )
                for answer in answers[:2]:
                    if isinstance(answer, BaseException):
                        raise answer
            except StoreError as error:
                if not is_passing(error) or loop.time() >= end:
                    raise
                await asyncio.sleep(_PAUSE_S)
                continue
            self._judge(level, what, answers[2])
            return answers[0]

    def _send(self, *command: str | bytes | int) -> Awaitable[Any]:
        if self._connection is None:
            self._connection = self._make()
        return self._connection.send(*command)

    def _ask(self, level: Durability) -> Awaitable[Any]:
        limit = int(self._confirm_s * 1_000)
        if level.replicas:
            return self._send("WAIT", level.replicas, limit)
        if self._by_config:
            return self._send("CONFIG", "GET", "append*")
        return self._send("WAITAOF", 1, 0, limit)

    def _judge(self, level: Durability, what: str, answer: Any) -> None:
        """Raise unless *answer*, to what ``_ask`` asked, confirms *level*."""
        if isinstance(answer, StoreError):
            raise NotConfirmedError(what, str(level), str(answer).partition(" (it may")[0])
        if isinstance(answer, BaseException):
            raise answer
        if level.replicas:
            if answer < level.replicas:
                why = f"{answer} of {level.replicas} replicas have it after {self._confirm_s:g} s"
                raise NotConfirmedError(what, str(level), why)
        elif self._by_config:
            if not _syncs_always(answer):
                raise NotConfirmedError(what, str(level), "appendfsync is no longer 'always'")
        elif not answer[0]:
            why = f"Redis has not synced it after {self._confirm_s:g} s"
            raise NotConfirmedError(what, str(level), why)


def _syncs_always(flat: list[bytes]) -> bool:
    """Tell whether a reply to CONFIG GET says that each write is on disk before it is answered."""
    found = dict(zip(flat[::2], flat[1::2], strict=False))
    return found.get(b"appendonly") == b"yes" and found.get(b"appendfsync") == b"always"
