"""Each check sees the thing it is for broken: on a real server, where the thing can be broken."""

import shutil
import time

import pytest
import redis.asyncio
from tests.helpers.waiting import wait_until

from askel import App, RedisWorkflowService
from askel.state import GROUP, NOBODY
from askeld.doctor import CHECKS, Level, examine, gather
from askeld.embedded import EmbeddedServer

RED, YELLOW, UNKNOWN = Level.RED, Level.YELLOW, Level.UNKNOWN
BROKEN = []
#: What stands in yellow although nothing is broken: the server of a test has no password.
ALWAYS = {"login"}
#: Checks whose thing no test can break on a real server; see test_checks.py.
OF_FACTS_ALONE = {
    "server-version", "fragmentation", "round-trip", "tls", "dead-consumers", "dead-letters-size",
    "retention",
}  # fmt: skip


def breaks(check, level):
    """Register how the thing that *check* looks at is broken."""

    def register(function):
        BROKEN.append(pytest.param(check, level, function, id=f"{check} {function.__name__}"))
        return function

    return register


@pytest.mark.parametrize(("check", "level", "break_it"), BROKEN)
async def test_check_names_what_was_broken(patient, monkeypatch, check, level, break_it):
    """Before, it was in order; the finding names it, and says what to do."""
    before = await patient.examine()
    await break_it(patient, monkeypatch)
    finding = (await patient.examine())[check]
    assert finding.level is level, finding
    assert finding.detail
    assert finding.fix
    assert check in ALWAYS or before[check].level is Level.GREEN, before[check]


async def test_nothing_is_wrong_with_what_is_well(patient):
    findings = (await patient.examine()).values()
    wrong = {one.check: one.detail for one in findings if one.level is not Level.GREEN}
    assert set(wrong) == ALWAYS


def test_every_check_is_seen_to_fail():
    tested = {param.values[0] for param in BROKEN} | {"disk-writes", "replicas"}
    assert tested | OF_FACTS_ALONE == set(CHECKS)
    assert not tested & OF_FACTS_ALONE


# The server.


@breaks("persistence", RED)
async def nothing_is_saved(p, _):
    await p.redis.config_set("appendonly", "no")
    await p.redis.config_set("save", "")


@breaks("persistence", YELLOW)
async def only_snapshots(p, _):
    await p.redis.config_set("appendonly", "no")
    await p.redis.config_set("save", "3600 1")


@breaks("fsync", YELLOW)
async def the_kernel_decides(p, _):
    await p.redis.config_set("appendfsync", "no")


@breaks("eviction", RED)
async def keys_may_go(p, _):
    await p.redis.config_set("maxmemory-policy", "allkeys-lru")


@breaks("evicted-keys", RED)
async def keys_went(p, _):
    await p.redis.config_set("maxmemory-policy", "allkeys-lru")
    used = (await p.redis.info("memory"))["used_memory"]
    await p.redis.config_set("maxmemory", used + 300_000)
    for number in range(40):
        await p.redis.set(f"filling:{number}", "x" * 20_000)
    assert (await p.redis.info("stats"))["evicted_keys"]


@breaks("memory", RED)
async def it_is_full(p, _):
    used = (await p.redis.info("memory"))["used_memory"]
    await p.redis.config_set("maxmemory", round(used * 1.02))


@breaks("clients", YELLOW)
async def hardly_a_connection_is_left(p, _):
    connected = (await p.redis.info("clients"))["connected_clients"]
    await p.redis.config_set("maxclients", connected)


@breaks("idle-timeout", YELLOW)
async def idle_connections_are_cut(p, _):
    await p.redis.config_set("timeout", 5)


@breaks("server-role", RED)
async def it_is_a_replica(p, _):
    await p.redis.replicaof("127.0.0.1", 1)


@breaks("clock", RED)
async def this_machine_is_a_minute_behind(p, patch):
    now = time.time
    patch.setattr("askeld.doctor.gathering.time.time", lambda: now() - 60)


@breaks("scripts", RED)
async def scripts_may_not_be_loaded(p, _):
    await as_user(p, "+@all", "-script")


@breaks("permissions", RED)
async def a_command_of_a_script_is_denied(p, _):
    await as_user(p, "+@all", "-zadd")


@breaks("login", YELLOW)
async def anybody_may_come_in(p, _):
    """Nothing to break: so it stands there."""


async def as_user(p, *rules):
    await p.redis.acl_setuser("narrow", enabled=True, passwords=["+x"], keys=["*"], commands=[])
    await p.redis.execute_command("ACL", "SETUSER", "narrow", *rules)
    url = p.url.replace("redis://", "redis://narrow:x@")
    p.options["url"] = url
    p.options["service"] = RedisWorkflowService(url)


# Work.


@breaks("streams", RED)
async def the_stream_is_a_text(p, _):
    await p.redis.set(p.keys.commands_default, "x")


@breaks("workers", RED)
async def nobody_is_there(p, _):
    await p.redis.xgroup_delconsumer(p.keys.commands_default, GROUP, "worker")


@breaks("backlog", YELLOW)
async def a_command_has_waited_for_long(p, _):
    await p.send(entry="5-1")


@breaks("pending-age", RED)
async def nobody_renews_an_entry(p, _):
    await p.taken(idle=100_000)


@breaks("redeliveries", YELLOW)
async def an_entry_kills(p, _):
    await p.taken(retrycount=4)


@breaks("unknown-names", YELLOW)
async def nobody_knows_a_name(p, _):
    since = str(round(time.time() * 1_000) - 5_000)
    await p.send("type", "run.advance", "run_id", "r", "unknown_since", since)


@breaks("app-workflows", RED)
async def the_app_lacks_a_workflow(p, _):
    p.options["app"] = App("other")


@breaks("dead-letters", YELLOW)
async def a_command_was_refused(p, _):
    await p.redis.xadd(p.keys.dead, {"reason": "run_not_found", "entry": "1-1"})


@breaks("timers", RED)
async def a_timer_is_late(p, _):
    await p.redis.zadd(p.keys.timers, {'["","type","x"]': 1_000})


@breaks("schedules", UNKNOWN)
async def there_are_schedules(p, _):
    await p.redis.hset(p.keys.schedules, "nightly", "{}")


@breaks("stuck-runs", RED)
async def a_token_is_gone(p, _):
    await p.redis.hset(p.keys.ctl("live"), mapping={"token": "1-1", "start": "1-1"})


@breaks("stuck-runs", RED)
async def a_token_is_gone_from_its_queue(p, _):
    """Which nobody named to the doctor; as long as it is there, all is well."""
    stream = p.keys.commands("warehouse")
    token = (await p.redis.xadd(stream, {"type": "run.start", "run_id": "live"})).decode()
    words = {"token": token, "start": token, "queue": "warehouse"}
    await p.redis.hset(p.keys.ctl("live"), mapping=words)
    assert (await p.examine())["stuck-runs"].level is Level.GREEN
    await p.redis.xtrim(stream, maxlen=0)


@breaks("workers", RED)
async def only_what_nobody_has_is_there(p, _):
    """The name under which entries are kept that are pending for nobody is no worker."""
    stream = p.keys.commands_default
    await p.redis.xgroup_delconsumer(stream, GROUP, "worker")
    await p.redis.execute_command("XGROUP", "CREATECONSUMER", stream, GROUP, NOBODY)


@breaks("stalled-runs", YELLOW)
async def a_run_is_stalled(p, _):
    await p.service.update_run_status("live", "stalled", error="code")


@breaks("locks", RED)
async def a_lock_never_expires(p, _):
    await p.redis.set(p.keys.lock("live"), "somebody")


@breaks("locks", YELLOW)
async def a_lock_lasts_for_hours(p, _):
    await p.redis.set(p.keys.lock("live"), "somebody", px=7_229_698)


# Data.


@breaks("layout", RED)
async def another_version_was_here(p, _):
    await p.redis.hset(p.keys.meta, "layout", "9")


@breaks("layout", RED)
async def the_meta_key_is_gone(p, _):
    await p.redis.delete(p.keys.meta)


@breaks("store-id", YELLOW)
async def the_store_has_no_name(p, _):
    await p.redis.hdel(p.keys.meta, "store")


@breaks("key-types", RED)
async def another_program_took_a_key(p, _):
    await p.redis.delete(p.keys.events)
    await p.redis.set(p.keys.events, "x")


@breaks("readable", RED)
async def a_status_is_none(p, _):
    await p.redis.hset(p.keys.run("live"), "status", "somewhere")


@breaks("readable", RED)
async def a_run_is_no_hash(p, _):
    await p.redis.delete(p.keys.run("live"))
    await p.redis.set(p.keys.run("live"), "x")


@breaks("indexes", YELLOW)
async def an_index_lost_a_run(p, _):
    await p.redis.zrem(p.keys.runs_by_status("running"), "live")


@breaks("indexes", YELLOW)
async def an_index_names_a_run_that_is_gone(p, _):
    await p.redis.delete(p.keys.run("live"))


@breaks("pikku-schema", RED)
async def node_writes_other_fields(p, _):
    p.options["compat"] = "pikku"
    await p.redis.hdel(p.keys.run("live"), "workflow")


@breaks("payload-sizes", YELLOW)
async def a_payload_is_large(p, _):
    await p.service.create_run("shop", "x" * 300_000, run_id="large")


@breaks("history-length", YELLOW)
async def a_history_is_long(p, _):
    await p.redis.rpush(p.keys.history("live"), *["{}"] * 10_001)


@breaks("expired-runs", YELLOW)
async def nobody_applies_a_policy(p, _):
    await p.service.set_retention("shop", ttl=1)
    await p.redis.zadd(p.keys.runs_ended("shop"), {"done": 1_000})


# What takes a server of its own.


async def test_a_disk_that_cannot_be_written_is_named(anyio_backend):
    with EmbeddedServer(port=0, options={"appendonly": "no"}) as server:
        client = redis.asyncio.Redis.from_url(server.url, protocol=2)
        folder = (await client.config_get("dir"))["dir"]
        shutil.rmtree(folder)
        await client.bgsave()

        async def failed():
            return (await client.info("persistence"))["rdb_last_bgsave_status"] == "err"

        await wait_until(failed)
        async with RedisWorkflowService(server.url) as service:
            findings = {one.check: one for one in examine(await gather(service, server.url))}
        await client.aclose()
    assert findings["disk-writes"].level is RED
    assert "rdb_last_bgsave_status" in findings["disk-writes"].detail


async def test_a_primary_that_acknowledges_alone_is_named(own_server, patient):
    with EmbeddedServer(port=0, options={"appendonly": "no"}) as replica:
        client = redis.asyncio.Redis.from_url(replica.url, protocol=2)
        await client.replicaof("127.0.0.1", own_server.port)

        async def follows():
            return (await patient.redis.info("replication"))["connected_slaves"]

        await wait_until(follows)
        findings = await patient.examine()
        await client.aclose()
    assert findings["replicas"].level is YELLOW
    assert "min-replicas-to-write" in findings["replicas"].fix
