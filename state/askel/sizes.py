"""Sizes in bytes, read once for the API, the CLI and the configuration."""

from __future__ import annotations

import re
from typing import TypeAlias

from askel.errors import InvalidOptionError

Size: TypeAlias = int | str
"""A number of bytes, or text: ``512B``, ``64KiB``, ``1MiB``, ``2GiB``."""

_UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_TEXT = re.compile(r"([0-9]{1,15})\s*(B|KiB|MiB|GiB)")


def size_bytes(value: Size) -> int:
    """Return *value*, a number of bytes or text such as ``64KiB``, as bytes.

    Raises:
        InvalidOptionError: *value* is negative or in no known form.
    """
    if isinstance(value, str) and (match := _TEXT.fullmatch(value.strip())) is not None:
        return int(match[1]) * _UNITS[match[2]]
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    msg = f"{value!r:.80} is not a size: write a number of bytes or text such as 512B, 64KiB, 1MiB"
    raise InvalidOptionError(msg)


def size_text(count: int) -> str:
    """Return the text that is shown: ``512B``, ``64KiB``, the largest unit that divides it."""
    for unit, size in reversed(_UNITS.items()):
        if count and count % size == 0:
            return f"{count // size}{unit}"
    return f"{count}B"
