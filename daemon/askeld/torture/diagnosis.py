"""What is stuck, and why: all that a person needs who was not there."""

from __future__ import annotations

from typing import Any

from askeld.torture.final_state import command_streams, read_record
from askeld.torture.words import in_words
from askeld.torture.workers import Workers

_MOST = 20
_MOST_RUNS = 5


async def describe(client: Any, prefix: str, workers: Workers) -> list[str]:
    """Return lines on pending entries, timers, locks, the runs that do not end, and workers."""
    lines = [line for stream in await command_streams(client, prefix) for line in [stream]]
    for stream in list(lines):
        lines += await _describe_stream(client, stream)
    now = (await client.time())[0]
    for member, due in await client.zrange(f"{prefix}:timers", 0, _MOST, withscores=True):
        lines.append(f"timer due in {int(due) - now * 1_000} ms: {member.decode()[:200]}")
    for status in ("running", "suspended", "stalled"):
        ids = await client.zrange(f"{prefix}:runs:status:{status}", 0, _MOST_RUNS - 1)
        for run_id in ids:
            record = await read_record(client, prefix, run_id.decode(), events=False)
            lines += [f"{status}:", *str(record).splitlines()]
            ttl = await client.pttl(f"{prefix}:lock:{run_id.decode()}")
            lines += [f"its lock expires in {ttl} ms"] if record.lock else []
    for worker in workers.alive.values():
        lines.append(f"worker {worker.pid}: ready {worker.ready.is_set()}")
    return lines + workers.ended[-_MOST:] + [in_words(line) for line in workers.mishaps[-_MOST:]]


async def _describe_stream(client: Any, stream: str) -> list[str]:
    lines = [f"{stream}: {await client.xlen(stream)} entries"]
    for group in await client.xinfo_groups(stream):
        lines.append(f"  group {group['name']}: {group}")
        pending = await client.xpending_range(stream, group["name"], "-", "+", _MOST)
        lines += [f"  pending {one}" for one in pending]
    entries = await client.xrange(stream, count=_MOST)
    return lines + [f"  entry {entry_id}: {fields}" for entry_id, fields in entries]
