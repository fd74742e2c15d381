"""Fixtures for all tests: servers, a prefix and a client of one's own, the key-leak checker.

A test takes `server` (one server, the fastest there is) or `redis_server` (it runs once per known
server; for a whole module: `pytestmark = pytest.mark.usefixtures("redis_server")`). `redis_url`,
`redis` and the leak checker follow that choice.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.helpers.keys import delete_all, describe, find_leaks, sync_client
from tests.helpers.servers import RunningServer, ServerPool, available_servers, server_ids

SERVER_FIXTURES = frozenset({"server", "any_server", "redis_server", "redis_url", "redis"})
_failed = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks that the fixtures here read."""
    config.addinivalue_line(
        "markers",
        "allow_keys(*patterns): regular expressions of whole keys that the test may leave in the"
        " server although they are not documented ones under its prefix",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Remember a failure: what a failed test leaves behind is no finding."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio, which redis-py needs."""
    return "asyncio"


@pytest.fixture(scope="session")
def server_pool() -> Iterator[ServerPool]:
    """Provide the shared servers of this pytest process."""
    pool = ServerPool()
    yield pool
    pool.stop()


@pytest.fixture(params=server_ids())
def redis_server(request: pytest.FixtureRequest, server_pool: ServerPool) -> RunningServer:
    """Run the test on each known server; a machine that lacks one shows a skip with the reason."""
    return server_pool.get(request.param)


@pytest.fixture
def server(server_pool: ServerPool) -> RunningServer:
    """Provide one server: the fastest that this machine has."""
    return server_pool.get(next(iter(available_servers()), "valkey-9"))


@pytest.fixture
def any_server(server: RunningServer) -> RunningServer:
    """Provide the same as `server`."""
    return server


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """The address of the test's server: `redis_server` where the test uses that, else `server`."""
    return _chosen_server(request).url


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A key prefix that no other test has; it tells which test a stray key belongs to."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", request.node.name)[:40]
    return f"t:{name}:{uuid.uuid4().hex[:12]}"


@pytest.fixture(name="redis")
async def redis_client(redis_url: str, anyio_backend: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client for looking and for arranging: no retries, no decoding, RESP2."""
    client = redis.asyncio.Redis.from_url(
        redis_url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=20
    )
    yield client
    await client.aclose()


@pytest.fixture(autouse=True)
def key_leak_checker(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves undocumented, foreign or immortal lock keys; delete what it left.

    It looks after tests that use `prefix` and a shared server, when all their other fixtures are
    torn down; at a private server a test looks itself (`tests.helpers.keys.find_leaks`).
    """
    names = set(request.fixturenames)
    if "prefix" not in names or not names & SERVER_FIXTURES:
        yield
        return
    prefix = request.getfixturevalue("prefix")
    url = _chosen_server(request).url
    yield
    allowed = [one for mark in request.node.iter_markers("allow_keys") for one in mark.args]
    with sync_client(url) as client:
        leaks = find_leaks(client, prefix, allowed)
        delete_all(client)
    if leaks and not request.node.stash.get(_failed, False):
        pytest.fail(describe(leaks), pytrace=False)


def _chosen_server(request: pytest.FixtureRequest) -> RunningServer:
    every = "redis_server" in request.fixturenames
    return request.getfixturevalue("redis_server" if every else "server")
