"""Steps that do to the process what is none of their business."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from typing import Any

from askel import App, Run

app = App("unruly")
_left: list[asyncio.Task[None]] = []


@app.step(retries=0)
async def cancels_everything() -> None:
    for task in asyncio.all_tasks():
        task.cancel()


async def _exits() -> None:
    sys.exit(0)


@app.step(retries=0)
async def leaves_an_exit() -> None:
    _left.append(asyncio.create_task(_exits()))


async def _lasts() -> None:
    await asyncio.Event().wait()


async def _resists() -> None:
    while True:
        try:
            await asyncio.sleep(0.01)
        except BaseException:  # noqa: BLE001 - that is the point
            continue


@app.step(retries=0)
async def leaves_a_task() -> None:
    _left.append(asyncio.create_task(_lasts(), name="left"))


@app.step(retries=0)
async def leaves_a_stubborn_task() -> None:
    _left.append(asyncio.create_task(_resists(), name="stubborn"))


@app.step(retries=0)
async def leaves_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(3_600,), name="left thread").start()


@app.step(retries=0)
async def forks() -> list[int]:
    """Fork with and without exec, as libraries do."""
    child = os.fork()
    if not child:
        os._exit(7)
    _, status = os.waitpid(child, 0)
    ran = subprocess.run([sys.executable, "-c", "raise SystemExit(5)"], check=False)
    return [os.waitstatus_to_exitcode(status), ran.returncode]


@app.step(retries=0, timeout="50ms")
async def is_stubborn() -> None:
    await _resists()


@app.workflow
async def does(run: Run, step: str) -> Any:
    return await run.do("it", step, retries=0)
