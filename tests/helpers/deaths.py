"""Workers that are started one after another, each after the death of the last."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.helpers.daemon import Deployment
from tests.helpers.forked import ForkedWorker
from tests.helpers.waiting import wait_until


async def feed_workers(
    deployment: Deployment,
    directory: Path,
    app: str,
    settings: Mapping[str, Any],
    over: Callable[[], Awaitable[bool]],
    most: int,
) -> list[ForkedWorker]:
    """Start workers until one lives on to see that *over* holds; return those that died.

    Raises:
        AssertionError: More than *most* died.
    """
    died: list[ForkedWorker] = []
    async with AsyncExitStack() as stack:
        while True:
            worker = ForkedWorker(
                app,
                redis_url=deployment.url,
                prefix=deployment.prefix,
                directory=directory,
                settings=settings,
            )
            await stack.enter_async_context(worker)

            async def either(worker: ForkedWorker = worker) -> bool:
                return worker.returncode is not None or await over()

            await wait_until(either, 30, worker.tail)
            if worker.returncode is None:
                return died
            died.append(worker)
            assert len(died) <= most, f"{len(died)} workers died\n{worker.tail()}"
