"""The way from a process to the fake server: replies in order on a connection, some time later.

What the network does to the n-th script of a process is in the plan: ``lost`` executes it and
loses the reply, ``unsent`` loses the request, ``late`` tells the sender that the outcome is unknown
and executes the script some time after that. In each case the connection breaks: all who wait on it
are told that they cannot know.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import fakeredis
from redis.exceptions import ResponseError
from tests.simulation.loop import PROCESS, VirtualLoop

from askel import UnknownOutcomeError
from askel.state.store import scripts as packaged
from askel.state.store.client_connection import _as_resp2, _with_code
from askel.state.store.settings import reply_error

#: The scripts that change runs: what the plan counts. Idle loops send others, again and again.
OF_WORK = frozenset(
    {
        "activate",
        "begin",
        "bury",
        "complete",
        "deliver",
        "fire",
        "put_back",
        "record",
        "requeue",
        "settle",
        "start",
        "turn",
    }
)
_SHORTEST_S, _LONGEST_S = 0.0002, 0.004


class Server:
    """The fake Redis: one command at a time, each in an instant."""

    def __init__(self) -> None:
        self._server = fakeredis.FakeServer()
        pool = fakeredis.FakeRedis(server=self._server, protocol=2).connection_pool
        self._connection = pool.get_connection()
        #: sha -> name of every script.
        self.scripts = {script.sha: script.name for script in packaged.load_scripts().values()}
        #: Readers that wait for an entry, in the order in which they came.
        self._blocked: list[Callable[[], bool]] = []
        #: Told of every script: its process, the command, the answer.
        self.on_script: Callable[[str, tuple[Any, ...], Any], None] | None = None

    def client(self) -> fakeredis.FakeAsyncRedis:
        """Return a client for looking at what is there, without any network between."""
        return fakeredis.FakeAsyncRedis(server=self._server, protocol=2)

    def block(self, is_left: Callable[[], bool]) -> None:
        """Ask *is_left* after everything that may have added an entry, until it says no."""
        self._blocked.append(is_left)

    def execute(self, process: str, *command: Any) -> Any:
        """Execute a command; return the reply, or the error that is one."""
        self._connection.send_command(*command)
        try:
            reply = self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return reply_error(_with_code(error))
        if command[0] in {"EVALSHA", "XADD"}:
            self._blocked = [is_left for is_left in self._blocked if is_left()]
        reply = _as_resp2(str(command[0]).upper(), reply)
        if command[0] == "EVALSHA" and self.on_script is not None:
            self.on_script(process, command, reply)
        return reply


class SimulatedConnection:
    """A connection of one process; see ``askel.state.Connection``."""

    #: Scripts sent so far, by process: what the plan counts.
    sent: dict[str, int] = {}  # noqa: RUF012 - replaced by each simulation

    def __init__(
        self,
        server: Server,
        loop: VirtualLoop,
        dice: random.Random,
        faults: Mapping[tuple[str, int], tuple[str, float]],
    ) -> None:
        self._server = server
        self._loop = loop
        self._dice = dice
        self._faults = faults
        self._process = PROCESS.get()
        self._waiting: list[asyncio.Future[Any]] = []
        self._free_at = 0.0  # when the last request arrives
        self._answered_at = 0.0
        self._outside = contextvars.Context()
        self._number = 0

    def send(self, *command: Any) -> asyncio.Future[Any]:
        """Send a command, which arrives some time later."""
        future = self._loop.create_future()
        self._waiting.append(future)
        fault, seconds = "", 0.0
        if command[0] == "EVALSHA" and self._server.scripts.get(command[1]) in OF_WORK:
            number = self.sent[self._process] = self.sent.get(self._process, 0) + 1
            fault, seconds = self._faults.get((self._process, number), ("", 0.0))
        self._free_at = max(self._free_at, self._loop.time() + self._some_time())
        arrive = self._break if fault else self._arrive
        self._later(self._free_at, arrive, command, future, self._number, fault, seconds)
        return future

    async def close(self) -> None:
        """Nothing is open."""

    def _some_time(self) -> float:
        return self._dice.uniform(_SHORTEST_S, _LONGEST_S)

    def _later(self, at: float, callback: Callable[..., None], *args: Any) -> None:
        """The network goes on whatever becomes of the process."""
        self._loop.call_at(at, callback, *args, context=self._outside)

    def _arrive(
        self, command: tuple[Any, ...], future: asyncio.Future[Any], number: int, *_: Any
    ) -> None:
        if number != self._number:
            return  # it was on its way when the connection broke
        words = list(command)
        if "BLOCK" in words[:8]:
            place = words.index("BLOCK")
            until = self._loop.time() + int(words[place + 1]) / 1_000
            del words[place : place + 2]
            self._block(tuple(words), future, number, until)
            return
        self._answer(future, self._server.execute(self._process, *command))

    def _block(
        self, command: tuple[Any, ...], future: asyncio.Future[Any], number: int, until: float
    ) -> None:
        """Serve a blocked reader when there is something; one that died, too, until its time."""
        is_over = False

        def is_left(*, last: bool = False) -> bool:
            nonlocal is_over
            if is_over or number != self._number:
                return False
            reply = self._server.execute(self._process, *command)
            is_over = bool(reply) or last
            if is_over:
                self._answer(future, reply or None)
            return not is_over

        if is_left():
            self._server.block(is_left)
            self._later(until, partial(is_left, last=True))

    def _answer(self, future: asyncio.Future[Any], reply: Any) -> None:
        self._answered_at = max(self._answered_at, self._loop.time() + self._some_time())
        self._later(self._answered_at, self._resolve, future, reply)

    def _resolve(self, future: asyncio.Future[Any], reply: Any) -> None:
        if future in self._waiting:
            self._waiting.remove(future)
        if future.done():
            return
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _break(
        self,
        command: tuple[Any, ...],
        _: asyncio.Future[Any],
        number: int,
        fault: str,
        seconds: float,
    ) -> None:
        if number != self._number:
            return
        if fault == "lost":
            self._server.execute(self._process, *command)
        elif fault == "late":
            at = self._loop.time() + seconds
            self._later(at, self._execute_unheard, command)
        self._number += 1
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_exception(UnknownOutcomeError(f"the reply was {fault}"))

    def _execute_unheard(self, command: tuple[Any, ...]) -> None:
        self._server.execute(self._process, *command)
