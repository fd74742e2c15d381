"""TLS: verified unless somebody says otherwise in so many words; on a real server, and a proxy."""

import asyncio
import ssl
from contextlib import AsyncExitStack
from urllib.parse import urlencode

import pytest
import redis.asyncio
from tests.helpers.tls import Authority, tls_proxy, tls_server

from askel import (
    InvalidOptionError,
    RedisWorkflowService,
    StoreUnavailableError,
    UnknownOutcomeError,
)
from askel.state import connect

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def stranger(tmp_path):
    """An authority that signed nothing here."""
    return Authority(tmp_path / "stranger")


@pytest.fixture(params=["server", "proxy"])
async def speaking_tls(request, server, authority):
    """Return what starts something that speaks TLS with a certificate, and its port."""
    async with AsyncExitStack() as stack:

        async def start(*names, expired=False, client_certificate=False):
            certificate = authority.issue(*names, expired=expired)
            options = {"client_certificate": client_certificate}
            if request.param == "proxy":
                return await stack.enter_async_context(
                    tls_proxy(server.host, server.port, authority, certificate, **options)
                )
            port = stack.enter_context(tls_server(authority, certificate, **options))
            if port is None:
                pytest.skip("no server with TLS on PATH; the proxy stands for it")
            return port

        yield start


async def ask(connection, *command):
    try:
        return await connection.send(*(command or ("PING",)))
    finally:
        await connection.close()


def url(port, host="127.0.0.1", **query):
    return f"rediss://{host}:{port}?{urlencode(query)}"


async def test_trusted_certificate_of_the_right_host(speaking_tls, authority):
    port = await speaking_tls("127.0.0.1", "localhost")

    for host in ("127.0.0.1", "localhost"):
        connection = connect(url(port, host, ssl_ca_certs=authority.path))
        assert await ask(connection, "ECHO", "x" * 100_000) == b"x" * 100_000
    options = {"host": "localhost", "port": port, "ssl": True, "ssl_ca_certs": authority.path}
    assert await ask(connect(options)) == b"PONG"
    assert await ask(connect(redis.asyncio.Redis(**options))) == b"PONG"
    data = {**options, "ssl_ca_certs": None, "ssl_ca_data": authority.path.read_text()}
    assert await ask(connect(data)) == b"PONG"


async def test_whole_service_over_tls(speaking_tls, authority, prefix):
    port = await speaking_tls("127.0.0.1")
    where = url(port, ssl_ca_certs=authority.path)
    async with RedisWorkflowService(where, key_prefix=prefix) as service:
        run_id = await service.create_run("w", {"n": 1})
        assert (await service.get_run(run_id)).input == {"n": 1}


@pytest.mark.parametrize("query", [{}, {"ssl_ca_certs": "stranger"}], ids=["none", "another"])
async def test_authority_that_is_not_trusted(speaking_tls, stranger, query):
    port = await speaking_tls("127.0.0.1")
    if query:
        query = {"ssl_ca_certs": stranger.path}

    with pytest.raises(StoreUnavailableError) as caught:
        await ask(connect(url(port, **query)))

    assert str(caught.value).startswith(
        f"cannot reach Redis at 127.0.0.1:{port}: its certificate is not accepted: "
    )
    assert "(see ssl_ca_certs)" in str(caught.value)


async def test_expired_certificate(speaking_tls, authority):
    port = await speaking_tls("127.0.0.1", expired=True)

    with pytest.raises(StoreUnavailableError, match="certificate has expired"):
        await ask(connect(url(port, ssl_ca_certs=authority.path)))


async def test_certificate_of_another_host(speaking_tls, authority):
    port = await speaking_tls("redis.example.com")
    trusted = {"ssl_ca_certs": authority.path}

    for given in (
        url(port, **trusted),
        {"port": port, "ssl": True, **trusted},
        redis.asyncio.Redis(port=port, ssl=True, ssl_check_hostname=True, **trusted),
    ):
        with pytest.raises(StoreUnavailableError, match=r"not valid for '(127.0.0.1|localhost)'"):
            await ask(connect(given))
    named = url(port, server_hostname="redis.example.com", **trusted)
    assert await ask(connect(named)) == b"PONG"
    unchecked = url(port, ssl_check_hostname="no", **trusted)
    assert await ask(connect(unchecked)) == b"PONG"


async def test_verification_is_off_only_where_that_is_written(speaking_tls):
    port = await speaking_tls("redis.example.com", expired=True)
    off = {"ssl_cert_reqs": "none"}

    assert await ask(connect(url(port, insecure="yes", **off))) == b"PONG"
    assert await ask(connect({"port": port, "ssl": True, "insecure": True, **off})) == b"PONG"
    client = redis.asyncio.Redis(port=port, ssl=True, **off)  # its own program has chosen that
    assert await ask(connect(client)) == b"PONG"


@pytest.mark.parametrize(
    "given",
    [
        "rediss://h:1?ssl_cert_reqs=none",
        "rediss://h:1?ssl_cert_reqs=none&insecure=false",
        "rediss://h:1?ssl_cert_reqs=none&insecure=",
        {"ssl": True, "ssl_cert_reqs": "none"},
        {"ssl": True, "ssl_cert_reqs": ssl.CERT_NONE},
        {"ssl": True, "ssl_cert_reqs": "none", "insecure": False},
    ],
    ids=str,
)
def test_verification_is_not_switched_off_in_passing(given):
    with pytest.raises(InvalidOptionError, match="insecure"):
        RedisWorkflowService(given)


def test_insecure_alone_switches_nothing_off():
    context = connect("rediss://h:1?insecure=yes")._settings._tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED


async def test_server_that_wants_a_certificate_of_the_client(speaking_tls, authority, stranger):
    port = await speaking_tls("127.0.0.1", client_certificate=True)
    mine = authority.issue("me@example.com", file="client")
    foreign = stranger.issue("me@example.com", file="client")
    trusted = {"ssl_ca_certs": authority.path}

    def showing(one):
        return url(port, ssl_certfile=one.cert, ssl_keyfile=one.key, **trusted)

    assert await ask(connect(showing(mine))) == b"PONG"
    for given in (url(port, **trusted), showing(foreign)):
        with pytest.raises(StoreUnavailableError, match=f"cannot reach Redis at 127.0.0.1:{port}"):
            await ask(connect(given))


async def test_certificate_that_was_renewed_is_shown_at_the_next_connect(
    speaking_tls, authority, stranger
):
    port = await speaking_tls("127.0.0.1", client_certificate=True)
    shown = stranger.issue("me@example.com", file="client")
    connection = connect(
        url(port, ssl_ca_certs=authority.path, ssl_certfile=shown.cert, ssl_keyfile=shown.key)
    )
    with pytest.raises(StoreUnavailableError):
        await connection.send("PING")

    good = authority.issue("me@example.com", file="renewed")
    shown.cert.write_bytes(good.cert.read_bytes())
    shown.key.write_bytes(good.key.read_bytes())

    assert await connection.send("PING") == b"PONG"
    shown.key.write_bytes(b"half of a ke")  # as it is while somebody replaces it
    connection._link.break_off("of the test")
    while True:
        try:
            assert await connection.send("PING") == b"PONG"
            break
        except UnknownOutcomeError:
            continue
    assert connection.connects == 2
    await connection.close()


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
async def test_file_that_is_missing_or_none_is_a_mistake_that_names_it(tmp_path, option):
    connection = connect(url(1, **{option: tmp_path / "absent.pem"}))
    with pytest.raises(InvalidOptionError, match=r"TLS files .*absent.pem: No such file"):
        await ask(connection)

    (tmp_path / "absent.pem").write_text("no certificate")
    connection = connect(url(1, **{option: tmp_path / "absent.pem"}))
    with pytest.raises(InvalidOptionError, match="TLS files"):
        await ask(connection)


async def test_tls_and_plain_text_do_not_understand_each_other(server, speaking_tls):
    port = await speaking_tls("127.0.0.1")
    plain = connect(f"redis://127.0.0.1:{port}", timeout_s=1)
    with pytest.raises(StoreUnavailableError) as caught:
        await asyncio.wait_for(ask(plain), 5)
    assert str(caught.value).startswith(f"cannot reach Redis at 127.0.0.1:{port}: ")
    assert str(caught.value).endswith("(if this port speaks TLS, write rediss://…)")

    with pytest.raises(StoreUnavailableError, match=r"TLS|SSL"):
        await asyncio.wait_for(ask(connect(url(server.port), timeout_s=1)), 5)


def test_the_default_of_redis_py_is_not_relied_on():
    context = connect("rediss://h:1")._settings._tls_context()

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
