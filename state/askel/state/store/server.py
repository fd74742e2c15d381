"""What askel needs of the Redis server itself, checked before it is trusted."""

from __future__ import annotations

from typing import Any

import msgspec

from askel.errors import StoreReplyError, StoreUnsafeError
from askel.state.keys import Keys
from askel.state.store.connection import Connection

#: Oldest Redis that has every command the scripts use.
OLDEST = (6, 2)
#: Number of the layout of keys and fields that this version reads and writes.
LAYOUT = 1
#: The consumer group of the daemons, on every stream of commands.
GROUP = "askeld"
#: The consumer that is none, for which scripts keep what they find pending for nobody.
NOBODY = "-nobody"


class ServerFacts(msgspec.Struct, frozen=True):
    """What the server says of itself; ``store_id`` tells a wiped Redis from a new one."""

    version: str
    eviction_policy: str
    append_only: bool
    store_id: str


async def inspect_server(
    connection: Connection, keys: Keys, *, store_id: str, allow_unsafe: bool = False
) -> ServerFacts:
    """Check the server and the deployment's meta key; name the store if nobody has yet.

    Args:
        connection: The way to the server.
        keys: The deployment.
        store_id: Used when the store has no id.
        allow_unsafe: Accept a server that evicts keys or is too old.

    Raises:
        StoreUnsafeError: It would lose data silently, or was laid out by another version.
        StoreUnavailableError: It cannot be reached.
    """
    info = await _info(connection)
    version = info.get("redis_version", "")
    policy = info.get("maxmemory_policy", "noeviction")
    if not allow_unsafe:
        if version and tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
            msg = f"Redis {version} is too old: askel needs 6.2 or later"
            raise StoreUnsafeError(msg)
        if policy != "noeviction":
            raise StoreUnsafeError(_evicts(policy))
    for field, value in (("layout", LAYOUT), ("partitions", 1), ("store", store_id)):
        await connection.send("HSETNX", keys.meta, field, value)
    layout, partitions, store = await connection.send(
        "HMGET", keys.meta, "layout", "partitions", "store"
    )
    found = [field.decode("utf-8", "replace")[:20] for field in (layout, partitions)]
    if found != [str(LAYOUT), "1"]:
        msg = (
            f"prefix {keys.prefix!r} holds layout {found[0]} with {found[1]} partitions; "
            f"this version of askel knows layout {LAYOUT} with 1"
        )
        raise StoreUnsafeError(msg)
    return ServerFacts(version, policy, info.get("aof_enabled") == "1", store.decode())


async def probe_store(connection: Connection, keys: Keys) -> str:
    """Return the id of the store (empty: it has none any more), if it takes writes now.

    The write changes nothing that is there; it is refused whenever, and just as, others are.

    Raises:
        StoreError: It cannot be reached, or would refuse what begins something.
    """
    store = await connection.send("HGET", keys.meta, "store")
    await connection.send("HSETNX", keys.meta, "layout", LAYOUT)
    return "" if store is None else str(store.decode("utf-8", "replace"))


async def why_unsafe(connection: Connection) -> str:
    """Return why the server would lose data silently as it is set now; empty if it would not."""
    policy = (await _info(connection, "memory")).get("maxmemory_policy", "noeviction")
    return "" if policy == "noeviction" else _evicts(policy)


async def read_counts_of(connection: Connection) -> str:
    """Return the start of the server since which it may miscount what groups read; empty if never.

    One that loads a rewritten append-only file loads what was added since the rewriting, and not
    that it was read: what `lost_unread` returns is then too much, always by as much.
    """
    facts = await _info(connection, "server", "persistence")
    is_right = facts.get("aof_enabled") == "0" or facts.get("rdb_last_load_keys_loaded") == "0"
    return "" if is_right else facts.get("run_id", "unknown")


async def lost_unread(connection: Connection, stream: str) -> int:
    """Return how many entries of *stream* at least were deleted before the group had read them.

    0 where nobody can tell: servers before Redis 7 do not count, and a user may not ask.
    """
    try:
        # In this order: what is added or read in between makes it less, never more.
        facts = _pairs(await connection.send("XINFO", "STREAM", stream))
        groups = [_pairs(flat) for flat in await connection.send("XINFO", "GROUPS", stream)]
    except StoreReplyError:
        return 0
    read = next(
        (group.get(b"entries-read") for group in groups if group[b"name"] == GROUP.encode()), None
    )
    added = facts.get(b"entries-added")
    if read is None or added is None:
        return 0
    return max(int(added) - int(read) - int(facts[b"length"]), 0)


def _pairs(flat: list[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _evicts(policy: str) -> str:
    return (
        f"this Redis evicts keys when memory is short (maxmemory-policy {policy}) and "
        "would lose runs without a word: set maxmemory-policy noeviction"
    )


async def _info(connection: Connection, *section: str) -> dict[str, str]:
    """Return the fields of INFO; nothing where the user may not ask, or a fake does not know."""
    try:
        text = (await connection.send("INFO", *section)).decode()
    except StoreReplyError as error:
        if error.code in {"NOPERM", "ERR"} or "unknown command" in str(error).lower():
            return {}
        raise
    lines = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name: value.strip() for name, _, value in lines}
