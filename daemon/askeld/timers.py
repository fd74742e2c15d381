"""The timer loop: due timers become commands on their streams."""

from __future__ import annotations

from collections.abc import Sequence

from askel import StoreAccessError, StoreError, StoreReplyError
from askel.state import Keys, StoreTrouble, Timers, is_passing, trouble_of
from askel.wire import CommandError, decode_timer
from askeld.alarm import TimerAlarm
from askeld.health import Pulse
from askeld.observability import Logger

_LIMIT = 500
_LONGEST_S = 1.0
#: On what stream a timer that is none of ours ends, as a dead letter to be.
_GARBAGE = ("type", "timer.unreadable")

Call = tuple[bytes, str, Sequence[str]]


class TimerLoop:
    """Sends the commands of due timers, whichever process armed them."""

    def __init__(
        self, timers: Timers, keys: Keys, alarm: TimerAlarm, log: Logger, pulse: Pulse
    ) -> None:
        """Look when *alarm* says, and at least every second for what others armed."""
        self._timers = timers
        self._keys = keys
        self._alarm = alarm
        self._log = log
        self._pulse = pulse
        self._stopping = False

    def stop(self) -> None:
        """Fire nothing more."""
        self._stopping = True
        self._alarm.set(0)

    async def run(self) -> None:
        """Fire timers until stopped; trouble with Redis is waited out."""
        refused = ""
        while not self._stopping:
            self._pulse.beat()
            try:
                fired, wait_s = await self.run_once()
            except StoreError as error:
                if is_passing(error):
                    self._log.debug("timers_interrupted", error=str(error))
                    continue  # the call has waited long enough
                if isinstance(error, StoreAccessError):
                    raise
                if str(error) != refused:
                    refused = str(error)
                    self._log.error("timers_refused", error=refused)
                fired, wait_s = 0, _LONGEST_S
            else:
                refused = ""
            if fired < _LIMIT and not self._stopping:
                self._pulse.beat(_LONGEST_S)
                await self._alarm.wait(min(wait_s, _LONGEST_S))

    async def run_once(self) -> tuple[int, float]:
        """Fire what is due; return how many that were, and the seconds until the next."""
        members, now, later = await self._timers.due(_LIMIT)
        calls = []
        for member in members:
            try:
                queue, words = decode_timer(member)
                stream = self._keys.commands(queue)
            except (CommandError, ValueError):
                stream, words = self._keys.commands_default, _garbage(member)
                self._log.warning("timer_unreadable")
            calls.append((member, stream, words))
        if calls:
            fired = await self._fire(calls)
            self._log.debug("timers_fired", count=fired)
        wait_s = float("inf") if later is None else max(later - now, 0) / 1_000
        return len(calls), wait_s

    async def _fire(self, calls: Sequence[Call]) -> int:
        """Send the command of each timer; those whose stream is none end as dead letters."""
        try:
            return await self._timers.fire(calls)
        except StoreReplyError as error:
            if trouble_of(error) is not StoreTrouble.WRONG_TYPE:
                raise
        fired = 0
        for stream in dict.fromkeys(stream for _, stream, _ in calls):
            part = [call for call in calls if call[1] == stream]
            try:
                fired += await self._timers.fire(part)
            except StoreReplyError as error:
                default = self._keys.commands_default
                if trouble_of(error) is not StoreTrouble.WRONG_TYPE or stream == default:
                    raise
                self._log.error("timer_stream_refused", stream=stream, error=error.code)
                fired += await self._timers.fire(
                    [(member, default, _garbage(member)) for member, _, _ in part]
                )
        return fired


def _garbage(member: bytes) -> list[str]:
    """Return the fields of a command that nobody knows, and so is kept with the timer in it."""
    return [*_GARBAGE, "timer", member.decode(errors="backslashreplace")]
