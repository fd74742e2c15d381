"""The fixtures give real servers, one of each per process, and say loudly which one is missing."""

import re

import pytest
from tests.helpers import servers
from tests.helpers.servers import RunningServer, ServerPool, available_servers, server_ids

seen = set()


async def test_every_server_is_what_its_name_says(redis_server, redis, prefix):
    info = await redis.info("server")
    version = info.get("valkey_version", info["redis_version"])
    name, _, wanted = redis_server.id.removesuffix("-path").partition("-")
    assert info.get("server_name", "redis") == name
    assert version.split(".")[: wanted.count(".") + 1] == wanted.split(".")
    assert info["tcp_port"] == redis_server.port
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", prefix)


def test_a_server_is_started_once(server, any_server, server_pool):
    assert any_server is server
    assert server_pool.get(server.id) == server
    assert server.id == available_servers()[0]


@pytest.mark.parametrize("run", [1, 2])
def test_prefixes_name_the_test_and_never_repeat(prefix, run):
    assert prefix.startswith("t:test_prefixes_name_the_test_and_never_re")
    assert prefix not in seen
    seen.add(prefix)


def test_the_ids_include_what_this_machine_may_lack():
    assert {"valkey-9", "redis-6.2"} < set(server_ids())
    assert set(available_servers()) <= set(server_ids())


@pytest.mark.parametrize(("value", "outcome"), [("", "Skipped"), ("1", "Failed")])
def test_a_missing_server_is_loud(monkeypatch, value, outcome):
    monkeypatch.setenv(servers.REQUIRE_ALL, value)
    monkeypatch.setattr(servers, "server_binary", lambda server_id: None)
    with pytest.raises(BaseException, match=r"no redis-6\.2 on this machine: pip") as caught:
        ServerPool().get("redis-6.2")
    assert type(caught.value).__name__ == outcome


def test_a_shared_server_that_ended_fails_the_next_test_only(server):
    pool = ServerPool()
    try:
        assert isinstance(pool.get(server.id), RunningServer)
        pool._servers[server.id]._process.kill()
        pool._servers[server.id]._process.wait()
        with pytest.raises(BaseException, match="ended by itself"):
            pool.get(server.id)
        assert pool.get(server.id).port
    finally:
        pool.stop()
