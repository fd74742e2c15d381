"""Gathering the facts: a few dozen reads, none of them long; nothing is written but scripts loaded.

Whatever the user may not ask, or an old server does not know, is left out; the check then says so.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from askel import App, RedisWorkflowService, RunStatus, StoreAccessError, StoreReplyError
from askel.state import Connection, Keys, Scripts, denied_commands, load_scripts, read_secret
from askeld.doctor.asking import Asking, pairs
from askeld.doctor.facts import LAYOUT, Facts
from askeld.doctor.queues import queues_of
from askeld.doctor.runs import gather_runs
from askeld.doctor.streams import gather_stream
from askeld.store_check import NEEDED_COMMANDS, NEEDED_SCRIPTS

_ROUND_TRIPS = 9
_SETTINGS = ("save", "appendfsync", "timeout", "min-replicas-to-write")
_LOCAL = ("127.0.0.1", "localhost", "::1", "")
_NEWEST_DEAD = 100


async def gather(
    service: RedisWorkflowService,
    url: str,
    *,
    queues: Sequence[str] = (),
    app: App | None = None,
    compat: str | None = None,
) -> Facts:
    """Return what can be found out about the deployment that *service* is for.

    Args:
        service: Its connection is used, its prefix examined.
        url: How Redis is reached; only scheme and host are looked at.
        queues: Queues to look at beside the default stream and those that running runs use:
            nothing lists them.
        app: An app whose workflows are compared with the runs under way.
        compat: ``pikku`` where Node services share the prefix.

    Raises:
        StoreUnavailableError: Redis cannot be reached.
        StoreReplyError: The login is refused, there is no such database, or nothing is answered.
    """
    parts, keys = urlsplit(_address(url)), service.keys
    facts = Facts(where=parts.hostname or parts.path, prefix=keys.prefix, compat=compat)
    facts.user = unquote(parts.username or "default")
    ask = Asking(service.connection, facts.refused)
    facts.is_tls = parts.scheme.startswith("rediss")
    facts.is_verified = parse_qs(parts.query.lower()).get("ssl_cert_reqs", ["required"]) != ["none"]
    facts.is_local = parts.scheme == "unix" or (parts.hostname or "") in _LOCAL
    facts.app_workflows = frozenset(app.workflows) if app else None
    await _reach(service.connection, facts)
    await _server(ask, facts)
    await _shared_keys(ask, keys, facts)
    await _scripts(service, facts)
    facts.policies = dict(await _policies(service))
    await gather_runs(ask, keys, facts)
    under_way = [run.run_id for run in facts.runs if run.status in {"running", "suspended"}]
    found = dict.fromkeys(("", *queues, *await queues_of(ask, keys, under_way)))
    facts.streams = [await gather_stream(ask, keys, queue) for queue in found]
    return facts


def _address(url: str) -> str:
    """Return the address itself where *url* names the file that holds it."""
    if not url.startswith("file://"):
        return url
    return read_secret(unquote(urlsplit(url).path), "REDIS_URL_FILE")


async def _reach(connection: Connection, facts: Facts) -> None:
    """Log in, and measure round trip and clock; here a server that is away is found out."""
    trips = []
    for _ in range(_ROUND_TRIPS):
        began, at = time.monotonic(), time.time()
        try:
            seconds, micros = await connection.send("TIME")
        except StoreAccessError as error:
            if error.refuses_login:
                raise
            facts.refused.add("TIME")
            return
        trips.append((time.monotonic() - began) * 1_000)
        middle_ms = (at + time.time()) * 500
        facts.now_ms = int(seconds) * 1_000 + int(micros) // 1_000
        facts.skew_ms = round(facts.now_ms - middle_ms)
    facts.round_trip_ms = statistics.median(trips)


async def _server(ask: Asking, facts: Facts) -> None:
    info = await ask("INFO")
    if info is not None:
        lines = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
        facts.info = {name: value.strip() for name, mark, value in lines if mark}
    config: dict[str, str] = {}
    for name in _SETTINGS:
        reply = await ask("CONFIG", "GET", name)
        if reply:
            config[name] = reply[1].decode("utf-8", "replace")
    facts.config = config or None
    user = await ask("ACL", "WHOAMI")
    if user:
        facts.user = user.decode("utf-8", "replace")
    default = await ask("ACL", "GETUSER", "default")
    if default:
        flags = pairs(default).get(b"flags", [])
        facts.has_open_default = b"on" in flags and b"nopass" in flags


async def _scripts(service: RedisWorkflowService, facts: Facts) -> None:
    facts.is_worker = await _may_take_commands(service)
    scripts = load_scripts(facts.compat) if facts.compat else load_scripts()
    facts.scripts = len(scripts)
    for name, script in scripts.items():
        try:
            await service.connection.send("SCRIPT", "LOAD", script.body)
        except StoreReplyError as error:
            facts.scripts_failed[name] = str(error)[:200]
    if facts.meta.get("layout") != LAYOUT:
        return  # the permissions are tried on the meta key of a layout that is known
    try:
        facts.denied = await denied_commands(
            Scripts(service.connection, facts.compat),
            service.keys,
            NEEDED_SCRIPTS,
            also=NEEDED_COMMANDS,
        )
    except StoreReplyError as error:
        facts.denied = {"EVALSHA": str(error)[:200]}


async def _may_take_commands(service: RedisWorkflowService) -> bool:
    """Tell whether the user is a worker's: no other role of ``askel acl`` reads from groups.

    The group that is asked for is never there, so nothing is read.
    """
    stream = service.keys.commands_default
    try:
        await service.connection.send("XREADGROUP", "GROUP", "-", "-", "STREAMS", stream, ">")
    except StoreAccessError:
        return False
    except StoreReplyError:
        return True
    return True


async def _shared_keys(ask: Asking, keys: Keys, facts: Facts) -> None:
    expected = {
        keys.meta: "hash",
        keys.timers: "zset",
        keys.dead: "stream",
        keys.events: "stream",
        keys.runs: "zset",
        keys.workflows: "zset",
        keys.retention: "hash",
        keys.schedules: "hash",
    }
    for key, kind in expected.items():
        reply = await ask("TYPE", key)
        found = reply.decode() if isinstance(reply, bytes) else reply
        if found not in {None, "none", kind}:
            facts.wrong_types[key] = found
    meta = await ask("HGETALL", keys.meta) or []
    facts.meta = {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in pairs(meta).items()
    }
    facts.schedules = await ask("HLEN", keys.schedules) or 0
    facts.timers = await ask.count(keys.timers)
    facts.overdue = await ask("ZCOUNT", keys.timers, "-inf", facts.now_ms) or 0
    first = await ask("ZRANGE", keys.timers, 0, 0, "WITHSCORES")
    if facts.overdue and first:
        facts.overdue_ms = facts.now_ms - int(float(first[1]))
    facts.dead = await ask("XLEN", keys.dead) or 0
    letters = await ask("XREVRANGE", keys.dead, "+", "-", "COUNT", _NEWEST_DEAD) or []
    reasons = (pairs(fields).get(b"reason", b"?") for _, fields in letters)
    facts.dead_reasons = dict(Counter(reason.decode("utf-8", "replace") for reason in reasons))
    for status in RunStatus:
        facts.statuses[status.value] = await ask.count(keys.runs_by_status(status.value))


async def _policies(service: RedisWorkflowService) -> dict[str | None, Any]:
    try:
        return await service.get_retention()
    except StoreReplyError:
        return {}
