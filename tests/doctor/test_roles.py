"""`askel doctor` as each of the users that `askel acl` makes: what it may not ask is never red."""

import pytest
from tests.doctor.patient import Patient
from tests.helpers.servers import require_binary, server_ids

from askel import RedisWorkflowService
from askeld.acl import ROLES, rule
from askeld.doctor import Level
from askeld.embedded import EmbeddedServer

#: What each role can find out nothing about.
SKIPPED = {
    "worker": {"fsync", "idle-timeout", "login"},
    "viewer": {
        *("server-version", "server-role", "persistence", "fsync", "disk-writes", "eviction"),
        *("evicted-keys", "memory", "fragmentation", "clients", "idle-timeout", "replicas"),
        *("permissions", "login", "streams", "schedules", "key-types", "indexes"),
    },
}


@pytest.fixture(scope="module", params=server_ids())
def own_server(request):
    """A server of each kind."""
    with EmbeddedServer(binary=require_binary(request.param), port=0) as server:
        yield server


async def examine_as(patient: Patient, role: str, *without: str):
    """Return what the doctor says to a user of *role*, perhaps without some of its commands."""
    words = [*rule(role, patient.keys.prefix), *(f"-{name}" for name in without)]
    await patient.redis.execute_command("ACL", "SETUSER", role, "reset", "on", ">s", *words)
    await patient.redis.script_flush()
    url = patient.url.replace("redis://", f"redis://{role}:s@")
    service = RedisWorkflowService(url)
    patient.options |= {"url": url, "service": service}
    try:
        return await patient.examine()
    finally:
        await service.close()


@pytest.mark.parametrize("role", ROLES)
async def test_nothing_is_red_for_want_of_a_permission(patient, role):
    findings = await examine_as(patient, role)

    levels = {name: one.level for name, one in findings.items()}
    assert Level.RED not in levels.values(), findings
    assert Level.YELLOW not in levels.values(), findings
    unknown = {name for name, level in levels.items() if level is Level.UNKNOWN}
    assert unknown == SKIPPED.get(role, unknown)
    for one in findings.values():
        assert "user ''" not in one.detail
        assert one.level is Level.GREEN or one.detail


async def test_the_user_of_a_worker_sees_nearly_all(patient):
    """So that is whom the doctor is to log in as; it is named although it may not ask for that."""
    findings = await examine_as(patient, "worker")

    assert findings["permissions"].detail == "user 'worker'"
    await patient.redis.zrem(patient.keys.runs_by_status("running"), "live")
    await patient.redis.xgroup_delconsumer(patient.keys.commands_default, "askeld", "worker")
    sick = await examine_as(patient, "worker")
    assert sick["indexes"].level is Level.YELLOW
    assert sick["workers"].level is Level.RED


async def test_dead_letters_are_counted_where_their_reasons_may_not_be_read(patient):
    await patient.redis.xadd(patient.keys.dead, {"reason": "poison"})

    assert (await examine_as(patient, "worker"))["dead-letters"].detail == "1 commands were refused"
    found = await examine_as(patient, "viewer")
    assert found["dead-letters"].detail == "1 commands were refused (newest: 1 poison)"


@pytest.mark.parametrize("lacking", ["zadd", "evalsha", "xack"])
async def test_a_worker_that_lacks_a_command_is_red(patient, lacking):
    found = (await examine_as(patient, "worker", lacking))["permissions"]

    assert found.level is Level.RED
    assert found.detail == f"user 'worker' may not run {lacking.upper()}"


async def test_whoever_is_no_worker_is_not_judged_as_one(patient):
    for role in ("viewer", "janitor", "producer"):
        found = (await examine_as(patient, role))["permissions"]
        assert found.level is Level.UNKNOWN
        assert f"user {role!r}" in found.detail
