"""What grows in a process that leaks, told now and then by a line of the log."""

from __future__ import annotations

import asyncio
import threading

import anyio

from askeld.observability import Logger


class Vitals:
    """Counts what only the process itself can count: tasks of its loop, and threads."""

    def __init__(self, log: Logger, every_ms: int) -> None:
        """Tell *log*, at debug, every *every_ms*."""
        self._log = log
        self._every_s = every_ms / 1_000

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            self._log.debug(
                "worker_vitals", tasks=len(asyncio.all_tasks()), threads=threading.active_count()
            )
            await anyio.sleep(self._every_s)
