"""The self-test of permissions: each command of the scripts is tried, and nothing is changed."""

import pytest
from tests.helpers.keys import sync_client
from tests.helpers.servers import server_ids

from askel import RedisWorkflowService, StoreAccessError
from askel.state import denied_commands, load_scripts
from askel.state.store.permissions import _HARMLESS, commands_of
from askeld.embedded import EmbeddedServer

#: What the self-test itself takes.
NEEDED = {"HGET"}
#: Commands with subcommands: a server before Redis 7 takes them away as a whole.
WHOLE = {"XGROUP", "XINFO", "MEMORY"}


@pytest.fixture(scope="module", params=server_ids())
def guarded(request, server_pool):
    binary = server_pool.get(request.param).binary
    with (
        EmbeddedServer(binary=binary, port=0, options={"appendonly": "no"}) as server,
        sync_client(server.url) as admin,
    ):
        yield server, admin


@pytest.fixture
async def worker(guarded):
    server, admin = guarded
    admin.flushall()
    admin.execute_command("ACL", "SETUSER", "ann", "reset", "on", ">s", "~w:*", "+@all")
    service = RedisWorkflowService(f"redis://ann:s@127.0.0.1:{server.port}", key_prefix="w")
    await service.init()
    yield service
    await service.close()


def every_command():
    scripts = [*load_scripts().values(), *load_scripts("pikku").values()]
    return set().union(*map(commands_of, scripts))


def test_each_command_of_the_scripts_has_a_harmless_form():
    assert every_command() <= set(_HARMLESS)


async def denied(worker, also=()):
    return await denied_commands(worker.scripts, worker.keys, list(load_scripts()), also=also)


async def test_a_user_who_may_all_is_denied_nothing_and_nothing_is_changed(guarded, worker):
    _, admin = guarded
    before = {key: admin.dump(key) for key in admin.scan_iter()}

    assert await denied(worker, also=sorted(_HARMLESS)) == {}

    assert {key: admin.dump(key) for key in admin.scan_iter()} == before


async def test_each_command_that_is_denied_is_named(guarded, worker):
    """Row `ACL` of Redis faults: found at start, before a script is halfway through."""
    _, admin = guarded
    splits = not admin.info("server")["redis_version"].startswith("6.")
    for command in sorted(set(_HARMLESS) - NEEDED):
        name = command.replace(" ", "|") if splits else command.split()[0]
        admin.execute_command("ACL", "SETUSER", "ann", f"-{name.lower()}")
        found = await denied(worker, also=sorted(_HARMLESS))
        assert set(found) == ({command.split()[0]}), command
        assert "ann" not in found[command.split()[0]] or splits
        admin.execute_command("ACL", "SETUSER", "ann", "+@all")


@pytest.mark.parametrize("taken", ["-evalsha", "-hget", "-script"])
async def test_without_what_the_self_test_takes_it_raises(guarded, worker, taken):
    _, admin = guarded
    admin.script_flush()
    admin.execute_command("ACL", "SETUSER", "ann", taken)

    with pytest.raises(StoreAccessError, match=r"^NOPERM .*give the user this permission"):
        await denied(worker)


@pytest.mark.parametrize("kind", ["lock", "dead", "timers", "events"])
async def test_a_kind_of_key_that_is_not_the_users_is_named(guarded, worker, kind):
    _, admin = guarded
    kinds = ("run", "ctl", "history", "lock", "step", "steps", "run-state", "meta", "timers")
    kinds += ("events", "runs", "dead", "commands", "nudge", "step-lock")
    granted = [f"~w:{other}*" for other in kinds if not kind.startswith(other)]
    admin.execute_command("ACL", "SETUSER", "ann", "resetkeys", *granted)

    with pytest.raises(StoreAccessError, match=rf"NOPERM .*\(key w:{kind}"):
        await denied(worker)


async def test_a_store_without_its_meta_key_is_left_alone(guarded, worker):
    _, admin = guarded
    admin.delete("w:meta")

    assert await denied(worker) == {}
    assert admin.keys() == []
