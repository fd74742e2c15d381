"""A small shop, for tests of what people and programs see from outside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anyio

from askel import App, Run, StepContext

app = App("kiosk")
no_app = "only a text"


@dataclass
class Order:
    """What is bought."""

    id: str
    cents: int = 100


@app.step(retries=3, retry_delay="10ms")
async def charge(order: Order, ctx: StepContext) -> str:
    """Charge the card; the first attempt fails."""
    if ctx.attempt == 1:
        raise ConnectionError("the bank did not answer")
    return f"charged {order.cents}"


@app.step
def pack(order: Order) -> str:
    """Pack the parcel."""
    return f"parcel of {order.id}"


@app.step(retries=0)
async def refuse(reason: str) -> None:
    """Fail."""
    raise ValueError(reason)


@app.step
async def hold(path: str) -> str:
    """Wait until a file is there; leave a mark for each time this begins."""
    with Path(f"{path}.begun").open("a") as begun:
        begun.write("x")
    while not Path(path).exists():  # noqa: ASYNC110 - another process makes it
        await anyio.sleep(0.01)
    return "held"


@app.workflow
async def checkout(run: Run, order: Order) -> dict[str, str]:
    """Buy something."""
    receipt = await run.do("charge card", charge, order)
    await run.sleep("cool off", "10ms")
    return {"receipt": receipt, "parcel": await run.do("pack", pack, order)}


@app.workflow
async def complains(run: Run, reason: str) -> None:
    """Fail for a reason."""
    await run.do("refuse", refuse, reason)


@app.workflow
async def waits(run: Run, path: str) -> str:
    """Wait for a file."""
    return await run.do("hold", hold, path)
