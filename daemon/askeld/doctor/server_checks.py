"""Is this a Redis that keeps what it is given, and lets us do our work?"""

from __future__ import annotations

from askeld.doctor.facts import Facts
from askeld.doctor.finding import Registry, Verdict, green, red, unknown, yellow

server = Registry()

_OLDEST = (6, 2)
_MEMORY_YELLOW, _MEMORY_RED = 0.80, 0.95
_CLIENTS_YELLOW = 0.80
_SKEW_YELLOW_MS, _SKEW_RED_MS = 1_000, 30_000
_SLOW_MS = 20.0
_LAG_S = 10
_MINUTE_S = 60


@server.check("server-version")
def server_version(facts: Facts) -> Verdict:
    """Redis has every command that the scripts use."""
    version = facts.info.get("redis_version", "")
    if not version:
        return unknown("the server does not say its version", "grant +info to the user")
    name = f"Valkey {facts.info['valkey_version']}" if "valkey_version" in facts.info else ""
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        return red(f"Redis {version} is too old", "use Redis 6.2 or later, or Valkey")
    return green(name or f"Redis {version}")


@server.check("server-role", "INFO")
def server_role(facts: Facts) -> Verdict:
    """We are connected to a primary, outside of a cluster."""
    if facts.info.get("cluster_enabled") == "1" and "{" not in facts.prefix:
        return red(
            "the server is a node of a cluster and the prefix has no hash tag",
            "write the prefix in braces, as {workflows}, so that all keys share a slot",
        )
    role = facts.info.get("role", "")
    if role and role != "master":
        return red(
            f"this server is a {'replica' if role == 'slave' else role}: writes are refused",
            "point REDIS_URL at the primary, or use redis+sentinel://",
        )
    return green("a primary") if role else unknown("the server does not say its role")


@server.check("persistence")
def persistence(facts: Facts) -> Verdict:
    """What was acknowledged is on disk sooner or later."""
    if not facts.info:
        return unknown("the server does not tell", "grant +info to the user")
    if facts.info.get("aof_enabled") == "1":
        return green("append-only file on")
    save = facts.setting("save")
    if save:
        return yellow(
            f"snapshots only (save {save}): a crash loses what came after the last one",
            "set appendonly yes",
        )
    if save is None:
        return yellow("no append-only file; snapshots unknown", "set appendonly yes")
    return red("nothing is written to disk: a restart loses every run", "set appendonly yes")


@server.check("fsync", "INFO")
def fsync(facts: Facts) -> Verdict:
    """How much a power cut may take."""
    if facts.info.get("aof_enabled") != "1":
        return unknown("there is no append-only file")
    policy = facts.setting("appendfsync")
    if policy is None:
        return unknown("the user may not ask (CONFIG GET)")
    if policy == "no":
        return yellow(
            "appendfsync no: a power cut loses what the kernel had not written, some 30 s",
            "set appendfsync everysec (about 1 s) or always (nothing)",
        )
    loses = "nothing acknowledged is lost" if policy == "always" else "a power cut loses about 1 s"
    return green(f"appendfsync {policy}: {loses}")


@server.check("disk-writes", "INFO")
def disk_writes(facts: Facts) -> Verdict:
    """The last writes to disk went well; else Redis refuses all others (MISCONF)."""
    failed = [
        name
        for name in ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")
        if facts.info.get(name, "ok") != "ok"
    ]
    if failed:
        return red(
            f"{', '.join(failed)}: Redis could not write to disk",
            "free the disk Redis writes to, look into its log, then BGSAVE",
        )
    return green("the last ones succeeded")


@server.check("eviction")
def eviction(facts: Facts) -> Verdict:
    """No key goes when memory is short; locks would be the first."""
    policy = facts.info.get("maxmemory_policy")
    if policy is None:
        return unknown("the server does not tell", "grant +info to the user")
    if policy != "noeviction":
        return red(
            f"maxmemory-policy {policy}: Redis deletes runs when memory is short, without a word",
            "set maxmemory-policy noeviction",
        )
    return green("noeviction")


@server.check("evicted-keys")
def evicted_keys(facts: Facts) -> Verdict:
    """None was evicted since the server began."""
    count = facts.number("evicted_keys")
    if count is None:
        return unknown("the server does not tell")
    if count:
        return red(
            f"{count} keys were evicted since this server began",
            "set maxmemory-policy noeviction; then askel reindex, and look at runs with askel ls",
        )
    return green("none")


@server.check("memory")
def memory(facts: Facts) -> Verdict:
    """There is room: a full server refuses new work."""
    used = facts.number("used_memory")
    most = facts.number("maxmemory") or facts.number("total_system_memory")
    if not used or not most:
        return unknown("the server does not tell")
    share = used / most
    detail = f"{share:.0%} of {_roughly(most)} used"
    fix = (
        "raise maxmemory, or free some: askel dead drop --all --older-than 30d --yes; when there "
        "is room, keep fewer ended runs: askel retention set --default --ttl 7d"
    )
    if share > _MEMORY_RED:
        return red(detail, fix)
    return yellow(detail, fix) if share > _MEMORY_YELLOW else green(detail)


def _roughly(count: int) -> str:
    """Return a size as people say it."""
    units = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
    unit, size = next((one for one in units if count >= one[1]), units[-1])
    return f"{count / size:.1f} {unit}"


@server.check("fragmentation")
def fragmentation(facts: Facts) -> Verdict:
    """The process is not swapped out."""
    used, resident = facts.number("used_memory"), facts.number("used_memory_rss")
    if not used or not resident:
        return unknown("the server does not tell")
    if resident < used * 0.7:
        return red(
            f"only {resident / used:.0%} of the memory it uses is in RAM: Redis is swapping",
            "give the machine more memory; switch swap off for Redis",
        )
    return green("not swapped")


@server.check("clients")
def clients(facts: Facts) -> Verdict:
    """Connections are left."""
    connected, most = facts.number("connected_clients"), facts.number("maxclients")
    if connected is None or not most:
        return unknown("the server does not tell")
    detail = f"{connected} of {most} connections"
    if connected > most * _CLIENTS_YELLOW:
        return yellow(detail, "raise maxclients, or run fewer processes")
    return green(detail)


@server.check("idle-timeout")
def idle_timeout(facts: Facts) -> Verdict:
    """The server does not cut connections that wait."""
    timeout = facts.setting("timeout")
    if timeout is None:
        return unknown("the user may not ask (CONFIG GET)")
    if timeout != "0" and int(timeout) < _MINUTE_S:
        return yellow(f"connections idle for {timeout} s are cut", "set timeout 0")
    return green("idle connections stay")


@server.check("replicas")
def replicas(facts: Facts) -> Verdict:
    """Replicas follow; what that is worth is said."""
    count = facts.number("connected_slaves")
    if count is None:
        return unknown("the server does not tell")
    if not count:
        return green("none: this one server has everything")
    lags = [
        int(part.removeprefix("lag="))
        for number in range(count)
        for part in facts.info.get(f"slave{number}", "").split(",")
        if part.startswith("lag=")
    ]
    if lags and max(lags) > _LAG_S:
        return red(
            f"a replica is {max(lags)} s behind", "look at its link and disk: INFO replication"
        )
    if facts.setting("min-replicas-to-write") == "0":
        return yellow(
            f"{count} follow, but an isolated primary goes on acknowledging writes it will lose",
            "set min-replicas-to-write 1 and min-replicas-max-lag 2",
        )
    return green(f"{count} follow")


@server.check("clock", "TIME")
def clock(facts: Facts) -> Verdict:
    """The server's clock, by which timers and leases go, agrees with this machine's."""
    skew = abs(facts.skew_ms)
    detail = f"Redis is {skew / 1_000:.1f} s {'ahead' if facts.skew_ms > 0 else 'behind'}"
    fix = "synchronise both clocks (chrony, ntpd)"
    if skew > _SKEW_RED_MS:
        return red(detail, fix)
    if skew > _SKEW_YELLOW_MS:
        return yellow(detail, fix)
    return green("agrees with this machine's")


@server.check("round-trip", "TIME")
def round_trip(facts: Facts) -> Verdict:
    """Redis is near: each step costs a round trip."""
    detail = f"{facts.round_trip_ms:.1f} ms"
    if facts.round_trip_ms > _SLOW_MS:
        return yellow(detail, "run workers near Redis; look for slow commands: SLOWLOG GET")
    return green(detail)


@server.check("scripts")
def scripts(facts: Facts) -> Verdict:
    """Every script of this version loads there."""
    if facts.scripts_failed and not facts.is_worker:
        return _no_worker(facts)
    if facts.scripts_failed:
        name, why = next(iter(facts.scripts_failed.items()))
        return red(
            f"{len(facts.scripts_failed)} of {facts.scripts} scripts do not load: {name}: {why}",
            "grant +script|load and +evalsha; on a server older than 6.2, upgrade",
        )
    return green(f"{facts.scripts} load")


@server.check("permissions")
def permissions(facts: Facts) -> Verdict:
    """The user may run what a worker needs, where it is one that workers log in as."""
    if not facts.is_worker:
        return _no_worker(facts)
    if facts.denied:
        return red(
            f"user {facts.user!r} may not run {', '.join(sorted(facts.denied))}",
            "grant the user what askel acl --role worker prints",
        )
    return green(f"user {facts.user!r}")


def _no_worker(facts: Facts) -> Verdict:
    return unknown(
        f"skipped: user {facts.user!r} may not take commands (XREADGROUP), so is no worker's",
        "run askel doctor as the user of a worker; what it may is printed by "
        "askel acl --role worker",
    )


@server.check("login")
def login(facts: Facts) -> Verdict:
    """Nobody comes in without a password."""
    if facts.has_open_default is None:
        return unknown("the user may not ask (ACL GETUSER)")
    if facts.has_open_default and not facts.is_local:
        return red(
            "the default user has no password and every right, on a server others can reach",
            "give askel a user of its own (askel acl) and set: user default off",
        )
    if facts.has_open_default:
        return yellow("the default user has no password", "give askel a user of its own: askel acl")
    return green("the default user is closed")


@server.check("tls")
def tls(facts: Facts) -> Verdict:
    """What crosses a network is encrypted."""
    if facts.is_tls and not facts.is_verified:
        return red(
            "encrypted, but anybody may pretend to be this Redis: its certificate is not verified",
            "take ssl_cert_reqs=none and insecure=yes away, and give ssl_ca_certs",
        )
    if facts.is_tls:
        return green("encrypted and verified")
    if facts.is_local:
        return green("not needed: the server is on this machine")
    return yellow(
        "payloads and the password cross the network as plain text", "use rediss:// (TLS)"
    )
