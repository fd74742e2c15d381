"""Everything under a prefix as plain values, for comparing it whole with what should be there."""

from __future__ import annotations

import re
from typing import Any

import redis.asyncio

_TIMED = re.compile(rb'"at":\d+')


async def read_keyspace(client: redis.asyncio.Redis, prefix: str) -> dict[str, Any]:
    """Return the value of every key under *prefix*, by its name without the prefix.

    A string is bytes; a hash and a sorted set are dicts, a list and a stream lists. Names, fields
    and members are text.
    """
    found = sorted([key async for key in client.scan_iter(match=f"{prefix}:*", count=1000)])
    pipe = client.pipeline(transaction=False)
    for key in found:
        pipe.type(key)
    kinds = await pipe.execute()
    for key, kind in zip(found, kinds, strict=True):
        _READS[kind](pipe, key)
    values = await pipe.execute()
    return {
        key.decode()[len(prefix) + 1 :]: _plain(kind, value)
        for key, kind, value in zip(found, kinds, values, strict=True)
    }


_READS = {
    b"string": lambda pipe, key: pipe.get(key),
    b"hash": lambda pipe, key: pipe.hgetall(key),
    b"list": lambda pipe, key: pipe.lrange(key, 0, -1),
    b"zset": lambda pipe, key: pipe.zrange(key, 0, -1, withscores=True),
    b"set": lambda pipe, key: pipe.smembers(key),
    b"stream": lambda pipe, key: pipe.xrange(key),
}


def _plain(kind: bytes, value: Any) -> Any:
    match kind:
        case b"hash":
            return {name.decode(): one for name, one in value.items()}
        case b"zset":
            return {member.decode(): score for member, score in value}
        case b"stream":
            return [{name.decode(): one for name, one in fields.items()} for _, fields in value]
        case _:
            return value


def without_times(keyspace: dict[str, Any]) -> dict[str, Any]:
    """Return *keyspace* without the times of the server's clock, so that two can be compared."""
    return {name: _timeless(name, value) for name, value in keyspace.items()}


def _timeless(name: str, value: Any) -> Any:
    if name.startswith("runs"):
        return sorted(value) if isinstance(value, dict) else value
    if name.startswith("history:") and isinstance(value, list):
        return [_TIMED.sub(b'"at":0', item) for item in value]
    if isinstance(value, dict):
        return {field: one for field, one in value.items() if field not in _TIMES}
    if name == "events" and isinstance(value, list):
        return [{k: v for k, v in event.items() if k not in _TIMES} for event in value]
    return value


_TIMES = {"createdAt", "updatedAt", "since", "at"}
