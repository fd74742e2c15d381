"""What a server holds of the runs when all is over: read by the documented keys alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from askeld.torture.run_rules import RUN_STATUSES, RunRecord

_READ = """
local p, id = KEYS[1], ARGV[1]
local names, steps = redis.call('LRANGE', p .. ':steps:' .. id, 0, -1), {}
for i, name in ipairs(names) do
  steps[i] = redis.call('HGETALL', p .. ':step:' .. id .. ':' .. name)
end
local run = redis.call('HGETALL', p .. ':run:' .. id)
local workflow = redis.call('HGET', p .. ':run:' .. id, 'workflow') or ''
local indexes = {}
for i = 3, #ARGV do
  local index = string.gsub(ARGV[i], '%%w', function() return workflow end)
  indexes[i - 2] = redis.call('ZSCORE', p .. ':runs' .. index, id) or ''
end
local queued, token = '', redis.call('HGET', p .. ':ctl:' .. id, 'token')
for i = 2, #KEYS do
  if token and #redis.call('XRANGE', KEYS[i], token, token) > 0 then queued = token end
end
local events = {}
local all = ARGV[2] ~= '' and redis.call('XRANGE', p .. ':events', '-', '+') or {}
for _, event in ipairs(all) do
  for i = 1, #event[2], 2 do
    if event[2][i] == 'run_id' and event[2][i + 1] == id then events[#events + 1] = event[2] end
  end
end
local ctl, lock = redis.call('HGETALL', p .. ':ctl:' .. id), redis.call('GET', p .. ':lock:' .. id)
local history = redis.call('LRANGE', p .. ':history:' .. id, 0, -1)
return { run, ctl, history, names, steps, lock or '', indexes, queued, events }
"""
"""Reads all of one run at one moment."""

_INDEXES = ("", *(f":status:{status}" for status in RUN_STATUSES), ":workflow:%w")


async def read_record(
    client: Any,
    prefix: str,
    run_id: str,
    *,
    streams: Sequence[str] | None = None,
    events: bool = True,
) -> RunRecord:
    """Return all that the server holds of one run, as it is at one moment.

    Args:
        client: Of the server.
        prefix: The deployment.
        run_id: Which run.
        streams: The streams of commands, for who reads many runs; looked up by default.
        events: Whether to read the stream of events, too, all of it.
    """
    streams = await command_streams(client, prefix) if streams is None else streams
    words = (prefix, *streams, run_id, "1" if events else "", *_INDEXES)
    answer: Any = await client.eval(_READ, 1 + len(streams), *words)
    run, ctl, history, names, steps, lock, scores, queued, told_events = answer
    listed = [name.decode() for name in names]
    fields = {name: _texts(_pairs(flat)) for name, flat in zip(listed, steps, strict=True)}
    told = [_texts(_pairs(flat)) for flat in told_events]
    own = _texts(_pairs(run))
    index_names = [name[1:].replace("%w", own.get("workflow", "")) for name in _INDEXES]
    return RunRecord(
        run_id,
        own,
        _texts(_pairs(ctl)),
        [_entry(item) for item in history],
        listed,
        {name: step for name, step in fields.items() if step},
        lock.decode() or None,
        {name: float(s) for name, s in zip(index_names, scores, strict=True) if s},
        [(event["status"], int(event["seq"])) for event in told] if events else None,
        frozenset({queued.decode()} if queued else ()),
    )


def _entry(item: bytes) -> dict[str, Any]:
    """Return a history entry; a small one does not name the first attempt."""
    entry: dict[str, Any] = json.loads(item)
    return {**entry, "attempt": entry.get("attempt", 1)} if entry["t"] == "step" else entry


async def leftovers(client: Any, prefix: str, *, dead: int = 0) -> list[str]:
    """Return what is left although all runs have ended: entries, pending ones, timers, tokens.

    Locks and tokens are looked for when the rest is gone.

    Args:
        client: Of the server.
        prefix: The deployment.
        dead: How many dead letters there are to be.
    """
    found = [sentence async for sentence in _undone(client, prefix, dead)]
    return found or [sentence async for sentence in _unreleased(client, prefix)]


async def _undone(client: Any, prefix: str, dead: int) -> AsyncIterator[str]:
    for stream in await command_streams(client, prefix):
        if length := await client.xlen(stream):
            yield f"{length} entries on {stream}: {await client.xrange(stream, count=5)}"
        for group in await client.xinfo_groups(stream):
            if group["pending"]:
                yield f"{group['pending']} entries pending on {stream}"
    if timers := await client.zrange(f"{prefix}:timers", 0, 4):
        yield f"timers: {timers}"
    if (letters := await client.xlen(f"{prefix}:dead")) != dead:
        reasons = [e[1].get(b"reason") for e in await client.xrange(f"{prefix}:dead", count=5)]
        yield f"{letters} dead letters instead of {dead}: {reasons}"


async def _unreleased(client: Any, prefix: str) -> AsyncIterator[str]:
    async for key in client.scan_iter(match=f"{prefix}:lock:*", count=1000):
        yield f"a lock: {key.decode()}"
    keys = [key async for key in client.scan_iter(match=f"{prefix}:ctl:*", count=1000)]
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.hmget(key, "token", "owner")
    for key, kept in zip(keys, await pipe.execute(), strict=True):
        if any(kept):
            yield f"{key.decode()} has token and owner {kept}"


async def command_streams(client: Any, prefix: str) -> list[str]:
    """Return the names of the deployment's streams of commands."""
    pattern = f"{prefix}:commands*"
    return sorted([key.decode() async for key in client.scan_iter(match=pattern, count=1000)])


def _pairs(flat: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _texts(fields: Iterable[Any]) -> dict[str, str]:
    return {k.decode(): v.decode(errors="replace") for k, v in dict(fields).items()}
