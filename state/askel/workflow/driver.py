"""Driving an activation: its turns are sent, its attempts executed, its news awaited.

The same driver serves a daemon, where a stream entry is the run's token, and inline mode, where
the run lock is.
"""

from __future__ import annotations

import math
import random
from enum import StrEnum
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from askel.errors import StoreAccessError, StoreReplyError
from askel.state import Activations, Entry, Turn, Turned
from askel.workflow.activation import Activation
from askel.workflow.attempts import LocalAttempt, Outcome

_LONGEST_WAIT_S = 0.25


class Ended(StrEnum):
    """How driving a run came to its end."""

    FINISHED = "finished"  # the run, or its activation, ended by a turn of ours
    TERMINAL = "terminal"  # somebody else ended the run: cancelled, terminated, deleted
    LOST = "lost"  # another process owns the run
    CONFLICT = "conflict"  # what we remember is stale: load the run again
    REFUSED = "refused"  # Redis refuses the run's keys for good (one is of another type)
    HANDED_BACK = "handed_back"  # draining: another process goes on


#: How a refused turn ends the driving.
_REFUSED = {
    "TERMINAL": Ended.TERMINAL,
    "GONE": Ended.TERMINAL,
    "LOST": Ended.LOST,
    "CONFLICT": Ended.CONFLICT,
}


class Executes(Protocol):
    """Whatever executes attempts: the worker's executor, or a test's stand-in."""

    async def execute(self, attempt: LocalAttempt) -> Outcome:
        """Execute *attempt* and return how it ended; raises only when it is cancelled."""


class Observer(Protocol):
    """Told what a driver does, for logs and counters."""

    def attempt_begun(self, attempt: LocalAttempt) -> None:
        """An attempt is about to be executed."""

    def attempt_ended(self, attempt: LocalAttempt, outcome: Outcome) -> None:
        """An attempt was executed."""

    def turn_taken(self, turn: Turn, answer: Turned) -> None:
        """A turn was answered."""

    def idle(self, *, is_idle: bool) -> None:
        """The run began, or ceased, to wait without anything of it being executed here."""


class RunDriver:
    """Drives one activation until the run ends, is given up, or is somebody else's."""

    def __init__(
        self,
        activations: Activations,
        activation: Activation,
        executor: Executes,
        observer: Observer,
        *,
        entry: Entry | None,
        linger_s: float = math.inf,
    ) -> None:
        """Prepare to drive.

        Args:
            activations: The scripts.
            activation: The run, loaded and owned.
            executor: Executes the attempts.
            observer: Told of everything.
            entry: The run's token; None in inline mode.
            linger_s: How long to keep a run in memory that waits for something.
        """
        self._activations = activations
        self.activation = activation
        self._executor = executor
        self._observer = observer
        self._entry = entry
        self._linger_s = linger_s
        self._news = anyio.Event()
        self._poked = entry is None  # inline mode needs the server's time for its timers
        self._draining = False
        self._gone: Ended | None = None
        #: What Redis said, when driving ended REFUSED.
        self.refused: StoreReplyError | None = None
        self._server_ms = 0
        self._heard_at = 0.0

    def poke(self) -> None:
        """Tell the driver that the run's history has grown."""
        self._poked = True
        self._news.set()

    def drain(self) -> None:
        """Let running attempts end, begin nothing more, then hand the run back."""
        self._draining = True
        self._linger_s = 0
        self._news.set()

    def stop(self, ended: Ended) -> None:
        """Drop the run at once: it is no longer ours, or it has ended."""
        self._gone = self._gone or ended
        self._news.set()

    async def drive(self) -> Ended:
        """Drive the run; its attempts are cancelled when it ends otherwise than by a turn."""
        try:
            async with anyio.create_task_group() as tg:
                ended = await self._drive(tg)
                tg.cancel_scope.cancel()
        finally:
            self.activation.close()
        return ended

    async def _drive(self, tg: TaskGroup) -> Ended:
        activation = self.activation
        idle = False
        while True:
            if self._news.is_set():
                self._news = anyio.Event()
            if self._gone is not None:
                return self._gone
            forced = self._poked or activation.is_behind
            self._poked = False
            if self._draining and not activation.has_local_work:
                return Ended.HANDED_BACK
            turn = activation.next_turn(passivate=idle, forced=forced, hold=self._draining)
            if turn is not None:
                ended = await self._take(turn, tg)
                if ended is not None:
                    return ended
                idle = False
                continue
            idle = await self._wait()

    async def _wait(self) -> bool:
        """Wait for news; return whether the run was idle for as long as it may linger."""
        if self._entry is None:
            await self._wait_inline()
            return False
        if self.activation.has_local_work:
            await self._news.wait()
            return False
        self._observer.idle(is_idle=True)
        try:
            with anyio.move_on_after(self._linger_s):
                await self._news.wait()
                return False
        finally:
            self._observer.idle(is_idle=False)
        return True

    async def _wait_inline(self) -> None:
        """Wait for news or for the next timer, which inline mode keeps itself."""
        due = self.activation.next_due()
        if due is None:
            await self._news.wait()
            return
        now = self._now()
        with anyio.move_on_after(max(due - now, 0) / 1_000):
            await self._news.wait()
        self.activation.timers_due(self._now())

    def _now(self) -> int:
        """Return the server's time, as of its last answer and the time that passed since."""
        return self._server_ms + int((anyio.current_time() - self._heard_at) * 1_000)

    async def _take(self, turn: Turn, tg: TaskGroup) -> Ended | None:
        """Send *turn* until it is answered with other than BUSY; return how driving ends, if so."""
        while True:
            answer = await self._send(turn)
            if answer is None:
                return Ended.REFUSED
            if answer.word != "BUSY":
                break
            # Somebody holds the run lock for a moment. A little apart from others who wait.
            pause = min(max(answer.pttl, 1) / 1_000, _LONGEST_WAIT_S)
            await anyio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            if self._gone is not None:
                return self._gone
        if answer.at:
            self._server_ms, self._heard_at = answer.at, anyio.current_time()
        self._observer.turn_taken(turn, answer)
        match answer.word:
            case "OK":
                for attempt in self.activation.landed(answer):
                    self._observer.attempt_begun(attempt)
                    tg.start_soon(self._execute, attempt)
                return None
            case "BEHIND":
                self.activation.behind(answer)
                return None
            case "END":
                self.activation.ended = turn.end
                return Ended.FINISHED
            case word:
                return _REFUSED[word]

    async def _send(self, turn: Turn) -> Turned | None:
        """Return the answer to *turn*, or None when Redis refuses what it would write."""
        try:
            return await self._activations.turn(turn, self._entry)
        except StoreReplyError as error:
            if isinstance(error, StoreAccessError):
                raise  # it is not this run that is refused
            self.refused = error
            return None

    async def _execute(self, attempt: LocalAttempt) -> None:
        outcome = await self._executor.execute(attempt)
        self._observer.attempt_ended(attempt, outcome)
        self.activation.finished(attempt, outcome, self._now())
        self._news.set()
