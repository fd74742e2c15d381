"""The server's clock, watched from here: it may jump, and idle times then mean nothing."""

from __future__ import annotations

import time

#: Smaller jumps are nobody's business: a clock that is kept right moves by milliseconds.
_TOLERATED_MS = 1_000


class ServerClock:
    """Carries the server's time on by this process' monotonic clock, and notices when it jumps.

    Time in which the server could not be asked does not count: nobody could renew anything then.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._told: tuple[float, int] | None = None
        self._is_away = False

    def away(self) -> None:
        """Note that the server did not answer."""
        self._is_away = True

    def expected_ms(self) -> int | None:
        """Return what the server's time should be; None before it was ever told."""
        if self._told is None:
            return None
        at, now_ms = self._told
        return now_ms if self._is_away else now_ms + round((time.monotonic() - at) * 1_000)

    def told(self, now_ms: int, asked_at: float) -> int:
        """Take the time that the server said when asked at *asked_at* (monotonic, s).

        Returns by how many ms its clock has jumped since it last said the time; 0 if it did not.
        """
        answered_at, before = time.monotonic(), self._told
        self._told, self._is_away = (answered_at, now_ms), False
        if before is None:
            return 0
        at, then_ms = before
        passed_ms = now_ms - then_ms
        # It said the time at some moment between the question and the answer.
        too_little_ms = passed_ms - round((asked_at - at) * 1_000)
        too_much_ms = passed_ms - round((answered_at - at) * 1_000)
        if too_little_ms < -_TOLERATED_MS:
            return too_little_ms
        return too_much_ms if too_much_ms > _TOLERATED_MS else 0
