"""Processors that never sleep, a server on one and its client on another, for waits of 0.1 ms.

A processor with nothing to do is halted, and takes from 10 to 90 µs to wake, for whole seconds the
one or the other; and whether a server shares its processor with the client is up to the scheduler.
Either is as long as a read takes, and a matter of chance. A spinning process of the lowest priority
keeps each processor awake; whoever has work takes its place at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
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
def awake(servers: Iterable[int]) -> Iterator[None]:
    """Keep the processors awake for the body, and this process apart from those of *servers*.

    On Linux with two processors or more; elsewhere nothing is done.
    """
    processors = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    with ExitStack() as stack:
        for processor in processors:
            command = [sys.executable, "-c", _SPIN, str(processor), str(os.getpid())]
            spinner = stack.enter_context(subprocess.Popen(command))
            stack.callback(spinner.kill)
        if len(processors) > 1:
            places = dict.fromkeys(servers, processors[:1]) | {0: processors[1:]}
            for pid, place in places.items():
                stack.callback(os.sched_setaffinity, pid, os.sched_getaffinity(pid))
                os.sched_setaffinity(pid, place)
        yield
