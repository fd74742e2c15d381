"""Fixtures of the tests in this folder."""

import pytest
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.helpers.daemon import Deployment, deployment
from tests.helpers.servers import require_binary, server_ids
from tests.helpers.state import proxy

from askeld.embedded import EmbeddedServer

__all__ = ["deployment", "proxy"]


@pytest.fixture(params=server_ids())
def any_private(request, tmp_path):
    """A server of the test's own that keeps what it acknowledged, each kind in turn."""
    options = {"appendonly": "yes", "appendfsync": "always", "enable-protected-configs": "yes"}
    binary = require_binary(request.param)
    if binary.version < (7,):
        del options["enable-protected-configs"]  # it protects none
    with EmbeddedServer(tmp_path, binary=binary, port=0, options=options) as private:
        yield private


@pytest.fixture
async def alone(any_private):
    """A deployment on it."""
    client = redis.asyncio.Redis.from_url(any_private.url, protocol=2, retry=Retry(NoBackoff(), 0))
    yield Deployment(client, any_private.url, "own")
    await client.aclose()
