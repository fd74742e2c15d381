"""Fixtures of the tests in this folder: askel and the npm package on one Redis and one prefix."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.helpers.node import REQUIRE_NODE, NodeMissingError, is_required
from tests.helpers.pikku import NodeProcess, Pikku
from tests.helpers.state import keys

from askel import RedisWorkflowService

__all__ = ["keys"]


@pytest.fixture(scope="session")
def node() -> Iterator[NodeProcess]:
    """The driver process, one per pytest process; without Node the tests skip, or fail in CI."""
    try:
        process = NodeProcess()
    except NodeMissingError as error:
        if is_required():
            pytest.fail(f"{error} ({REQUIRE_NODE} or CI is set)", pytrace=False)
        pytest.skip(f"interop with the Node system is NOT tested: {error}")
    yield process
    process.stop()


@pytest.fixture
async def pikku(node: NodeProcess, redis_url: str, prefix: str) -> AsyncIterator[Pikku]:
    """The original's services on the test's server and prefix."""
    pikku = Pikku(node, redis_url, prefix)
    yield pikku
    await pikku.close()


@pytest.fixture
async def service(redis_url: str, prefix: str) -> AsyncIterator[RedisWorkflowService]:
    """The state service in compat mode."""
    service = RedisWorkflowService(redis_url, key_prefix=prefix, compat="pikku")
    yield service
    await service.close()
