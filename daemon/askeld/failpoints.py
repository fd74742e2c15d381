"""Named points at which a test ends the process: ``ASKEL_FAILPOINT=name[:nth]``."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def failpoint(specification: str | None) -> Callable[[str], None] | None:
    """Return what kills this process (SIGKILL) at the nth reach of the named point, or None.

    Raises:
        ValueError: The specification is malformed.
    """
    if not specification:
        return None
    name, _, count = specification.partition(":")
    left = int(count or 1)

    def reach(point: str) -> None:
        nonlocal left
        if point == name:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    return reach
