"""Redis users with the least privileges: each role can do its work, and nothing else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis.asyncio
from tests.helpers.servers import RunningServer, require_binary, server_ids
from tests.helpers.workers import ROOT
from tests.security.workloads import WORKLOADS, Office

import askeld.reclaim
from askel import StoreAccessError
from askel.state import connect, load_scripts
from askeld.acl import (
    PLACEHOLDER,
    ROLES,
    Extras,
    acl_file,
    commands_of,
    password_digest,
    rule,
    user_line,
)
from askeld.embedded import EmbeddedServer

SECRET = "s3cret-w0rd"
PIKKU = Extras(compat="pikku")
#: Workloads that run beside one another.
AT_ONCE = 8


@pytest.fixture(scope="module", params=server_ids())
def server(request):
    """A server of this module's own, whose log of denials is long enough."""
    options = {"appendonly": "no", "acllog-max-len": "100000"}
    binary = require_binary(request.param)
    with EmbeddedServer(binary=binary, port=0, options=options) as server:
        yield RunningServer(request.param, server.url, server.port, binary)


@pytest.fixture
async def admin(server):
    client = redis.asyncio.Redis.from_url(server.url, protocol=2)
    yield client
    await client.flushall()
    await client.execute_command("ACL", "LOG", "RESET")
    await client.aclose()


@pytest.fixture(autouse=True)
def dead_consumers_are_looked_for(monkeypatch):
    """In each sweep, as a worker does once a minute."""
    monkeypatch.setattr(askeld.reclaim, "_FORGET_EVERY", 1)


@asynccontextmanager
async def employed(admin, server, role, name, *, without=(), compat=None) -> AsyncIterator[Office]:
    """Create a user of the role, perhaps without some of its commands; name is its prefix, too."""
    denied = [f"-{command}" for command in without]
    kept = [
        word for word in rule(role, name, Extras(compat=compat)) if f"-{word[1:]}" not in denied
    ]
    await admin.execute_command("ACL", "SETUSER", name, "reset", "on", f">{SECRET}", *kept)
    yield Office(
        admin,
        server.url,
        server.url.replace("redis://", f"redis://{name}:{SECRET}@"),
        name,
        compat,
    )
    await admin.execute_command("ACL", "DELUSER", name)


async def denials(admin, user) -> set[str]:
    """Return what the server has denied to the user: commands, keys."""
    entries = await admin.execute_command("ACL", "LOG", 100_000)
    found = set()
    for flat in entries:
        pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
        entry = {_text(name): _text(value) for name, value in pairs}
        if entry["username"] == user and entry["reason"] != "auth":
            found.add(entry["object"])
    return found


def _text(value):
    return value.decode() if isinstance(value, bytes) else value


async def fails_without(admin, server, role, command) -> set[str]:
    """Run the role's workload without a command until something is denied; return what was."""
    name = f"no-{role}-{command.replace('|', '-')}"
    compat = None if command in commands_of(role) else "pikku"
    async with employed(admin, server, role, name, without=[command], compat=compat) as office:
        working = asyncio.ensure_future(WORKLOADS[role](office))
        while not working.done() and not await denials(admin, name):
            await asyncio.wait([working], timeout=0.02)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return await denials(admin, name)


@pytest.mark.parametrize("compat", [None, "pikku"])
@pytest.mark.parametrize("role", ROLES)
async def test_role_can_do_all_its_work(admin, server, role, compat):
    """From the first connection to the last, and the server has denied it nothing."""
    await admin.script_flush()
    async with employed(admin, server, role, "whole", compat=compat) as office:
        try:
            await WORKLOADS[role](office)
        finally:
            assert await denials(admin, "whole") == set()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("role", ROLES)
async def test_every_command_of_a_role_is_needed(admin, server, role):
    """Without any single one of them something of its work is denied, and it is that command.

    Those for prefixes that are shared with Node are tried in such a one.
    """
    wanted = list(commands_of(role, PIKKU))
    room = asyncio.Semaphore(AT_ONCE)

    async def denied(command):
        async with room:
            return await fails_without(admin, server, role, command)

    if "script|load" in wanted:  # needed by whoever comes first
        wanted.remove("script|load")
        await admin.script_flush()
        assert await fails_without(admin, server, role, "script|load")
    found = dict(zip(wanted, await asyncio.gather(*map(denied, wanted)), strict=True))
    assert [command for command in wanted if not found[command]] == []
    for command, objects in found.items():
        assert {one.lower().partition("|")[0] for one in objects} == {command.partition("|")[0]}


#: Never granted to anybody but an administrator; each with arguments that would do.
FORBIDDEN = (
    "EVAL|return 1|0",
    "FLUSHALL",
    "FLUSHDB",
    "KEYS|*",
    "CONFIG|GET|*",
    "CONFIG|SET|maxmemory-policy|allkeys-lru",
    "CLIENT|LIST",
    "CLIENT|KILL|TYPE|normal",
    "SCRIPT|FLUSH",
    "XGROUP|DESTROY|{p}:commands|askeld",
    "XGROUP|SETID|{p}:commands|askeld|0",
    "XTRIM|{p}:commands|MAXLEN|0",
    "SELECT|1",
    "DUMP|{p}:run:r",
    "RESTORE|{p}:run:x|0|x",
    "MIGRATE|127.0.0.1|1|{p}:run:r|0|1",
    "COPY|{p}:run:r|{p}:run:s",
    "OBJECT|FREQ|{p}:run:r",
    "SORT|{p}:runs",
    "SAVE",
    "BGREWRITEAOF",
    "SHUTDOWN|NOSAVE",
    "MONITOR",
    "SLOWLOG|GET",
    "ACL|LIST",
    "ACL|SETUSER|evil|on|nopass|~*|+@all",
    "MODULE|LIST",
    "REPLICAOF|NO|ONE",
    "SUBSCRIBE|any",
    "PUBLISH|any|x",
    "MULTI",
    "SWAPDB|0|1",
)
#: What some role has and another must not.
OF_OTHERS = {
    "producer": (
        "HGETALL|{p}:run:r",
        "XREAD|STREAMS|{p}:commands|0",
        "XRANGE|{p}:commands|-|+",
        "XDEL|{p}:commands|1-1",
        "EVALSHA|{sha}|0",
        "SCRIPT|LOAD|return 1",
        "XADD|{p}:dead|*|a|b",
        "XADD|{p}:events|*|a|b",
        "XADD|{p}:run:r|*|a|b",
        "XGROUP|CREATE|{p}:commands|g|0",
        "INFO",
    ),
    "viewer": (
        "HSET|{p}:run:r|status|failed",
        "XADD|{p}:commands|*|type|x",
        "DEL|{p}:run:r",
        "UNLINK|{p}:run:r",
        "EXPIRE|{p}:run:r|1",
        "SET|{p}:lock:r|x",
        "RPUSH|{p}:history:r|x",
        "XACK|{p}:commands|askeld|1-1",
        "ZADD|{p}:runs|1|x",
        "SCAN|0",
    ),
    "worker": (
        "SCAN|0",
        "LPOS|{p}:steps:r|a",
        "XREVRANGE|{p}:events|+|-",
        "ZREVRANGE|{p}:runs|0|1",
    ),
    "janitor": (
        "XREADGROUP|GROUP|askeld|me|STREAMS|{p}:commands|>",
        "XCLAIM|{p}:commands|askeld|me|0|1-1",
        "RENAME|{p}:run:r|{p}:run:s",
        "SET|{p}:lock:r|x",
    ),
}
FOREIGN = "other:run:r"
#: One command of each role that it may send to keys of its own.
OWN = {
    "worker": "HSET|{k}|status|failed",
    "producer": "XADD|{k}|*|type|run.start",
    "viewer": "HGETALL|{k}",
    "janitor": "UNLINK|{k}",
}


@pytest.mark.parametrize("role", ROLES)
async def test_role_can_do_nothing_else(admin, server, role):
    """Commands of administrators and of other roles, and keys of others."""
    await admin.hset(FOREIGN, "status", "running")
    sha = await admin.script_load("return 1")
    async with employed(admin, server, role, "closed") as office:
        user = redis.asyncio.Redis.from_url(office.url, protocol=2)
        attempts = [*FORBIDDEN, *OF_OTHERS[role], OWN[role].replace("{k}", FOREIGN)]
        for attempt in attempts:
            words = attempt.replace("{p}", "closed").replace("{sha}", sha).split("|")
            # A server that lacks a command says so before it looks at the user.
            with pytest.raises(redis.ResponseError) as refused:
                await user.execute_command(*words)
            said = str(refused.value)
            assert isinstance(refused.value, redis.exceptions.NoPermissionError) or re.match(
                "unknown command|unknown subcommand|Unknown", said
            ), (attempt, said)
        if role != "producer":
            body = "return redis.call('HGETALL', ARGV[1])"
            foreign = (await user.script_load(body), 0, FOREIGN)
            with pytest.raises(redis.ResponseError, match=r"(?i)acl failure|can't access"):
                await user.evalsha(*foreign)
        await user.aclose()
    assert await admin.hgetall(FOREIGN) == {b"status": b"running"}


async def test_the_file_is_one_that_servers_start_with(server, tmp_path):
    """A server reads it; nobody without a name gets in; the printed hash is that of a password."""
    mine = user_line(
        "viewer", "w", user="eve", digest=password_digest(SECRET), extras=Extras(select=True)
    )
    (tmp_path / "users.acl").write_text(f"{acl_file('w')}{mine}\n")
    options = {"appendonly": "no", "aclfile": str(tmp_path / "users.acl")}
    with EmbeddedServer(binary=server.binary, port=0, options=options) as other:
        at = f"127.0.0.1:{other.port}"
        assert await answer(f"redis://eve:{SECRET}@{at}/1", "HGETALL", "w:run:r") == []
        with pytest.raises(StoreAccessError, match=r"^NOAUTH"):
            await answer(f"redis://{at}", "HGETALL", "w:run:r")
        for user in ("askel-admin", *(f"askel-{role}" for role in ROLES)):
            with pytest.raises(StoreAccessError, match=r"^WRONGPASS"):
                await answer(f"redis://{user}:{PLACEHOLDER}@{at}", "HGETALL", "w:run:r")


async def answer(url, *command):
    connection = connect(url)
    try:
        return await connection.send(*command)
    finally:
        await connection.close()


def test_deployed_file_is_what_the_program_prints():
    assert (ROOT / "deploy/redis/users.acl").read_text("utf-8") == acl_file("workflows")


def commands_in(body):
    """The commands that a script calls, with the subcommand where it has one."""
    called = re.findall(
        r"(?:redis\.p?call|tolerant)\(['\"](\w+)['\"](?:, ['\"]([A-Z]+)['\"])?", body
    )
    return {f"{name}|{sub}".strip("|").lower() for name, sub in called}


def test_every_command_of_every_script_belongs_to_a_role():
    """A new script has to be given to somebody."""
    everybody = {name for role in ROLES for name in commands_of(role, PIKKU)}
    for compat in (None, "pikku"):
        for script in load_scripts(compat).values():
            assert commands_in(script.body) <= everybody, script.name
