"""What a connection may be given as, and that no secret leaves it."""

import asyncio
import shutil
import ssl
import subprocess
import traceback

import pytest
import redis
import redis.asyncio
from redis.asyncio.sentinel import Sentinel

from askel import InvalidOptionError, RedisWorkflowService, StoreUnavailableError
from askel.state import ConnectionSettings, client_of, connect
from askeld.embedded import EmbeddedServer

SECRET = "s3cret-w0rd"

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def options(server):
    return {"host": server.host, "port": server.port}


async def answer(connection, *command):
    """Send one command on a new connection."""
    try:
        return await connection.send(*(command or ("PING",)))
    finally:
        await connection.close()


async def test_url(redis_url):
    assert await answer(connect(redis_url)) == b"PONG"


async def test_mapping(options):
    assert await answer(connect(options)) == b"PONG"


async def test_client_is_copied_and_never_closed_or_used(options):
    async with redis.asyncio.Redis(**options, decode_responses=True, protocol=3) as client:
        connection = connect(client)
        assert await answer(connection, "ECHO", "ä") == "ä".encode()
        assert await client.echo("still open") == "still open"


async def test_client_with_a_pool_of_its_own(options):
    pool = redis.asyncio.BlockingConnectionPool(**options, max_connections=1)
    client = redis.asyncio.Redis(connection_pool=pool)

    assert await answer(connect(client)) == b"PONG"
    await pool.aclose()


async def test_database_is_selected(redis_url, prefix, redis):
    key = f"{prefix}:meta"
    assert await answer(connect(f"{redis_url}/3"), "SET", key, 1) == b"OK"

    assert await redis.get(key) is None
    assert await answer(connect(f"{redis_url}/3"), "GETDEL", key) == b"1"


async def test_client_name_of_the_settings_is_set(options):
    assert await answer(connect({**options, "client_name": "mine"}), "CLIENT", "GETNAME") == b"mine"


async def test_unix_socket():
    with EmbeddedServer(options={"appendonly": "no"}) as embedded:
        assert embedded.url.startswith("unix://")
        connection = connect(embedded.url)
        assert embedded.url.removeprefix("unix://") in repr(connection)
        assert await answer(connection) == b"PONG"


@pytest.fixture(scope="module")
def guarded():
    """A server that wants a password, and one from a user of its own."""
    with EmbeddedServer(port=0, options={"appendonly": "no", "requirepass": SECRET}) as server:
        with redis.Redis.from_url(server.url) as client:
            client.execute_command(
                "ACL", "SETUSER", "ann", "on", f">{SECRET}", "~*", "+@all", "-ping"
            )
        yield server


async def test_password_and_user(guarded):
    at = f"127.0.0.1:{guarded.port}"
    whoami = ("ACL", "WHOAMI")

    assert await answer(connect(f"redis://:{SECRET}@{at}"), *whoami) == b"default"
    assert await answer(connect(f"redis://ann:{SECRET}@{at}"), *whoami) == b"ann"
    assert await answer(connect({"port": guarded.port, "password": SECRET}), *whoami) == b"default"


async def test_credential_provider(guarded):
    provider = redis.UsernamePasswordCredentialProvider("ann", SECRET)
    connection = connect({"port": guarded.port, "credential_provider": provider})

    assert await answer(connection, "ACL", "WHOAMI") == b"ann"


@pytest.mark.parametrize(
    ("login", "why"), [(":wr0ng@", "WRONGPASS"), ("bob:wr0ng@", "WRONGPASS"), ("", "NOAUTH")]
)
async def test_wrong_password_is_said_clearly_and_without_the_password(guarded, login, why):
    connection = connect(f"redis://{login}127.0.0.1:{guarded.port}")

    with pytest.raises(StoreUnavailableError) as caught:
        await answer(connection)

    shown = "".join(traceback.format_exception(caught.value))
    assert f"cannot reach Redis at 127.0.0.1:{guarded.port}: {why}" in shown
    assert "wr0ng" not in shown


@pytest.mark.parametrize(
    "text", ["http://host", "localhost:6379", "", "redis://h:port", "redis://h:99999999"]
)
async def test_malformed_url_is_refused_without_repeating_it(text):
    with pytest.raises(
        InvalidOptionError, match="give a URL such as redis://host:6379/0"
    ) as caught:
        connect(text)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "given",
    [{"hosst": "x"}, {"host": "x", "nope": 1}, f"redis://:{SECRET}@127.0.0.1:6379/0?nope=1"],
    ids=["misspelt", "unknown", "in a URL"],
)
async def test_unknown_options_are_refused_at_once(given):
    with pytest.raises(
        InvalidOptionError, match="the Redis connection is not understood"
    ) as caught:
        connect(given)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_blocking_client_is_refused(options):
    with pytest.raises(
        InvalidOptionError, match=r"blocking redis\.Redis client: give a redis\.asyncio"
    ):
        connect(redis.Redis(**options))


@pytest.mark.parametrize("given", [None, 7, b"redis://x", object(), ["redis://x"]])
async def test_other_things_are_refused(given):
    with pytest.raises(InvalidOptionError, match="is no Redis connection"):
        RedisWorkflowService(given)


async def test_sentinel_client_is_refused_with_what_to_do(options):
    sentinel = Sentinel([(options["host"], options["port"])])

    with pytest.raises(
        InvalidOptionError, match="Sentinel and Cluster clients are not supported yet"
    ):
        connect(sentinel.master_for("primary"))


async def test_cluster_client_is_refused():
    cluster = redis.asyncio.RedisCluster(host="127.0.0.1", port=1)

    with pytest.raises(InvalidOptionError, match="RedisCluster is no Redis connection"):
        connect(cluster)


def test_no_secret_is_in_any_repr():
    url = f"redis://ann:{SECRET}@127.0.0.1:1/0"
    connection = connect(url)
    service = RedisWorkflowService(url)
    shown = [
        repr(connection),
        repr(connection._settings),
        str(connection),
        repr(service),
        repr(service.connection),
        repr(service.scripts),
        repr(ConnectionSettings(client_of(url).connection_pool)),
    ]

    assert not [text for text in shown if SECRET in text]
    assert repr(connection) == "<MultiplexedConnection 127.0.0.1:1>"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1, made by the openssl program."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl program to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            program,
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            folder / "key",
            "-out",
            folder / "cert",
        ],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
async def tls_port(server, certificate):
    """The port of something that speaks TLS in front of the server."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert", certificate / "key")

    async def pump(reader, writer):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
        writer.close()

    async def serve(reader, writer):
        upstream_reader, upstream_writer = await asyncio.open_connection(server.host, server.port)
        await asyncio.gather(
            pump(reader, upstream_writer), pump(upstream_reader, writer), return_exceptions=True
        )

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield listener.sockets[0].getsockname()[1]
    listener.close()


async def test_tls_with_a_verified_certificate(tls_port, certificate):
    url = f"rediss://127.0.0.1:{tls_port}?ssl_ca_certs={certificate / 'cert'}"

    assert await answer(connect(url), "ECHO", "x" * 100_000) == b"x" * 100_000


async def test_tls_with_a_certificate_that_nobody_vouches_for_is_unavailable(tls_port):
    with pytest.raises(StoreUnavailableError, match=r"(?i)certificate"):
        await answer(connect(f"rediss://127.0.0.1:{tls_port}"))
