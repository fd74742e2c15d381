"""How a primary that Sentinel looks after is named, and what is said of mistakes."""

import pytest
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import Sentinel

from askel import InvalidOptionError, RedisWorkflowService, StoreAccessError, StoreUnavailableError
from askel.state import connect
from askel.state.store.addresses import read_connection
from askeld.embedded import EmbeddedServer

SECRET = "s3cret-w0rd"
URL = "redis+sentinel://h1:26380,h2/orders"


@pytest.mark.parametrize(
    ("given", "sentinels", "db"),
    [
        (URL, (("h1", 26380), ("h2", 26379)), 0),
        (f"{URL}/3", (("h1", 26380), ("h2", 26379)), 3),
        ("redis+sentinel://ann:p%40@[::1]:7,[::2]/orders", (("::1", 7), ("::2", 26379)), 0),
        ({"sentinels": "h1:7,h2", "master": "orders"}, (("h1", 7), ("h2", 26379)), 0),
        ({"sentinels": [("h1", 7), "h2"], "master": "orders"}, (("h1", 7), ("h2", 26379)), 0),
        (Sentinel([("h1", 7), ("h2", 8)]).master_for("orders"), (("h1", 7), ("h2", 8)), 0),
        (Sentinel([("h1", 7)]).master_for("orders", db=2), (("h1", 7),), 2),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_forms(given, sentinels, db):
    pool, own = read_connection(given)
    assert (own.sentinel.master, own.sentinel.sentinels) == ("orders", sentinels)
    assert pool.connection_kwargs.get("db", 0) == db
    assert "'orders' (sentinels" in repr(connect(given))


def test_credentials_of_primary_and_sentinels_are_apart():
    url = "redis+sentinel://ann:one@h/orders?sentinel_username=eve&sentinel_password=two"
    kept = {"username": "eve", "password": "two"}
    pool, own = read_connection(url)
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["password"]) == (
        "ann",
        "one",
    )
    assert own.sentinel.parameters == kept

    client = Sentinel([("h", 1)], sentinel_kwargs=kept).master_for("orders", password="one")
    pool, own = read_connection(client)
    assert pool.connection_kwargs["password"] == "one"
    assert {name: own.sentinel.parameters[name] for name in kept} == kept


def test_tls_is_for_both():
    pool, own = read_connection("rediss+sentinel://h/orders?ssl_ca_certs=/ca.pem")
    for one in (pool, own.sentinel.pool("h", 26379)):
        assert issubclass(one.connection_class, SSLConnection)
        assert one.connection_kwargs["ssl_ca_certs"] == "/ca.pem"
        assert one.connection_kwargs["ssl_check_hostname"] is True


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("redis+sentinel://h1:26379", r"write redis\+sentinel://h1:26379,h2:26379/MASTER"),
        ("redis+sentinel:///orders", r"write redis\+sentinel://"),
        ("redis+sentinel://h/orders/one", r"write redis\+sentinel://"),
        ("redis+sentinel://h:x/orders", "sentinels is a list of host:port"),
        ("redis+sentinel://h:99999/orders", "sentinels is a list of host:port"),
        ("redis+sentinel://h,,i/orders", "sentinels is a list of host:port"),
        ("redis+sentinel://h/orders?nope=1", "there is no option nope"),
        ("redis+sentinel://h/orders?ssl_ca_certs=/x", "for connections with TLS"),
        ("redis://h/0?master=orders", r"master is about Sentinel: write redis\+sentinel://"),
        ({"master": "orders"}, "master is about Sentinel: give sentinels"),
        ({"sentinels": ["h"]}, "sentinels is about Sentinel: give sentinels.*and master"),
        ({"sentinels": ["h"], "master": "m", "host": "h"}, "host and port stand beside sentinels"),
        ({"sentinels": [7], "master": "m"}, "sentinels is a list of host:port"),
        ({"sentinels": ["h"], "master": 7}, "master must be text"),
        (
            {"sentinels": "h", "master": "m", "sentinel_password_file": "/none"},
            "sentinel_password_file: cannot read /none",
        ),
        (
            {
                "sentinels": "h",
                "master": "m",
                "sentinel_password_file": "/",
                "sentinel_password": 1,
            },
            "stands beside sentinel_password",
        ),
    ],
)
def test_mistakes_are_told_at_once(given, said):
    with pytest.raises(InvalidOptionError, match=said) as caught:
        connect(given)
    assert "\n" not in str(caught.value)


def test_no_secret_is_shown(tmp_path):
    url = f"redis+sentinel://ann:{SECRET}1@h/orders?sentinel_password={SECRET}2"
    service = RedisWorkflowService(url)
    _, own = read_connection(url)
    shown = [repr(item) for item in (service, service.connection, own, own.sentinel)]
    with pytest.raises(InvalidOptionError) as caught:
        connect(url.replace("/orders", ""))
    assert SECRET not in str([*shown, caught.value])


async def test_sentinels_that_do_not_answer_are_named():
    connection = connect("redis+sentinel://127.0.0.1:1,127.0.0.1:2/orders")
    with pytest.raises(StoreUnavailableError) as caught:
        await connection.send("PING")
    await connection.close()
    text = str(caught.value)
    assert text.startswith(
        "cannot reach Redis at 'orders' (sentinels 127.0.0.1:1, 127.0.0.1:2): no sentinel tells"
    )


async def test_a_server_in_the_place_of_a_sentinel_is_named(server):
    connection = connect(f"redis+sentinel://127.0.0.1:{server.port}/orders")
    with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{server.port} is no sentinel"):
        await connection.send("PING")
    await connection.close()


async def test_sentinels_that_refuse_the_login_are_not_asked_again_and_again():
    with EmbeddedServer(port=0, options={"requirepass": SECRET, "appendonly": "no"}) as locked:
        connection = connect(f"redis+sentinel://127.0.0.1:{locked.port}/orders")
        with pytest.raises(StoreAccessError, match=r"NOAUTH .*sentinel_username") as caught:
            await connection.send("PING")
        await connection.close()
    assert SECRET not in str(caught.value)


async def test_the_url_may_stand_in_a_file_but_not_turn_into_another_kind(tmp_path):
    path = tmp_path / "url"
    path.write_text("redis+sentinel://127.0.0.1:1/orders\n")
    connection = connect(f"file://{path}")
    with pytest.raises(StoreUnavailableError, match="'orders'"):
        await connection.send("PING")
    path.write_text("redis+sentinel://127.0.0.1:2/other\n")
    with pytest.raises(StoreUnavailableError, match=r"'other' \(sentinels 127\.0\.0\.1:2\)"):
        await connection.send("PING")
    path.write_text("redis://127.0.0.1:1\n")
    with pytest.raises(StoreUnavailableError, match="start this process again"):
        await connection.send("PING")
    await connection.close()
