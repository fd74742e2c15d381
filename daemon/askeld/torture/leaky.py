"""A control for the soak: the real worker, whose application leaks whatever can leak."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any

from askeld.torture import programs

#: So many bytes stay of each call of a handler, beside a descriptor and a task.
_BYTES = 128_000


def plant() -> None:
    """Leak at every call of a handler, in this process, from now on."""
    programs.effects.append(Leak())


class Leak:
    """Stands among those who are told of each call, and forgets nothing."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._kept: list[Any] = []

    def write(self, event: str, **facts: Any) -> None:
        """Keep memory, a descriptor and a task."""
        self._kept.append((event, facts, os.urandom(_BYTES)))
        with suppress(OSError):  # there are no more to be had
            self._kept.append(os.open(os.devnull, os.O_RDONLY))
        with suppress(RuntimeError):  # a handler in a thread has no loop
            self._kept.append(asyncio.get_running_loop().create_task(asyncio.Event().wait()))
