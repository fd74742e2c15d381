"""What is found out about runs: the newest ones, and those that have been under way longest."""

from __future__ import annotations

from collections.abc import Mapping

from askel import AskelError, RunStatus
from askel.state import TERMINAL, Codec, Keys, fields_of, read_run
from askeld.doctor.asking import Asking
from askeld.doctor.facts import Facts, RunFacts

_SAMPLE = 100
_WORKFLOWS = 1_000
_DAMAGED = (KeyError, ValueError, OverflowError, OSError, RecursionError, AskelError)
_CODEC = Codec(lenient=True)
_LIVE = [status.value for status in RunStatus if status not in TERMINAL]


async def gather_runs(ask: Asking, keys: Keys, facts: Facts) -> None:
    """Look at a sample of runs, and at how many ended ones each workflow has."""
    names: dict[str, None] = {}
    for index, *newest_first in (
        (keys.runs, "REV"),  # not ZREVRANGE: the user of a worker has no use for it
        *((keys.runs_by_status(status),) for status in _LIVE),
    ):
        for run_id in await ask("ZRANGE", index, 0, _SAMPLE - 1, *newest_first) or []:
            names[run_id.decode("utf-8", "replace")] = None
    for run_id in names:
        facts.runs.append(await _run(ask, keys, run_id))
    for run in facts.runs:
        if run.status == "running" and await _has_lost_token(ask, keys, run.run_id):
            facts.stuck.append(run.run_id)
    for raw in await ask("ZRANGE", keys.workflows, 0, _WORKFLOWS - 1) or []:
        workflow = raw.decode("utf-8", "replace")
        index = keys.runs_ended(workflow)
        facts.ended[workflow] = await ask.count(index)
        oldest = await ask("ZRANGE", index, 0, 0, "WITHSCORES")
        if oldest:
            facts.oldest_ended_ms[workflow] = int(float(oldest[1]))


async def _run(ask: Asking, keys: Keys, run_id: str) -> RunFacts:
    flat = await ask("HGETALL", keys.run(run_id))
    if flat is None:
        return RunFacts(run_id, "", problem="its key is no hash")
    if not flat:
        return RunFacts(run_id, "", stray="there is no such run")
    fields = fields_of(flat)
    problem = ""
    try:
        read_run(fields, _CODEC)
    except _DAMAGED as error:
        problem = " ".join(str(error).split())[:200]
    status = _text(fields, "status")
    workflow = _text(fields, "workflow")
    return RunFacts(
        run_id=run_id,
        status=status,
        workflow=workflow,
        problem=problem,
        stray=await _stray(ask, keys, run_id, status),
        history=await ask("LLEN", keys.history(run_id)) or 0,
        largest=max((len(value) for value in fields.values()), default=0),
        lock_ms=await _lock_ms(ask, keys, run_id),
        fields=tuple(sorted(fields)),
    )


def _text(fields: Mapping[str, bytes], name: str) -> str:
    return fields.get(name, b"").decode("utf-8", "replace")


async def _stray(ask: Asking, keys: Keys, run_id: str, status: str) -> str:
    """Return what is wrong with the index entries of a run; empty if nothing is."""
    if await ask("ZSCORE", keys.runs, run_id) is None:
        return "missing in the index of all runs"
    for one in RunStatus:
        named = await ask("ZSCORE", keys.runs_by_status(one.value), run_id) is not None
        if named != (one.value == status):
            return f"{'named' if named else 'missing'} as {one.value}"
    return ""


async def _lock_ms(ask: Asking, keys: Keys, run_id: str) -> int | None:
    left = await ask("PTTL", keys.lock(run_id))
    return None if left in {None, -2} else int(left)


async def _has_lost_token(ask: Asking, keys: Keys, run_id: str) -> bool:
    """Tell whether the entry that drives the run is neither where it was started nor by default."""
    token, queue = await ask("HMGET", keys.ctl(run_id), "token", "queue") or (None, None)
    if not token:
        return False
    entry, stream = token.decode(), keys.commands_default
    for name in (stream, f"{stream}:{queue.decode()}") if queue else (stream,):
        if await ask("XRANGE", name, entry, entry):
            return False
    return True
