"""When a failed step is tried again: a pure function of the policy and the attempt."""

from __future__ import annotations

from typing import Any

import msgspec

from askel.durations import duration_ms, duration_text, wire_duration_ms
from askel.errors import InvalidOptionError

#: Retries of a step that says nothing of its own; as in the Node system.
DEFAULT_RETRIES = 5
EXPONENTIAL = "exponential"
_FIRST_MS = 1_000
_CAP_MS = 10 * 60_000


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often and when a failed attempt is repeated.

    ``retries`` counts attempts beyond the first: 0 means exactly one. ``delay`` is the stored
    text: a duration (the same pause before each retry), or ``exponential``: 1 s, 2 s, 4 s and so
    on, at most 10 min.
    """

    retries: int = DEFAULT_RETRIES
    delay: str = EXPONENTIAL

    @property
    def attempts(self) -> int:
        """How many attempts there are at most."""
        return self.retries + 1

    def delay_ms(self, failed_attempt: int) -> int:
        """Return the pause before the attempt that follows *failed_attempt*, in milliseconds."""
        if self.delay != EXPONENTIAL:
            return wire_duration_ms(self.delay)
        # The exponent is bounded so that a step with a thousand retries makes no giant integer.
        return min(_FIRST_MS << min(failed_attempt - 1, 32), _CAP_MS)

    def changed(self, retries: int | None, retry_delay: Any) -> RetryPolicy:
        """Return this policy with what is given in place of its own.

        Raises:
            InvalidOptionError: *retries* is negative or *retry_delay* no duration.
        """
        if retries is None and retry_delay is None:
            return self
        if retries is not None and (
            isinstance(retries, bool) or not isinstance(retries, int) or retries < 0
        ):
            msg = f"retries={retries!r}: give the number of attempts beyond the first, 0 or more"
            raise InvalidOptionError(msg)
        delay = self.delay
        if retry_delay is not None:
            text = retry_delay == EXPONENTIAL
            delay = EXPONENTIAL if text else duration_text(duration_ms(retry_delay))
        return RetryPolicy(self.retries if retries is None else retries, delay)
