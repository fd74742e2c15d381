"""What a connection may be given as, and that no secret leaves it."""

import asyncio
import socket
import traceback

import pytest
import redis
import redis.asyncio
import redis.sentinel
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

from askel import InvalidOptionError, RedisWorkflowService, StoreUnavailableError
from askel.state import ConnectionSettings, connect
from askel.state.store.addresses import read_connection
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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("redis://h:1/one", "number of a database"),
        ("redis://h:1/1/2", "number of a database"),
        ("redis://h:1?db=x", "not understood"),
        ({"db": "x"}, "number of a database"),
        ({"db": -1}, "number of a database"),
        ({"hosst": "x"}, r"there is no option hosst, did you mean host\?"),
        ("redis://h:1?pasword_file=/x", "no option pasword_file, did you mean password_file"),
        ({"nope": 1}, r"there is no option nope\)"),
        ({"ssl_ca_certs": "/x"}, "ssl_ca_certs is given without ssl=True: nothing would be encr"),
        ({"server_hostname": "x"}, "server_hostname is for TLS"),
        ("redis://h:1?server_hostname=x", "server_hostname is for TLS"),
        ("redis://h:1?ssl_cert_reqs=none", "ssl_cert_reqs is for connections with TLS"),
        ("rediss://h:1?ssl_cert_reqs=perhaps", "not understood"),
        ({"redis_connect_func": print}, "redis_connect_func cannot be honoured"),
        ({"password": "x", "password_file": "/x"}, "password_file stands beside another password"),
        ({"password_file": 7}, "password_file must be text"),
        ({"protocol": 9}, "not understood"),
        ("file://host/path", "file:///path"),
        ("file:///does/not/exist", "cannot read /does/not/exist: No such file"),
    ],
)
async def test_what_contradicts_itself_is_refused_with_what_is_wrong(given, said):
    with pytest.raises(InvalidOptionError, match=said) as caught:
        connect(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"protocol": 3},
        {"decode_responses": True, "encoding": "latin-1"},
        {"max_connections": 1, "single_connection_client": True},
        {"retry": Retry(NoBackoff(), 9), "health_check_interval": 1},
        {"socket_timeout": 0.000001},
        {"socket_keepalive": True, "socket_keepalive_options": {}},
        {"socket_keepalive": False},
    ],
    ids=lambda options: next(iter(options)),
)
async def test_options_of_redis_py_that_mean_nothing_here_do_no_harm(server, options):
    connection = connect({"host": server.host, "port": server.port, **options})
    assert await answer(connection, "HGETALL", "none") == []


async def test_keepalive_is_switched_on_as_the_settings_say(options):
    for wanted in (True, False):
        connection = connect({**options, "socket_keepalive": wanted})
        await connection.send("PING")
        sock = connection._link._transport.get_extra_info("socket")
        assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is wanted
        await connection.close()


async def test_shorter_connect_timeout_is_honoured(options):
    """A listener that accepts nothing any more: its backlog is full, or it never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = connect(
            {"port": silent.getsockname()[1], "socket_connect_timeout": 0.05}, timeout_s=30
        )
        with pytest.raises(StoreUnavailableError, match=r"localhost:\d+: no answer in time"):
            await asyncio.wait_for(connection.send("PING"), 10)
        await connection.close()


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        ("redis://no-such-host.invalid:6379", "no-such-host.invalid:6379"),
        ("redis://[::1]:1", "[::1]:1"),
    ],
)
async def test_host_that_cannot_be_found_or_reached_is_named(where, shown):
    with pytest.raises(StoreUnavailableError) as caught:
        await answer(connect(where))
    assert str(caught.value).startswith(f"cannot reach Redis at {shown}: ")


async def test_socket_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(StoreUnavailableError, match=f"at unix:{tmp_path}/none: .*No such file"):
        await answer(connect(f"unix://{tmp_path}/none"))


@pytest.mark.parametrize(
    "client",
    [
        redis.Redis(),
        redis.sentinel.Sentinel([("127.0.0.1", 1)]),
        redis.sentinel.Sentinel([("127.0.0.1", 1)]).master_for("primary"),
    ],
    ids=["client", "sentinel", "client of a sentinel"],
)
async def test_blocking_client_is_refused(client):
    with pytest.raises(
        InvalidOptionError, match=r"blocking redis\.\w+ client: give a redis\.asyncio"
    ):
        connect(client)


@pytest.mark.parametrize("given", [None, 7, b"redis://x", object(), ["redis://x"]])
async def test_other_things_are_refused(given):
    with pytest.raises(InvalidOptionError, match="is no Redis connection"):
        RedisWorkflowService(given)


async def test_what_cannot_be_followed_is_refused_with_what_to_do():
    sentinel = Sentinel([("127.0.0.1", 1)])
    for client, said in (
        (sentinel, r"names no primary yet: give the client that its master_for\(name\) returns"),
        (sentinel.slave_for("primary"), "reads from replicas: give the one of Sentinel.master_for"),
        (
            redis.asyncio.RedisCluster(host="127.0.0.1", port=1),
            "Cluster clients are not supported yet: give the primary's URL",
        ),
    ):
        with pytest.raises(InvalidOptionError, match=said):
            connect(client)


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
        repr(ConnectionSettings(read_connection(url)[0])),
        repr(read_connection(url)[1]),
    ]

    assert not [text for text in shown if SECRET in text]
    assert repr(connection) == "<MultiplexedConnection 127.0.0.1:1>"
