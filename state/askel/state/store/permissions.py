"""Whether the user may run what the scripts call: found out before any of them is halfway through.

Redis checks each command inside a script against the caller's permissions, and does not roll back
what the script wrote before one was refused. So all of them are tried beforehand, each in a form
that changes nothing: on a key that is never there, or on the meta key, which is a hash and so no
place for a list, a stream or a sorted set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from askel.errors import StoreAccessError
from askel.state.keys import Keys
from askel.state.store.scripts import Script, Scripts, load_scripts
from askel.state.store.server import LAYOUT

_CALL = re.compile(r"redis\.p?call\('([A-Z]+)'(?:, '([A-Z]+)')?")
#: Not a run id, so that no key of a run is called like this.
_NOBODY = "-self-test"
#: Arguments of each command; ``META`` and ``NONE`` stand for the two keys.
_HARMLESS: Mapping[str, str] = {
    "DEL": "NONE",
    "EXISTS": "NONE",
    "GET": "NONE",
    "HDEL": "META -",
    "HEXISTS": "META -",
    "HGET": "META -",
    "HGETALL": "NONE",
    "HINCRBY": "META partitions 0",
    "HLEN": "META",
    "HMGET": "META -",
    "HSET": f"META layout {LAYOUT}",
    "HSETNX": f"META layout {LAYOUT}",
    "LINDEX": "NONE 0",
    "LLEN": "NONE",
    "LRANGE": "NONE 0 0",
    "MEMORY USAGE": "NONE",
    "PEXPIRE": "NONE 1",
    "PTTL": "NONE",
    "RENAME": "NONE NONE",
    "RPUSH": "META -",
    "SET": "NONE - XX",
    "TIME": "",
    "TYPE": "NONE",
    "UNLINK": "NONE",
    "XACK": "NONE - 0-1",
    "XADD": "NONE NOMKSTREAM * - -",
    "XAUTOCLAIM": "META - - 0 0-0",
    "XCLAIM": "META - - 0 0-1",
    "XDEL": "NONE 0-1",
    "XGROUP CREATE": "META - 0",
    "XGROUP DELCONSUMER": "META - -",
    "XINFO CONSUMERS": "META -",
    "XINFO GROUPS": "NONE",
    "XLEN": "NONE",
    "XPENDING": "META -",
    "XRANGE": "NONE - +",
    "XREAD": "STREAMS NONE 0",
    "XREADGROUP": "GROUP - - STREAMS META >",
    "XREVRANGE": "NONE + -",
    "ZADD": "NONE XX 0 -",
    "ZCARD": "NONE",
    "ZCOUNT": "NONE 0 0",
    "ZRANGE": "NONE 0 0",
    "ZRANGEBYSCORE": "NONE 0 0",
    "ZRANK": "NONE -",
    "ZREM": "NONE -",
    "ZREMRANGEBYSCORE": "NONE 0 0",
    "ZREVRANGE": "NONE 0 0",
    "ZREVRANGEBYSCORE": "NONE 0 0",
    "ZREVRANK": "NONE -",
    "ZSCAN": "NONE 0",
    "ZSCORE": "NONE -",
}


def commands_of(script: Script) -> set[str]:
    """Return the commands that *script* calls, with the subcommand where one has some."""
    found = _CALL.findall(script.body)
    return {f"{name} {sub}" if f"{name} {sub}" in _HARMLESS else name for name, sub in found}


async def denied_commands(
    scripts: Scripts, keys: Keys, names: Iterable[str], *, also: Sequence[str] = ()
) -> dict[str, str]:
    """Return what the user may not run of what these scripts call, each with Redis' own words.

    Nothing is changed by it. The meta key must be there (see ``inspect_server``).

    Args:
        scripts: Where they run.
        keys: The deployment.
        names: The scripts.
        also: Commands that are sent outside of scripts.

    Raises:
        StoreAccessError: The user may not run scripts at all, or not touch the keys.
    """
    known = load_scripts(scripts.compat) if scripts.compat else load_scripts()
    commands = set(also).union(*(commands_of(known[name]) for name in names))
    none = keys.lock(_NOBODY)
    args: list[str | int] = [len(commands)]
    for command in sorted(commands):
        words = command.split() + _HARMLESS[command].split()
        words = [{"META": keys.meta, "NONE": none}.get(word, word) for word in words]
        args += [len(words), *words]
    await _reach_keys(scripts, keys)
    places = [keys.meta, none]
    answer = await scripts.run("self_test", places, args)
    if answer[0] == b"NOMETA":
        return {}
    texts = [text.decode("utf-8", "replace") for text in answer[1]]
    return dict(zip(texts[::2], texts[1::2], strict=True))


async def _reach_keys(scripts: Scripts, keys: Keys) -> None:
    """Name a kind of key to a script: that takes the permission to read and write it.

    Raises:
        StoreAccessError: The user may not touch one of them; it is named.
    """
    places = [
        *keys.run_keys(_NOBODY),
        *keys.step_keys(_NOBODY),
        *(keys.timers, keys.events, keys.runs, keys.dead, keys.commands_default),
        *(keys.runs_by_status("running"), keys.nudge(_NOBODY)),
    ]
    nothing = [0]
    for place in places:
        try:
            await scripts.run("self_test", [keys.meta, place], nothing)
        except StoreAccessError as error:
            raise StoreAccessError(f"{error} (key {place})") from None
