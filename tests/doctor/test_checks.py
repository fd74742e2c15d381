"""Checks as functions of facts: at their limits, and where no test can break the thing itself."""

from datetime import timedelta

import pytest

from askel import RedisWorkflowService, RetentionPolicy
from askeld.doctor import CHECKS, Facts, Level, gather
from askeld.doctor.facts import ConsumerFacts, RunFacts, StreamFacts

HOUR_MS = 3_600_000
GREEN, YELLOW, RED, UNKNOWN = Level.GREEN, Level.YELLOW, Level.RED, Level.UNKNOWN
INFO = {"redis_version": "7.0.15", "used_memory": "100", "used_memory_rss": "100"}


def stream(*consumers, **given):
    return StreamFacts("", consumers=consumers, **given)


def says(name, **given):
    return CHECKS[name](Facts("somewhere", "workflows", **given))


@pytest.mark.parametrize(
    ("name", "level", "given"),
    [
        ("server-version", RED, {"info": {"redis_version": "6.0.16"}}),
        ("server-version", GREEN, {"info": {"redis_version": "6.2.0"}}),
        ("server-version", UNKNOWN, {}),
        ("server-role", RED, {"info": {"cluster_enabled": "1", "role": "master"}}),
        ("fragmentation", RED, {"info": INFO | {"used_memory_rss": "60"}}),
        ("fragmentation", GREEN, {"info": INFO}),
        ("memory", YELLOW, {"info": INFO | {"maxmemory": "120"}}),
        ("memory", GREEN, {"info": INFO | {"maxmemory": "1000"}}),
        ("memory", UNKNOWN, {}),
        ("server-role", RED, {"info": {"role": "slave"}}),
        ("round-trip", YELLOW, {"round_trip_ms": 20.1}),
        ("round-trip", GREEN, {"round_trip_ms": 20.0}),
        ("clock", YELLOW, {"skew_ms": -1_001}),
        ("clock", GREEN, {"skew_ms": 1_000}),
        ("tls", YELLOW, {"is_local": False}),
        ("tls", GREEN, {"is_local": False, "is_tls": True}),
        ("tls", RED, {"is_tls": True, "is_verified": False}),
        ("tls", GREEN, {"is_local": True}),
        ("login", RED, {"is_local": False, "has_open_default": True}),
        ("login", GREEN, {"is_local": False, "has_open_default": False}),
        ("login", UNKNOWN, {}),
        ("replicas", RED, {"info": {"connected_slaves": "1", "slave0": "ip=x,lag=11"}}),
        ("replicas", GREEN, {"info": {"connected_slaves": "1", "slave0": "ip=x,lag=1"}}),
        ("idle-timeout", UNKNOWN, {}),
        ("eviction", UNKNOWN, {}),
        ("fsync", UNKNOWN, {"info": {"aof_enabled": "1"}}),
        ("fsync", GREEN, {"info": {"aof_enabled": "1"}, "config": {"appendfsync": "always"}}),
        ("streams", RED, {"streams": [StreamFacts("", length=1, has_group=False)]}),
        ("workers", RED, {"streams": [StreamFacts("warehouse", length=1)]}),
        ("workers", GREEN, {"streams": [StreamFacts("warehouse")]}),
        ("workers", GREEN, {"streams": [stream(ConsumerFacts("a", 0, 59_999))]}),
        ("workers", RED, {"streams": [stream(ConsumerFacts("a", 0, 60_000), swept_ms=60_000)]}),
        ("workers", GREEN, {"streams": [stream(ConsumerFacts("a", 0, 60_000), swept_ms=59_999)]}),
        ("dead-consumers", RED, {"streams": [stream(ConsumerFacts("a", 1, HOUR_MS + 1))]}),
        ("dead-consumers", GREEN, {"streams": [stream(ConsumerFacts("a", 0, HOUR_MS + 1))]}),
        ("dead-letters-size", RED, {"dead": 10_001}),
        ("dead-letters-size", GREEN, {"dead": 10_000}),
        ("timers", GREEN, {"timers": 1, "overdue": 1, "overdue_ms": 900}),
        ("retention", YELLOW, {"ended": {"shop": 100_001}}),
        ("retention", GREEN, {"ended": {"shop": 100_000}}),
        ("retention", GREEN, {"ended": {"shop": 100_001}, "policies": {None: RetentionPolicy()}}),
        ("retention", GREEN, {"ended": {"shop": 100_001}, "policies": {"shop": RetentionPolicy()}}),
        ("layout", GREEN, {}),
    ],
)
def test_verdicts_at_the_limits(name, level, given):
    found, detail, fix = says(name, **given)
    assert found is level
    assert detail
    assert bool(fix) == (level in {YELLOW, RED}) or level is UNKNOWN


def test_sizes_are_in_units_that_fit():
    full = INFO | {"used_memory": str(1_447_034), "maxmemory": str(2**20)}
    assert says("memory", info=full)[1] == "138% of 1.0 MiB used"
    assert says("memory", info=INFO | {"maxmemory": str(6 * 2**30)})[1] == "0% of 6.0 GiB used"


def test_a_replica_is_called_so():
    assert says("server-role", info={"role": "slave"})[1].startswith("this server is a replica:")


def test_a_run_is_late_only_beyond_the_time_that_a_worker_may_take():
    policy = {"shop": RetentionPolicy(ttl=timedelta(hours=1))}
    given = {"policies": policy, "now_ms": 10 * HOUR_MS}
    for over, level in ((600_000, GREEN), (600_001, YELLOW)):
        ended = {"shop": 9 * HOUR_MS - over}
        assert says("expired-runs", oldest_ended_ms=ended, **given)[0] is level


def test_nobody_is_told_to_drop_letters_unseen():
    """They may be redrivable: each reason is looked at, and only what is old is dropped."""
    _, _, fix = says("dead-letters-size", dead=10_001, dead_reasons={"poison": 1, "not_due": 9})
    steps = ["ls --reason not_due", "redrive --all --reason not_due --yes", "docs/dead-letters.md"]
    steps.append("drop --all --reason not_due --older-than 30d --yes")
    assert [fix.index(step) for step in steps] == sorted(fix.index(step) for step in steps)
    assert "drop --all --yes" not in fix
    assert "ls --reason REASON;" in says("dead-letters-size", dead=10_001)[2]


def test_a_long_list_of_names_is_cut():
    runs = [RunFacts(f"r{number}", "running", lock_ms=-1) for number in range(7)]
    _, detail, fix = says("locks", runs=runs)
    assert "r0, r1, r2, r3, r4 and 2 more" in detail
    assert fix.endswith("DEL workflows:lock:r0")


def test_there_are_enough_checks():
    assert len(CHECKS) >= 25
    assert all(check.__doc__ for check in CHECKS.values())


@pytest.mark.parametrize(
    ("query", "level"),
    [("?ssl_cert_reqs=none&insecure=yes", RED), ("?ssl_cert_reqs=required", GREEN), ("", GREEN)],
)
async def test_what_the_address_says_of_tls(own_server, query, level, anyio_backend):
    async with RedisWorkflowService(own_server.url) as service:
        facts = await gather(service, f"rediss://10.0.0.5:6380/0{query}")
    assert CHECKS["tls"](facts)[0] is level
