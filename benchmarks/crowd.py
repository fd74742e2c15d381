"""A crowd: many finished runs in one Redis, each the exact copy of a real one under a new id."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from askel.state import Connection

#: Copies KEYS, of which the first is the run hash, and the run's places in sorted sets.
#: ARGV: the id, how many of KEYS are its own (the others are indexes), then the new ids.
#: A copy is one millisecond older than the one before it.
_CLONE = """
local old, own = ARGV[1], tonumber(ARGV[2])
local function parts(text)
  local found, from = {}, 1
  while true do
    local first, last = string.find(text, old, from, true)
    found[#found + 1] = string.sub(text, from, (first or 0) - 1)
    if not first then return found end
    from = last + 1
  end
end
local function earlier(ms, age) return string.format('%.0f', ms - age) end
local READ = {
  hash = function(key) return redis.call('HGETALL', key) end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
}
local copies = {}
for i = 1, own do
  local kind = redis.call('TYPE', KEYS[i]).ok
  local items = READ[kind](KEYS[i])
  for k, item in ipairs(items) do items[k] = parts(item) end
  copies[i] = { kind = kind, name = parts(KEYS[i]), items = items }
end
local created = redis.call('HGET', KEYS[1], 'createdAt')
local scores = {}
for i = own + 1, #KEYS do scores[i] = redis.call('ZSCORE', KEYS[i], old) end
local first = redis.call('INCRBY', 'crowd', #ARGV - 2) - (#ARGV - 2)
for n = 3, #ARGV do
  local id, age = ARGV[n], first + n - 2
  for _, copy in ipairs(copies) do
    local key, items = table.concat(copy.name, id), {}
    for k, item in ipairs(copy.items) do items[k] = table.concat(item, id) end
    if copy.kind == 'hash' then redis.call('HSET', key, unpack(items))
    elseif copy.kind == 'list' then for k = 1, #items do redis.call('RPUSH', key, items[k]) end
    else for k = 1, #items, 2 do redis.call('ZADD', key, items[k + 1], items[k]) end end
  end
  redis.call('HSET', table.concat(copies[1].name, id), 'createdAt', earlier(created, age))
  for i = own + 1, #KEYS do redis.call('ZADD', KEYS[i], earlier(scores[i], age), id) end
end
return #ARGV - 2
"""
_BATCH = 200


class Template:
    """A real run that is copied: its keys, and the indexes that it stands in."""

    def __init__(
        self, control: Connection, run_id: str, own: list[str], indexes: list[str]
    ) -> None:
        self._control = control
        self._run_id = run_id
        self._own = own
        self._indexes = indexes

    async def copy(self, run_ids: Sequence[str]) -> None:
        """Make a run like this one of each id."""
        for first in range(0, len(run_ids), _BATCH):
            await self._control.send(
                "EVAL",
                _CLONE,
                len(self._own) + len(self._indexes),
                *self._own,
                *self._indexes,
                self._run_id,
                len(self._own),
                *run_ids[first : first + _BATCH],
            )


async def template(control: Connection, prefix: str, run_id: str) -> Template:
    """Find all that belongs to a run, on a server that holds little else so far."""
    run = f"{prefix}:run:{run_id}"
    own, indexes = [run], []
    for key in await _keys(control, prefix):
        if key == run:
            continue
        if run_id in key:
            own.append(key)
        elif await _is_member(control, key, run_id):
            indexes.append(key)
    return Template(control, run_id, own, indexes)


async def fill(templates: Sequence[Template], run_ids: Iterable[str]) -> None:
    """Make a run of each id, in turn like each of *templates*."""
    ids = list(run_ids)
    shares = [ids[number :: len(templates)] for number in range(len(templates))]
    await asyncio.gather(*(one.copy(share) for one, share in zip(templates, shares, strict=True)))


async def _is_member(control: Connection, key: str, run_id: str) -> bool:
    if await control.send("TYPE", key) != b"zset":
        return False
    return await control.send("ZSCORE", key, run_id) is not None


async def _keys(control: Connection, prefix: str) -> list[str]:
    found: list[str] = []
    cursor = b"0"
    while True:
        cursor, keys = await control.send("SCAN", cursor, "MATCH", f"{prefix}:*", "COUNT", 1_000)
        found += [key.decode() for key in keys]
        if cursor == b"0":
            return sorted(set(found))
