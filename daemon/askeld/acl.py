"""What each kind of Redis user may do: the one table that ACL rules are made from.

Redis checks every command inside a script against the user who called it, and does not roll back
what a script wrote before it was refused. So a role has all that its scripts call. A test runs
everything that each role is for, once as it stands, and once without each of its commands.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping

import msgspec

from askel import InvalidOptionError
from askel.state import Keys, check_compat

#: Stands where nobody gave a password: no password has this hash, so nobody can log in.
PLACEHOLDER = "0" * 64
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of user.

    Attributes:
        purpose: What it is for.
        keys: Patterns of its keys, without the prefix and its colon.
        commands: Each command that it may send, or that a script may call for it, and why.
        compat: Those that it needs beside them where the prefix is shared with Node services.
        confirms: Whether it awaits confirmations of runs that have a durability.
    """

    purpose: str
    keys: tuple[str, ...]
    commands: Mapping[str, str]
    compat: Mapping[str, str] = {}
    confirms: bool = False


_CONNECT = {"ping": "the end of a login"}
_SCRIPTS = {
    "evalsha": "all scripts",
    "script|load": "a script that the server does not know yet",
}
_START = {
    "info": "version and eviction policy are checked at the start",
    "hsetnx": "the name of the store, if it has none yet",
}

WORKER = Role(
    purpose="runs `askel worker`: drives runs, executes steps, applies retention",
    keys=("*",),
    commands={
        **_CONNECT,
        **_SCRIPTS,
        **_START,
        "client|id": "to wake its own blocking read when it stops",
        "client|setname": "its connections have names",
        "client|unblock": "the same",
        "del": "end of a lock, of its stream of nudges, of former step locks",
        "exists": "whether a key of a former generation is there; delete_run",
        "get": "who holds the run lock",
        "hdel": "start, turn, settle: what a run no longer has",
        "hexists": "measure_runs",
        "hget": "all scripts of runs",
        "hgetall": "retention policies; a generation that gives way",
        "hincrby": "the fence of a run; measure_runs",
        "hlen": "measure_runs; a generation that gives way",
        "hmget": "all scripts of runs",
        "hset": "all scripts of runs",
        "lindex": "whether a start was sent before",
        "llen": "turn, renew: how long the history is",
        "lrange": "activate, turn: the history; names of steps",
        "memory|usage": "measure_runs, where a policy has max_bytes",
        "pexpire": "nudges; the memory of deleted runs",
        "pttl": "how long a lock stands in the way",
        "rename": "a generation that gives way",
        "rpush": "history; names of steps",
        "set": "the run lock, from loading to the first turn",
        "time": "clock of all scripts",
        "type": "measure_runs",
        "unlink": "retention",
        "xack": "the end of a command",
        "xadd": "tokens, events, dead letters, nudges, commands for queues",
        "xautoclaim": "entries of workers that died",
        "xclaim": "renew, deliver",
        "xdel": "the end of a command",
        "xgroup|create": "the group, where a stream has none",
        "xgroup|delconsumer": "forget_consumer",
        "xinfo|consumers": "consumers that have long been gone",
        "xinfo|groups": "whether commands were trimmed before anybody read them",
        "xinfo|stream": "the same",
        "xlen": "create_run, delete_run: whether the events are a stream",
        "xpending": "whether an entry is still this worker's",
        "xrange": "deliver: the fields of an entry that was taken over",
        "xread": "nudges",
        "xreadgroup": "commands",
        "zadd": "indexes, timers",
        "zcard": "expired, measure_runs",
        "zcount": "expired, where a policy has a ttl",
        "zrange": "expired, measure_runs",
        "zrangebyscore": "due timers",
        "zrank": "measure_runs",
        "zrem": "fire; indexes",
        "zremrangebyscore": "the memory of deleted runs",
        "zscan": "timers of runs that are gone",
        "zscore": "whether a run was deleted",
    },
    compat={
        "scan": "a generation that gives way: steps that Node has made are in no list",
        "zrevrangebyscore": "the newest attempt that Node can see",
    },
    confirms=True,
)

PRODUCER = Role(
    purpose="puts commands on the streams, and sees nothing",
    keys=("commands", "commands:*"),
    commands={**_CONNECT, "xadd": "commands"},
    confirms=True,
)

VIEWER = Role(
    purpose="looks at runs and awaits their results, and changes nothing",
    keys=("*",),
    commands={
        **_CONNECT,
        **_SCRIPTS,
        "exists": "read_facts: whether there is a stream",
        "get": "read_facts: who holds the run lock",
        "hget": "read_run",
        "hgetall": "runs, steps, variables, retention policies, definitions",
        "hmget": "read_steps, read_facts",
        "llen": "read_run, read_steps",
        "lrange": "read_run, read_steps; history",
        "pttl": "read_facts: how long it is held",
        "time": "read_facts: clock of the server",
        "xinfo|consumers": "read_facts: which workers live",
        "xinfo|groups": "read_facts: what was delivered",
        "xlen": "how many dead letters there are",
        "xpending": "read_facts: who has the run's token",
        "xrange": "one dead letter",
        "xread": "a result that is awaited",
        "xrevrange": "list_dead; a result that is awaited: where to begin",
        "zcount": "list_runs",
        "zmscore": "why: when timers are due",
        "zrange": "names of workflows",
        "zrevrange": "list_runs",
        "zrevrank": "list_runs",
    },
    compat={"scan": "steps that Node has made: their names are in no list"},
)

JANITOR = Role(
    purpose="sets and applies retention, deletes runs, rebuilds indexes",
    keys=("*",),
    commands={
        **_CONNECT,
        **_SCRIPTS,
        **_START,
        "del": "index_runs: what stands in the place of an index",
        "exists": "delete_run, reindex",
        "get": "delete_run: who holds the run lock",
        "hdel": "retention policies, measure_runs",
        "hexists": "measure_runs",
        "hget": "all of its scripts",
        "hgetall": "retention policies",
        "hincrby": "measure_runs",
        "hlen": "measure_runs",
        "hmget": "delete_run",
        "hset": "retention policies, measure_runs",
        "llen": "delete_run",
        "lpos": "whether a run names a step",
        "lrange": "delete_run: names of steps",
        "memory|usage": "measure_runs",
        "pexpire": "the memory of deleted runs",
        "pttl": "how long a lock stands in the way",
        "rpush": "index_steps",
        "scan": "reindex; it sees the names of all keys of this Redis",
        "time": "clock of all scripts",
        "type": "measure_runs",
        "unlink": "delete_run",
        "xack": "delete_run: the token of the run",
        "xadd": "delete_run tells those who wait",
        "xdel": "delete_run: the token of the run",
        "xlen": "delete_run: whether the events are a stream",
        "xrange": "redrive: the letter as it is",
        "xrevrange": "list_dead",
        "zadd": "index_runs; the memory of deleted runs",
        "zcard": "expired",
        "zcount": "expired, where a policy has a ttl",
        "zrange": "expired",
        "zrank": "measure_runs",
        "zrem": "delete_run, prune_index",
        "zremrangebyscore": "the memory of deleted runs",
        "zscan": "reindex",
        "zscore": "reindex; the memory of deleted runs",
    },
)

ROLES: Mapping[str, Role] = {
    "worker": WORKER,
    "producer": PRODUCER,
    "viewer": VIEWER,
    "janitor": JANITOR,
}
#: For connections to a database other than 0.
SELECT = {"select": "the database that the URL names"}
#: For runs of a higher durability: what workers and producers ask the server for. Not part of the
#: roles: an older server refuses a whole rule for one command that it does not know.
DURABILITY: Mapping[str, Mapping[str, str]] = {
    "replicated": {"wait": "whether replicas have it"},
    "fsync": {"waitaof": "whether it is on disk, from Redis 7.2 on and on Valkey"},
    "always": {"config|get": "fsync on an older server: whether appendfsync is always"},
}


class Extras(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment needs beyond the roles.

    Attributes:
        compat: The system that the prefix is shared with.
        select: Connections name a database.
        durability: How runs are confirmed, by the keys of ``DURABILITY``.
    """

    compat: str | None = None
    select: bool = False
    durability: tuple[str, ...] = ()


NONE = Extras()


def commands_of(role: str, extras: Extras = NONE) -> dict[str, str]:
    """Return the commands of *role* with their reasons, sorted."""
    found = {**ROLES[role].commands, **(SELECT if extras.select else {})}
    if check_compat(extras.compat):
        found |= ROLES[role].compat
    if ROLES[role].confirms:
        for level in extras.durability:
            found |= DURABILITY[level]
    return dict(sorted(found.items()))


def rule(role: str, prefix: str, extras: Extras = NONE) -> Iterator[str]:
    """Yield the words of an ACL rule for *role* under *prefix*: keys, then commands.

    Servers from Redis 6.2 on understand them alike. Pub/sub channels are denied, too.
    """
    stem = Keys(prefix).prefix  # has nothing that means something in a pattern
    yield "resetchannels"
    yield from (f"~{stem}:{keys}" for keys in ROLES[role].keys)
    yield "-@all"
    yield from (f"+{name}" for name in commands_of(role, extras))


def user_line(
    role: str,
    prefix: str,
    *,
    user: str = "",
    digest: str = PLACEHOLDER,
    extras: Extras = NONE,
) -> str:
    """Return the line of an ACL file for a user of *role*.

    Args:
        role: One of ``ROLES``.
        prefix: The deployment.
        user: Its name; ``askel-`` and the role by default.
        digest: Of its password, see ``password_digest``.
        extras: What it needs beyond its role.

    Raises:
        InvalidNameError, InvalidOptionError: A name is not allowed.
    """
    name = user or f"askel-{role}"
    if _USER.fullmatch(name) is None:
        msg = f"user {name!r:.80} is not allowed: use 1 to 64 letters, digits, '.', '_' or '-'"
        raise InvalidOptionError(msg)
    words = rule(role, prefix, extras)
    return " ".join(["user", name, "on", f"#{digest}", *words])


def acl_file(prefix: str, extras: Extras = NONE) -> str:
    """Return a whole ACL file: nobody without a name, an administrator, one user of each role."""
    lines = [
        "user default off",
        f"user askel-admin on #{PLACEHOLDER} ~* &* +@all",
        *(user_line(role, prefix, extras=extras) for role in ROLES),
    ]
    return "".join(f"{line}\n" for line in lines)


def password_digest(password: str) -> str:
    """Return what an ACL rule says of *password*, after a ``#``: its SHA-256."""
    return hashlib.sha256(password.encode()).hexdigest()
