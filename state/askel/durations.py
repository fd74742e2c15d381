"""Durations, read once for the API, the CLI, the configuration and the wire."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TypeAlias

from askel.errors import InvalidOptionError

Duration: TypeAlias = timedelta | str | float | int
"""A ``timedelta``, a number of seconds, or text: ``250ms``, ``5s``, ``5min``, ``2h``, ``3d``."""

_UNITS_MS = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_TEXT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|min|h|d)")
_HINT = "write a timedelta, a number of seconds or text such as 250ms, 5s, 5min, 2h or 3d"

# A thousand years: far beyond any use, and well inside the integers that a double carries exactly.
_MAX_MS = 1_000 * 366 * 86_400_000


def duration_ms(value: Duration) -> int:
    """Return *value* as whole milliseconds.

    Args:
        value: A ``timedelta``, a number of seconds, or text with a unit.

    Raises:
        InvalidOptionError: *value* is negative, endless or in no known form.
    """
    if isinstance(value, timedelta):
        result = value / timedelta(milliseconds=1)
    elif isinstance(value, str):
        match = _TEXT.fullmatch(value.strip())
        if match is None:
            msg = f"{value!r:.80} is not a duration: {_HINT}"
            raise InvalidOptionError(msg)
        result = float(match[1]) * _UNITS_MS[match[2]]
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        msg = f"a {type(value).__name__} is not a duration: {_HINT}"
        raise InvalidOptionError(msg)
    else:
        result = value * 1_000
    if not 0 <= result <= _MAX_MS:  # also refuses NaN
        msg = f"{value!r:.80} is not a duration between 0 and 1000 years: {_HINT}"
        raise InvalidOptionError(msg)
    return round(result)


def duration_text(milliseconds: int) -> str:
    """Return the text that is stored and shown: ``250ms``, ``5s``, ``5min``, ``2h``, ``3d``."""
    for unit in ("d", "h", "min", "s"):
        size = _UNITS_MS[unit]
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def wire_duration_ms(text: str) -> int:
    """Return milliseconds from wire text, where bare digits mean milliseconds (as Node stores).

    Raises:
        InvalidOptionError: *text* is neither digits nor a duration with a unit.
    """
    if not (text.isascii() and text.isdigit()):
        return duration_ms(text)
    digits = text.lstrip("0")
    # Python refuses to read an integer of more than some thousand digits.
    return min(int(digits or "0"), _MAX_MS) if len(digits) <= len(str(_MAX_MS)) else _MAX_MS
