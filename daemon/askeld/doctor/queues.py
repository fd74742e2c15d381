"""Which queues there are: nothing lists them, but open steps and runs name those that they use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from askel import InvalidNameError
from askel.state import Keys
from askeld.doctor.asking import Asking

_STEPS = 20
_OPEN = (b"scheduled", b"running", b"pending")


async def queues_of(ask: Asking, keys: Keys, run_ids: Iterable[str]) -> list[str]:
    """Return the queues that these runs are driven by, or that their newest steps wait for."""
    found = await asyncio.gather(*(_of_run(ask, keys, run_id) for run_id in run_ids))
    return sorted({queue for queues in found for queue in queues if _is_one(keys, queue)})


async def _of_run(ask: Asking, keys: Keys, run_id: str) -> set[str]:
    (own,) = await ask("HMGET", keys.ctl(run_id), "queue") or (None,)
    names = await ask("LRANGE", keys.steps(run_id), -_STEPS, -1) or []
    stem = keys.step_stem(run_id).encode()
    steps = await asyncio.gather(*(ask("HMGET", stem + name, "status", "queue") for name in names))
    of_steps = (queue for status, queue in filter(None, steps) if status in _OPEN)
    return {queue.decode("utf-8", "replace") for queue in (own, *of_steps) if queue}


def _is_one(keys: Keys, queue: str) -> bool:
    """Tell whether *queue* is a name that a queue may have: anybody may have written it."""
    try:
        keys.commands(queue)
    except InvalidNameError:
        return False
    return True
