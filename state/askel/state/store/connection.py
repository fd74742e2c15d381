"""The multiplexed connection: one socket shared by every task of an event loop.

Commands that many tasks issue in one pass of the loop leave in one write, and their replies are
matched in order. Nothing is ever retried here: a caller that knows its command may be sent twice
sends it twice.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import hiredis

from askel.errors import (
    AskelError,
    InvalidError,
    ServiceClosedError,
    StoreReplyError,
    StoreUnavailableError,
    UnknownOutcomeError,
)
from askel.state.store.settings import ConnectionSettings, reply_error
from askel.state.store.trouble import StoreTrouble, trouble_of

#: Longest pause between two attempts to connect, in seconds.
MAX_BACKOFF_S = 1.0
_FIRST_BACKOFF_S = 0.02
# A replica answers, only not as is wished: whoever asks it all the time must not connect as often.
_DEMOTED_BACKOFF_S = 0.1
_INCOMPLETE = object()


class Connection(Protocol):
    """What the rest of askel needs of Redis: send a command, await its reply."""

    def send(self, *command: bytes | str | float) -> Awaitable[Any]:
        """Issue *command* now and return what to await for its reply (bytes, int, list, None).

        Awaiting raises StoreReplyError for an error reply, StoreUnavailableError when the command
        was not sent, UnknownOutcomeError when the connection broke (or the reply took too long)
        after it was, InvalidOptionError when a TLS file that the settings name cannot be read. Not
        awaiting, or cancelling, never disturbs the replies of others.
        """

    async def close(self) -> None:
        """Close the connection; every outstanding command fails as unknown."""


class MultiplexedConnection:
    """One socket for all tasks of one event loop; opened on first use, reopened after a loss.

    In a forked child, and for a new loop when the one before has ended, it opens a socket of its
    own; a parent's is left alone.
    """

    def __init__(
        self, settings: ConnectionSettings, *, timeout_s: float = 5.0, name: str | None = None
    ) -> None:
        """Keep the settings.

        Args:
            settings: The server and how to log in.
            timeout_s: When no reply at all arrives for this long although commands are
                outstanding, the connection counts as broken. A connection for blocking reads
                needs more than the longest block.
            name: Shown by CLIENT LIST.
        """
        self._settings = settings
        self._timeout_s = timeout_s
        self._name = name
        self._link: _Link | None = None
        self._backlog: deque[tuple[bytes, asyncio.Future[Any]]] = deque()
        self._opening: asyncio.Task[None] | None = None
        self._backoff_s = 0.0
        self._not_before = 0.0  # of the loop's clock: when the next attempt may be made
        self._closed = False
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inherited: list[_Link] = []  # kept, because to collect them would close them
        #: How often the connection was opened; the first time counts.
        self.connects = 0

    def __repr__(self) -> str:
        """Name the server, never the credentials."""
        return f"<{type(self).__name__} {self._settings.where}>"

    def send(self, *command: bytes | str | float) -> asyncio.Future[Any]:
        """Issue *command*; see ``Connection.send``."""
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub says 1-tuple
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._pid != os.getpid():
            self._move_to(loop)
        link = self._link
        if link is not None:
            return link.issue(packed)
        future: asyncio.Future[Any] = loop.create_future()
        if self._closed:
            future.set_exception(ServiceClosedError("the service is closed: make another"))
            return future
        self._backlog.append((packed, future))
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return future

    async def close(self) -> None:
        """Close the socket. Commands outstanding fail as unknown, later ones as not sent."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._pid != os.getpid():
            self._move_to(loop)
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._link is not None:
            link, self._link = self._link, None
            link.break_off("the connection was closed")
            await link.gone.wait()
        self._fail_backlog(lambda: StoreUnavailableError("the connection was closed"))
        await self._settings.close()

    async def _open(self) -> None:
        """Open the socket and log in; on failure fail who waits, and pause before the next try."""
        await asyncio.sleep(max(self._not_before - asyncio.get_running_loop().time(), 0))
        try:
            async with asyncio.timeout(min(self._timeout_s, self._settings.connect_timeout_s)):
                transport, link = await self._settings.open(lambda: _Link(self))
                try:
                    await self._greet(link)  # type: ignore[arg-type]
                except BaseException:
                    transport.abort()
                    raise
        except Exception as error:  # noqa: BLE001 - also what credentials and names may raise
            failed = error
            self._opening = None
            self._back_off(min(MAX_BACKOFF_S, self._backoff_s * 2 or _FIRST_BACKOFF_S))
            self._fail_backlog(lambda: self._settings.failure(failed))
            return
        self._opening = None
        self._backoff_s = 0.0
        self.connects += 1
        if not link.gone.is_set():  # type: ignore[attr-defined]
            self._link = link  # type: ignore[assignment]
        while self._backlog:
            packed, future = self._backlog.popleft()
            if not future.done():  # a waiter that gave up: its command is never sent
                link.issue(packed, future)  # type: ignore[attr-defined]

    async def _greet(self, link: _Link) -> None:
        commands = await self._settings.login()
        if self._name:
            commands.append(("CLIENT", "SETNAME", self._name))
        commands.append(("PING",))
        packed = [hiredis.pack_command(command) for command in commands]  # type: ignore[arg-type]
        # All are awaited, so that the failure of one leaves no other unheard.
        answers = await asyncio.gather(*map(link.issue, packed), return_exceptions=True)
        for answer, command in zip(answers, commands, strict=True):
            if isinstance(answer, StoreReplyError):
                # A name that is refused, or what may not be asked, make nothing useless.
                if command[0] == "CLIENT" or (
                    command[0] in {"PING", "ROLE"} and answer.code in {"NOPERM", "MISCONF"}
                ):
                    continue
                raise self._settings.login_failure(command, answer)
            if isinstance(answer, BaseException):
                raise answer
            self._settings.accept(command, answer)

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to *loop*, in this process; forget what a loop that ended, or a parent, opened.

        Raises:
            InvalidError: The loop that it belongs to is still in use.
        """
        forked, self._pid = self._pid != os.getpid(), os.getpid()
        if not forked and self._loop is not None and not self._loop.is_closed():
            msg = "this connection is in use by another event loop: make one for each loop"
            raise InvalidError(msg)
        link, self._link, self._opening = self._link, None, None
        self._backlog = deque()
        self._backoff_s = self._not_before = 0.0
        self._loop = loop
        if forked and link is not None:
            link.leave_to_parent()
            self._inherited.append(link)

    def lost(self, link: _Link) -> None:
        """Forget *link*, whose socket is gone; the next command opens another."""
        if self._link is link:
            self._link = None
            self._back_off(_FIRST_BACKOFF_S)

    def demoted(self, link: _Link) -> None:
        """Send nothing more by *link*, which leads to a replica; look for the primary anew."""
        if self._link is link:
            self._link = None
            self._back_off(_DEMOTED_BACKOFF_S)

    def _back_off(self, pause_s: float) -> None:
        """Make no attempt for *pause_s* from now: callers that pause themselves wait only once."""
        self._backoff_s = pause_s
        self._not_before = asyncio.get_running_loop().time() + pause_s

    def uses(self, link: _Link) -> bool:
        """Tell whether *link* is the open, logged in socket."""
        return self._link is link

    @property
    def timeout_s(self) -> float:
        """Longest silence that is accepted while commands are outstanding, in seconds."""
        return self._timeout_s

    def _fail_backlog(self, failure: Callable[[], AskelError]) -> None:
        while self._backlog:
            _, future = self._backlog.popleft()
            if not future.done():
                future.set_exception(failure())


class _Link(asyncio.Protocol):
    """One open socket: what is to be written, and who waits for which reply."""

    def __init__(self, owner: MultiplexedConnection) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=reply_error, notEnoughData=_INCOMPLETE)
        self._out: list[bytes] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._watch: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._retired = False
        self._why = "the connection was closed by Redis"
        self.gone = asyncio.Event()

    def issue(
        self, packed: bytes, future: asyncio.Future[Any] | None = None
    ) -> asyncio.Future[Any]:
        """Queue *packed* for the write at the end of this pass of the loop."""
        if future is None:
            future = self._loop.create_future()
        if self._transport is None or self.gone.is_set():
            future.set_exception(StoreUnavailableError(self._why))
            return future
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        if not self._waiting:
            self._heard_at = self._loop.time()
            if self._watch is None:
                self._watch = self._loop.call_later(self._owner.timeout_s, self._look)
        self._waiting.append(future)
        return future

    def break_off(self, why: str) -> None:
        """Drop the socket; every outstanding command becomes unknown."""
        self._why = why
        if self._transport is not None:
            self._transport.abort()

    def leave_to_parent(self) -> None:
        """Let go of this process' copy of the socket, in a forked child; the parent's stays.

        The number is kept busy, so that nothing that refers to it can ever close another file.
        """
        transport = self._transport
        known = None if transport is None else transport.get_extra_info("socket")
        if known is not None and known.fileno() >= 0:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, known.fileno())
            os.close(nothing)

    def _flush(self) -> None:
        if self._out and not self._paused and self._transport is not None:
            out, self._out = self._out, []
            self._transport.write(b"".join(out))

    def _look(self) -> None:
        """Break off when nothing was heard for too long although somebody waits."""
        self._watch = None
        if not self._waiting:
            return
        left = self._heard_at + self._owner.timeout_s - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._look)
        else:
            self.break_off(f"no reply from Redis for {self._owner.timeout_s:.1f} s")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        waiting = self._waiting
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                future = waiting.popleft()
                if future.done():
                    continue
                if not isinstance(reply, StoreReplyError):
                    future.set_result(reply)
                elif reply.code == "NOAUTH" and self._owner.uses(self):
                    # The login that was good has expired: the next command logs in anew.
                    self.break_off("the login has expired")
                    self._owner.lost(self)
                    future.set_exception(StoreUnavailableError(self._why))
                else:
                    future.set_exception(reply)
                    if trouble_of(reply) is StoreTrouble.READ_ONLY:
                        self._retired = True
                        self._owner.demoted(self)
            if self._retired and not waiting:
                self.break_off("it leads to a replica")
        except (hiredis.HiredisError, IndexError, MemoryError):
            # Not RESP, longer than anything could be, or a reply nobody asked for: no later reply
            # can be trusted either.
            self.break_off("Redis sent what is not a reply")

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self)
        if self._watch is not None:
            self._watch.cancel()
        self._out.clear()
        why = f"{self._why}: {exc}" if exc else self._why
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(UnknownOutcomeError(why))
        self._transport = None
        self.gone.set()
