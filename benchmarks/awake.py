"""Processors that never sleep, so that what is measured is not how long they take to wake.

A processor with nothing to do is halted, and takes from 10 to 90 µs to wake, for whole seconds the
one or the other: as long as a read takes, and a matter of chance. A spinning process of the lowest
priority on each keeps them awake; whoever has work takes its place at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_SPIN = """
import os, sys
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
os.sched_setaffinity(0, {int(sys.argv[1])})
parent = int(sys.argv[2])
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def awake() -> Iterator[None]:
    """Keep this process's processors awake for the body; on Linux, elsewhere do nothing."""
    with ExitStack() as stack:
        for processor in os.sched_getaffinity(0) if sys.platform == "linux" else ():
            command = [sys.executable, "-c", _SPIN, str(processor), str(os.getpid())]
            spinner = stack.enter_context(subprocess.Popen(command))
            stack.callback(spinner.kill)
        yield
