"""The rules of the torture runner, asserted: every promise about a run, on what Redis holds."""

from __future__ import annotations

import redis.asyncio

from askeld.torture.final_state import leftovers, read_record
from askeld.torture.run_rules import TERMINAL, RunRecord, violations

__all__ = [
    "TERMINAL",
    "RunRecord",
    "check_all",
    "check_run",
    "leftovers",
    "read_record",
    "violations",
]


async def check_run(
    client: redis.asyncio.Redis, prefix: str, run_id: str, *, settled: bool = True
) -> RunRecord:
    """Return the record of a run that keeps every promise; AssertionError names what it breaks."""
    record = await read_record(client, prefix, run_id)
    found = violations(record, settled=settled)
    assert not found, "\n".join([*found, str(record)])
    return record


async def check_all(client: redis.asyncio.Redis, prefix: str) -> list[RunRecord]:
    """Return the records of all runs, each of which keeps every promise."""
    ids = await client.zrange(f"{prefix}:runs", 0, -1)
    return [await check_run(client, prefix, run_id.decode()) for run_id in ids]
