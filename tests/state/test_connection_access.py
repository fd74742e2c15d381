"""Logging in: passwords, users, files, providers; and what is said when Redis refuses."""

import asyncio
import re
import time

import pytest
import redis
from redis.credentials import CredentialProvider
from tests.helpers.keys import sync_client
from tests.helpers.markdown import Page
from tests.helpers.waiting import wait_until
from tests.helpers.workers import ROOT

from askel import (
    InvalidOptionError,
    RedisWorkflowService,
    StoreAccessError,
    StoreError,
    StoreReplyError,
    StoreUnavailableError,
    UnknownOutcomeError,
)
from askel.state import connect, is_passing, load_scripts
from askeld.embedded import EmbeddedServer

SECRET = "s3cret-w0rd"

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def guarded(redis_server):
    """A server that wants a password, and one from a user of its own."""
    options = {"appendonly": "no", "requirepass": SECRET}
    with EmbeddedServer(binary=redis_server.binary, port=0, options=options) as server:
        yield server


@pytest.fixture
def admin(guarded):
    with sync_client(guarded.url) as client:
        client.execute_command("ACL", "SETUSER", "ann", "on", f">{SECRET}", "~*", "+@all", "-ping")
        yield client


async def whoami(connection):
    try:
        return (await connection.send("ACL", "WHOAMI")).decode()
    finally:
        await connection.close()


def kick(admin):
    """Close the connections of everybody else."""
    admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def again(connection, *command):
    """Send a command until something other than a broken connection answers it."""

    async def answered():
        try:
            return [await connection.send(*command)]
        except StoreError as error:
            if not is_passing(error):
                raise
            return None

    return (await wait_until(answered))[0]


async def unknown_at_first(connection):
    """Send until the broken connection is noticed: what comes then is what matters."""
    while True:
        try:
            await connection.send("ECHO", "gone")
        except UnknownOutcomeError:
            continue


async def test_password_and_user(guarded, admin):
    at = f"127.0.0.1:{guarded.port}"

    assert await whoami(connect(f"redis://:{SECRET}@{at}")) == "default"
    assert await whoami(connect(f"redis://ann:{SECRET}@{at}")) == "ann"
    assert await whoami(connect(f"redis://{at}?username=ann&password={SECRET}")) == "ann"
    assert await whoami(connect({"port": guarded.port, "password": SECRET})) == "default"
    login = {"port": guarded.port, "username": "ann", "password": SECRET}
    assert await whoami(connect(redis.asyncio.Redis(**login))) == "ann"


async def test_user_without_a_password(guarded, admin):
    admin.execute_command("ACL", "SETUSER", "open", "on", "nopass", "~*", "+@all")

    assert await whoami(connect(f"redis://open@127.0.0.1:{guarded.port}")) == "open"


async def test_password_in_a_file(guarded, admin, tmp_path):
    (tmp_path / "pass word").write_text(f"{SECRET}\n")
    path = f"{tmp_path}/pass%20word"

    url = f"redis://ann@127.0.0.1:{guarded.port}/0?password_file={path}"
    assert await whoami(connect(url)) == "ann"
    options = {"port": guarded.port, "password_file": tmp_path / "pass word"}
    assert await whoami(connect(options)) == "default"
    (tmp_path / "url").write_text(f"  redis://ann:{SECRET}@127.0.0.1:{guarded.port}  \r\n")
    assert await whoami(connect(f"file://{tmp_path}/url")) == "ann"


@pytest.mark.parametrize("content", [b"\xff\xfe" + SECRET.encode(), b"", b"\n", b"a\nb\n"])
def test_file_that_holds_no_secret_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "password"
    path.write_bytes(content)

    for given in ({"password_file": path}, f"redis://h?password_file={path}", f"file://{path}"):
        with pytest.raises(InvalidOptionError, match=str(path)) as caught:
            connect(given)
        assert "\n" not in str(caught.value)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("kind", ["password_file", "file"])
async def test_rotated_secret_is_read_at_the_next_connect(guarded, admin, tmp_path, kind):
    path = tmp_path / "secret"

    def write(password):
        url = f"redis://ann:{password}@127.0.0.1:{guarded.port}"
        path.write_text(url if kind == "file" else password)

    write(SECRET)
    at = f"redis://ann@127.0.0.1:{guarded.port}?password_file={path}"
    connection = connect(f"file://{path}" if kind == "file" else at)
    assert await connection.send("ACL", "WHOAMI") == b"ann"

    admin.execute_command("ACL", "SETUSER", "ann", ">n3w", f"<{SECRET}")
    kick(admin)
    with pytest.raises(StoreAccessError, match=r"^WRONGPASS"):
        await again(connection, "ECHO", "old")
    write("n3w")

    assert await again(connection, "ECHO", "new") == b"new"
    path.unlink()
    kick(admin)
    with pytest.raises(StoreUnavailableError, match=f"cannot read {path}"):
        await unknown_at_first(connection)
    path.write_text("")  # as it is while somebody replaces it
    with pytest.raises(StoreUnavailableError):
        await connection.send("ECHO", "empty")
    write("n3w")
    assert await connection.send("ECHO", "back") == b"back"
    await connection.close()


class Plain(CredentialProvider):
    """One that only has the blocking method, as most do."""

    def __init__(self):
        self.asked = 0
        self.password = SECRET

    def get_credentials(self):
        self.asked += 1
        return "ann", self.password


class Async(Plain):
    async def get_credentials_async(self):
        await asyncio.sleep(0)
        self.asked += 1
        return "ann", self.password


@pytest.mark.parametrize("kind", [Plain, Async])
async def test_credential_provider_is_asked_at_each_connect(guarded, admin, kind, caplog):
    provider = kind()
    connection = connect({"port": guarded.port, "credential_provider": provider})

    assert await connection.send("ACL", "WHOAMI") == b"ann"
    admin.execute_command("ACL", "SETUSER", "ann", ">n3w", f"<{SECRET}")
    provider.password = "n3w"
    kick(admin)

    assert await again(connection, "ACL", "WHOAMI") == b"ann"
    assert provider.asked == 2
    assert not caplog.records
    await connection.close()


async def test_provider_that_blocks_does_not_stop_the_loop(guarded):
    class Slow(Plain):
        def get_credentials(self):
            time.sleep(0.2)
            return (SECRET,)

    connection = connect({"port": guarded.port, "credential_provider": Slow()})
    passes = 0

    async def count():
        nonlocal passes
        while True:
            passes += 1
            await asyncio.sleep(0.001)

    counting = asyncio.create_task(count())
    assert await whoami(connection) == "default"
    counting.cancel()
    assert passes > 10


@pytest.mark.parametrize(
    ("login", "code", "said"),
    [
        (":wr0ng@", "WRONGPASS", "does not accept the user name and password"),
        ("bob:wr0ng@", "WRONGPASS", "does not accept the user name and password"),
        ("", "NOAUTH", "give a user name and a password"),
    ],
)
async def test_login_that_is_refused_says_what_to_do(guarded, login, code, said):
    connection = connect(f"redis://{login}127.0.0.1:{guarded.port}")

    with pytest.raises(StoreAccessError, match=said) as caught:
        await whoami(connection)

    assert caught.value.code == code
    assert caught.value.refuses_login
    assert f"127.0.0.1:{guarded.port}" in str(caught.value)


async def test_password_that_the_server_does_not_want(server):
    with pytest.raises(StoreAccessError, match="has no password for the default user: give none"):
        await whoami(connect({"host": server.host, "port": server.port, "password": SECRET}))


async def test_database_that_is_not_there_or_not_allowed(guarded, admin):
    with pytest.raises(StoreReplyError, match="has no database '99'"):
        await whoami(connect(f"redis://:{SECRET}@127.0.0.1:{guarded.port}/99"))

    admin.execute_command("ACL", "SETUSER", "ann", "-select")
    with pytest.raises(StoreAccessError, match=r"^NOPERM .*'select'"):
        await whoami(connect(f"redis://ann:{SECRET}@127.0.0.1:{guarded.port}/3"))


@pytest.mark.parametrize("call", ["create_run", "get_run", "init"])
async def test_refused_login_is_not_tried_again_and_again(guarded, call):
    url = f"redis://:wr0ng@127.0.0.1:{guarded.port}"
    service = RedisWorkflowService(url, resend_s=30)
    arguments = {"create_run": ("w",), "get_run": ("r",), "init": ()}[call]

    with pytest.raises(StoreAccessError):
        await asyncio.wait_for(getattr(service, call)(*arguments), 5)

    with sync_client(guarded.url) as client:
        assert client.info("stats")["total_connections_received"] < 6
    await service.close()


async def test_call_after_the_login_was_revoked_fails_at_once_and_works_once_it_is_back(
    guarded, admin, prefix
):
    url = f"redis://ann:{SECRET}@127.0.0.1:{guarded.port}"
    service = RedisWorkflowService(url, key_prefix=prefix, resend_s=30)
    await service.create_run("w", run_id="r")

    admin.execute_command("ACL", "SETUSER", "ann", "off")
    kick(admin)
    with pytest.raises(StoreAccessError, match="or the user is switched off"):
        await asyncio.wait_for(service.create_run("w", run_id="r2"), 5)
    admin.execute_command("ACL", "SETUSER", "ann", "on")

    assert await service.create_run("w", run_id="r2") == "r2"
    await service.close()


async def test_login_that_expires_is_renewed(guarded, admin):
    """As a server does whose users log in with tokens that end."""
    connection = connect(f"redis://ann:{SECRET}@127.0.0.1:{guarded.port}")
    await connection.send("ACL", "WHOAMI")
    await connection.send("RESET")

    with pytest.raises(StoreUnavailableError, match="the login has expired"):
        await connection.send("ACL", "WHOAMI")

    assert await connection.send("ACL", "WHOAMI") == b"ann"
    assert connection.connects == 2
    await connection.close()


def documented_rule():
    """The rule for the user of askel that docs/connections.md gives."""
    return Page(ROOT / "docs" / "connections.md").block("ACL SETUSER").split()


async def test_user_of_the_documented_rule_can_do_everything_under_its_prefix(guarded, admin):
    words = [w.replace("PASSWORD", SECRET).replace("workflows", "w") for w in documented_rule()]
    admin.execute_command(*words)
    url = f"redis://askel:{SECRET}@127.0.0.1:{guarded.port}"

    async with RedisWorkflowService(url, key_prefix="w") as service:
        run_id = await service.create_run("w", {"n": 1})
        async with service.run_lock(run_id):
            step = await service.insert_step_state(run_id, "a", "f", 1, {"retries": 1})
            await service.set_step_running(step.step_id)
            await service.set_step_error(step.step_id, ValueError("no"))
            await service.create_retry_attempt(step.step_id, "running")
            await service.set_step_result(step.step_id, 2)
        await service.update_run_status(run_id, "completed", output=3)
        assert [a.status for a in await service.get_run_history(run_id)] == ["failed", "succeeded"]
        assert [run.id for run in (await service.list_runs()).runs] == [run_id]
    async with RedisWorkflowService(f"redis://:{SECRET}@127.0.0.1:{guarded.port}") as other:
        await other.create_run("w", run_id="theirs")

    foreign = RedisWorkflowService(url)
    for call in (foreign.create_run("w"), foreign.get_run("theirs"), foreign.init()):
        with pytest.raises(StoreAccessError, match=r"^NOPERM .*: give the user this permission"):
            await call
    await foreign.close()


#: Commands with a subcommand, and how many arguments that takes.
SUBCOMMANDS = {("XGROUP", "DELCONSUMER"): 3, ("XGROUP", "CREATE"): 3, ("MEMORY", "USAGE"): 1}


def commands_of_scripts():
    """Every command that a script calls, with the subcommand where it has one."""
    scripts = [*load_scripts().values(), *load_scripts("pikku").values()]
    bodies = "".join(script.body for script in scripts)
    found = re.findall(r"redis\.p?call\(['\"]([A-Za-z]+)['\"](?:, ['\"]([A-Z]+)['\"])?", bodies)
    return sorted({(name.upper(), sub) for name, sub in found})


def test_documented_rule_allows_what_the_scripts_call(guarded, admin):
    """A script that is refused half-way would leave half of what it writes."""
    if admin.info("server")["redis_version"].startswith("6."):
        pytest.skip("ACL DRYRUN came with Redis 7; newer servers say the same of the rule")
    words = [w.replace("PASSWORD", SECRET).replace("workflows", "w") for w in documented_rule()]
    admin.execute_command(*words)
    names = commands_of_scripts()
    assert len(names) > 20
    for name, subcommand in names:
        arity = abs(admin.execute_command("COMMAND INFO", name)[0][1])
        given = ["w:1"] * (arity - 1)
        if (name, subcommand) in SUBCOMMANDS:
            given = [subcommand, *["w:1"] * SUBCOMMANDS[name, subcommand]]
        said = admin.execute_command("ACL DRYRUN", "askel", name, *given)
        assert said == b"OK", (name, said)


async def test_permission_that_is_missing_inside_a_script_is_told(guarded, admin, prefix):
    admin.execute_command("ACL", "SETUSER", "ann", "-rpush")
    url = f"redis://ann:{SECRET}@127.0.0.1:{guarded.port}"
    service = RedisWorkflowService(url, key_prefix=prefix, resend_s=30)

    with pytest.raises(StoreAccessError, match="give the user this permission") as caught:
        await asyncio.wait_for(service.create_run("w"), 5)

    assert caught.value.code == "NOPERM"
    assert not caught.value.refuses_login
    await service.close()
