"""No secret is in a message, a traceback with its whole chain, a repr or a log."""

import logging
import socket
import traceback
from urllib.parse import quote

import pytest
import redis
from redis.credentials import CredentialProvider
from tests.helpers.keys import sync_client

from askel import AskelError, Client, RedisWorkflowService, StreamQueue, SyncRedisWorkflowService
from askel.state import connect
from askel.state.store.addresses import read_connection
from askeld.embedded import EmbeddedServer

SECRET = "s3cret/w0rd@#?"
QUOTED = quote(SECRET, safe="")


class Leaky(CredentialProvider):
    def get_credentials(self):
        raise RuntimeError(f"the vault does not know {SECRET}")


class LeakyAsync(CredentialProvider):
    async def get_credentials_async(self):
        raise RuntimeError(SECRET) from KeyError(SECRET)


@pytest.fixture(scope="module")
def guarded():
    with EmbeddedServer(port=0, options={"appendonly": "no", "requirepass": "other"}) as server:
        yield server


@pytest.fixture(scope="module")
def ancient():
    """A server that does not know AUTH, and repeats what it was sent."""
    options = {"appendonly": "no", "rename-command": ("AUTH", "")}
    with EmbeddedServer(port=0, options=options) as server:
        yield server


def closed_port():
    with socket.socket() as guess:
        guess.bind(("127.0.0.1", 0))
        return guess.getsockname()[1]


GIVEN = {
    "wrong password": lambda g, a: f"redis://:{QUOTED}@127.0.0.1:{g.port}",
    "wrong user": lambda g, a: f"redis://{QUOTED}:{QUOTED}@127.0.0.1:{g.port}",
    "wrong password in options": lambda g, a: {"port": g.port, "password": SECRET},
    "wrong password in a client": lambda g, a: redis.asyncio.Redis(port=g.port, password=SECRET),
    "password in the query": lambda g, a: f"redis://127.0.0.1:{g.port}?password={QUOTED}",
    "server that repeats the command": lambda g, a: f"redis://:{QUOTED}@127.0.0.1:{a.port}",
    "unreachable": lambda g, a: f"redis://:{QUOTED}@127.0.0.1:{closed_port()}",
    "unknown host": lambda g, a: f"redis://:{QUOTED}@no-such-host.invalid",
    "no TLS there": lambda g, a: f"rediss://:{QUOTED}@127.0.0.1:{g.port}",
    "no such socket": lambda g, a: f"unix://:{QUOTED}@/no/such/socket",
    "not quoted": lambda g, a: f"redis://:{SECRET}@127.0.0.1:{g.port}",
    "not quoted, an option": lambda g, a: f"redis://:x?{SECRET}=1@127.0.0.1:{g.port}",
    "bad port": lambda g, a: f"redis://:{QUOTED}@127.0.0.1:port",
    "bad database": lambda g, a: f"redis://:{QUOTED}@127.0.0.1:{g.port}/one",
    "bad scheme": lambda g, a: f"http://:{QUOTED}@127.0.0.1:{g.port}",
    "bad option": lambda g, a: f"redis://:{QUOTED}@127.0.0.1:{g.port}?nope=1",
    "bad value": lambda g, a: f"redis://:{QUOTED}@127.0.0.1:{g.port}?socket_timeout={QUOTED}",
    "bad option in a mapping": lambda g, a: {"port": g.port, "password": SECRET, "nope": 1},
    "value where none belongs": lambda g, a: {"port": SECRET, "password": SECRET},
    "surrogates": lambda g, a: {"port": g.port, "password": f"{SECRET}\udcff"},
    "provider": lambda g, a: {"port": g.port, "credential_provider": Leaky()},
    "async provider": lambda g, a: {"port": g.port, "credential_provider": LeakyAsync()},
    "key of a certificate": lambda g, a: {
        "port": g.port, "ssl": True, "ssl_certfile": __file__, "ssl_password": SECRET
    },
}  # fmt: skip


@pytest.mark.parametrize("case", GIVEN)
async def test_no_secret_in_what_is_said_of_a_failure(guarded, ancient, case, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    given = GIVEN[case](guarded, ancient)
    shown = []
    try:
        service = RedisWorkflowService(given, resend_s=0.05)
        for call in (service.init, lambda: service.get_run("r"), lambda: service.create_run("w")):
            with pytest.raises(AskelError) as failed:
                await call()
            shown += traceback.format_exception(failed.value)
        await service.close()
    except AskelError as refused:
        shown += traceback.format_exception(refused)

    assert shown
    said = "".join(shown) + caplog.text + "".join(capsys.readouterr())
    lines = [line for line in said.splitlines() if not line.startswith("    ")]  # source lines
    assert not [line for line in lines for part in ("s3cret", "w0rd", QUOTED) if part in line]


async def test_unknown_command_is_not_repeated_with_its_arguments(guarded):
    connection = connect(guarded.url)
    with pytest.raises(AskelError, match="unknown command") as failed:
        await connection.send("NOPE", SECRET, SECRET)
    assert "s3cret" not in str(failed.value)
    await connection.close()


def test_no_secret_in_any_repr(tmp_path):
    url = f"redis://ann:{QUOTED}@127.0.0.1:1/0"
    (tmp_path / "url").write_text(url)
    shown = []
    for given in (url, f"file://{tmp_path}/url", {"port": 1, "password": SECRET}):
        service = RedisWorkflowService(given)
        blocking = SyncRedisWorkflowService(given)
        client = Client(given)
        objects = [service, service.connection, service.connection._settings, service.scripts]
        objects += [blocking, client, StreamQueue(given), *read_connection(given)]
        shown += [form(one) for one in objects for form in (repr, str)]

    assert not [text for text in shown if "s3cret" in text]


def test_no_secret_in_the_errors_of_the_blocking_service(guarded):
    with SyncRedisWorkflowService(guarded.url) as service:
        assert service.get_run("r") is None
    with (
        pytest.raises(AskelError) as failed,
        SyncRedisWorkflowService(f"redis://:{QUOTED}@127.0.0.1:{guarded.port}"),
    ):
        pass
    assert "s3cret" not in "".join(traceback.format_exception(failed.value))
    with sync_client(guarded.url) as client:
        client.flushall()
