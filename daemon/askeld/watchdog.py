"""The watchdog: names what blocks the event loop, and ends a process whose loop stands still.

A thread looks at the loop from outside. It warns, and it feeds systemd's watchdog while all loops
move. The end itself is left to ``faulthandler``, whose timer is a thread of C that the loop arms
anew again and again: it needs no interpreter lock, so not even a regular expression that holds the
lock for ever keeps it from printing where every thread is, and from leaving.
"""

from __future__ import annotations

import faulthandler
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import anyio

import askel
from askel.workflow import Activation, Executor, LocalAttempt
from askeld.health import Health
from askeld.notify import Notifier
from askeld.observability import Logger

#: How often the loop shows that it moves, at least.
_TICK_S = 0.25
#: A timer of faulthandler is a thread: it is not made anew at each tick.
_REARM_S = 1.0
#: Shortly before the end the log says what is coming, if there is an interpreter to say it.
_FINAL_WORD = 0.9
_FRAMES = 20
#: How often systemd hears of a worker, where it does not say how often it wants to.
_FEED_S = 40.0
_MOVING = ("WATCHDOG=1",)
#: A Redis that is away at the start is waited for, for longer than a start may take.
_WAITING = ("WATCHDOG=1", "EXTEND_TIMEOUT_USEC=90000000", "STATUS=waiting for Redis")
_OURS = (
    str(Path(askel.__file__).parent),
    str(Path(__file__).parent),
    sysconfig.get_path("stdlib"),
    "<frozen",
)
#: Handlers are called from here.
_CALLER = Executor.execute.__code__.co_filename
_INSTALLED = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))


class Watchdog:
    """Watches the event loop of the thread that it is made in, while `run` runs."""

    def __init__(
        self,
        health: Health,
        notifier: Notifier,
        log: Logger,
        *,
        warn_block_ms: int,
        max_block_ms: int,
    ) -> None:
        """Warn at *warn_block_ms*, end the process at *max_block_ms*; 0 means never."""
        self._health = health
        self._notifier = notifier
        self._log = log
        self._warn_s = warn_block_ms / 1_000
        self._max_s = max_block_ms / 1_000
        limits = [limit / 4 for limit in (self._warn_s, self._max_s) if limit]
        self._tick_s = min([_TICK_S, *limits])
        self._pulse = health.pulse("event_loop")
        self._moved_at = time.monotonic()
        self._armed_at = 0.0
        self._thread_id = threading.get_ident()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="askel-watchdog", daemon=True)

    def __enter__(self) -> Self:
        """Begin to watch; `run` has to run from now on."""
        self._tick()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cease to watch; what is still to be done before the process ends has one limit more."""
        self._stopped.set()
        self._thread.join()
        self._health.ended("event_loop")
        self._armed_at = 0.0
        self._tick()

    async def run(self) -> None:
        """Show that the loop moves, until cancelled."""
        while True:
            self._tick()
            await anyio.sleep(self._tick_s)

    def _tick(self) -> None:
        self._pulse.beat(self._tick_s)
        now = self._moved_at = time.monotonic()
        if self._max_s and now - self._armed_at >= min(_REARM_S, self._max_s / 4):
            self._armed_at = now
            faulthandler.dump_traceback_later(self._max_s, exit=True)

    def _watch(self) -> None:
        """Look at the loop, in a thread, until stopped."""
        block = _Block(self._log, self._warn_s, self._max_s)
        looked_at = fed_at = time.monotonic()
        while not self._stopped.wait(self._tick_s):
            now = time.monotonic()
            overslept_s = now - looked_at - self._tick_s
            looked_at = now
            if self._warn_s and overslept_s > self._warn_s:
                # This thread stood still, too: what the loop does now tells nothing.
                self._log.warning(
                    "process_stalled",
                    stalled_ms=round(overslept_s * 1_000),
                    hint="a handler held the interpreter lock, the process was stopped,"
                    " or the machine has too little CPU",
                )
                continue
            block.look(now - self._moved_at, self._thread_id)
            every_s = self._notifier.watchdog_s or _FEED_S
            if now - fed_at >= every_s / 4 and self._health.is_live:
                fed_at = now
                self._notifier.send(*(_WAITING if self._health.is_starting else _MOVING))


class _Block:
    """What is said of one stretch of time in which the loop does not move."""

    def __init__(self, log: Logger, warn_s: float, max_s: float) -> None:
        self._log = log
        self._warn_s = warn_s
        self._max_s = max_s
        self._next_s = warn_s
        self._last_s = 0.0
        self._ending = False

    def look(self, blocked_s: float, thread_id: int) -> None:
        """Warn when the loop is blocked for long, and again whenever that has doubled."""
        if blocked_s < self._last_s and self._next_s > self._warn_s:
            self._log.info("loop_moves_again", blocked_ms=round(self._last_s * 1_000))
            self._next_s, self._ending = self._warn_s, False
        self._last_s = blocked_s
        if self._warn_s and blocked_s >= self._next_s:
            self._next_s = max(self._next_s * 2, blocked_s)
            self._log.warning("loop_blocked", **_seen(blocked_s, thread_id))
        if self._max_s and blocked_s >= self._max_s * _FINAL_WORD and not self._ending:
            self._ending = True
            hint = (
                f"the worker ends itself when its loop is blocked for {self._max_s:g} s; next,"
                " standard error shows the stack of every thread, after 'Timeout'"
            )
            self._log.error("loop_blocked_too_long", hint=hint, **_seen(blocked_s, thread_id))


def _seen(blocked_s: float, thread_id: int) -> dict[str, Any]:
    """Return what a log line says of the loop that is blocked: where, and by which step."""
    frame = sys._current_frames().get(thread_id)  # noqa: SLF001 - documented, despite its name
    facts: dict[str, Any] = {"blocked_ms": round(blocked_s * 1_000)}
    if frame is None:
        return facts
    facts |= _doer(frame)
    stack = traceback.extract_stack(frame, limit=_FRAMES)
    files = [place.filename for place in stack]
    places = [f"{place.filename}:{place.lineno} in {place.name}" for place in stack]
    facts["at"] = places[_guilty(files)]
    calls = [i for i, file in enumerate(files) if file == _CALLER]
    facts["stack"] = places[calls[-1] + 1 :] if calls else places
    return facts


def _guilty(files: list[str]) -> int:
    """Return the index of the innermost frame that is the application's, else of the innermost."""
    ours = [i for i, file in enumerate(files) if not file.startswith(_OURS)]
    installed = [i for i, file in enumerate(files) if file.startswith(_INSTALLED)]
    own = [i for i in ours if i not in installed]
    return (own or installed or [len(files) - 1])[-1]


def _doer(frame: FrameType) -> dict[str, Any]:
    """Return what names the attempt, or else the run, that is executed on the stack of *frame*."""
    for one in _outwards(frame):
        if not one.f_code.co_filename.startswith(_OURS[0]):
            continue
        attempt, activation = one.f_locals.get("attempt"), one.f_locals.get("self")
        if one.f_code.co_filename == _CALLER and isinstance(attempt, LocalAttempt):
            return {"run_id": attempt.run_id, "step": attempt.key, "attempt": attempt.attempt}
        if isinstance(activation, Activation):
            return {"run_id": activation.run_id}
    return {}


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
