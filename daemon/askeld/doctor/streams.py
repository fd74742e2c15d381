"""What is found out about one stream of commands."""

from __future__ import annotations

from typing import Any

from askel.state import GROUP, Keys
from askeld.doctor.asking import Asking, pairs
from askeld.doctor.facts import ConsumerFacts, StreamFacts

_PENDING = 500


async def gather_stream(ask: Asking, keys: Keys, queue: str) -> StreamFacts:
    """Return what is known of the commands of *queue*, the default stream being ``""``."""
    key = keys.commands(queue)
    kind = await ask("TYPE", key)
    kind = kind.decode() if isinstance(kind, bytes) else kind or "stream"
    if kind != "stream":
        return StreamFacts(queue, kind, has_group=False)
    length = await ask("XLEN", key) or 0
    groups = [pairs(flat) for flat in await ask("XINFO", "GROUPS", key) or []]
    group = next((one for one in groups if one[b"name"] == GROUP.encode()), None)
    if group is None:
        return StreamFacts(queue, has_group=False, length=length)
    consumers = [pairs(flat) for flat in await ask("XINFO", "CONSUMERS", key, GROUP) or []]
    pending = await ask("XPENDING", key, GROUP, "-", "+", _PENDING) or []
    last_read = group[b"last-delivered-id"].decode()
    now_ms = await _now_ms(ask)
    waiting = await ask("XRANGE", key, f"({last_read}", "+", "COUNT", 1) or []
    return StreamFacts(
        queue=queue,
        length=length,
        waiting=await _waiting(ask, key, last_read, group),
        waiting_ms=max(now_ms - int(waiting[0][0].partition(b"-")[0]), 0) if waiting else 0,
        pending=group[b"pending"],
        silent_ms=max((one[2] for one in pending), default=0),
        deliveries=max((one[3] for one in pending), default=0),
        unknown_name_ms=await _unknown_name_ms(ask, key, now_ms),
        consumers=tuple(
            ConsumerFacts(one[b"name"].decode("utf-8", "replace"), one[b"pending"], one[b"idle"])
            for one in consumers
        ),
        swept_ms=await _swept_ms(ask, keys, queue, now_ms),
    )


async def _swept_ms(ask: Asking, keys: Keys, queue: str, now_ms: int) -> int | None:
    """Return how long ago a worker swept the stream; None if none ever did.

    Every worker does, every second or so. Before Redis 7.2 a read that waits is no sign of life.
    """
    at = await ask("HGET", keys.sweep(queue), "at") or b""
    return max(now_ms - int(at), 0) if at.isdigit() else None


async def _now_ms(ask: Asking) -> int:
    seconds, micros = await ask("TIME") or (0, 0)
    return int(seconds) * 1_000 + int(micros) // 1_000


async def _waiting(ask: Asking, key: str, last_read: str, group: dict[bytes, Any]) -> int:
    """Return how many entries nobody has read: the server's own count, or a bounded one."""
    if isinstance(group.get(b"lag"), int):
        return int(group[b"lag"])
    entries = await ask("XRANGE", key, f"({last_read}", "+", "COUNT", _PENDING) or []
    return len(entries)


async def _unknown_name_ms(ask: Asking, key: str, now_ms: int) -> int:
    """Return for how long the oldest of the next commands has waited for one who knows its name."""
    longest = 0
    for _, fields in await ask("XRANGE", key, "-", "+", "COUNT", _PENDING) or []:
        since = pairs(fields).get(b"unknown_since", b"")
        if since.isdigit():
            longest = max(longest, now_ms - int(since))
    return longest
