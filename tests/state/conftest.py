"""Fixtures of the tests in this folder, and the second run of the suite: on the blocking service.

A test that takes `service` runs once more, on one server, with `SyncRedisWorkflowService` behind
the same face. `@pytest.mark.awaited_only` is for what has no meaning there, such as the
cancellation of a body; tests that reach inside (`monkeypatch`), or break the network on the way of
another service (`distant`), are about the async one, too.
"""

import pytest
from tests.helpers.blocking import AwaitedBlockingService
from tests.helpers.servers import server_ids
from tests.helpers.state import distant, keys, proxy

from askel import RedisWorkflowService

__all__ = ["distant", "keys", "proxy"]

SERVICES = {"awaited": RedisWorkflowService, "blocking": AwaitedBlockingService}


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "awaited_only: the test means nothing to the blocking service"
    )


def pytest_generate_tests(metafunc):
    names = set(metafunc.fixturenames)
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    inside = names & {"monkeypatch", "distant"} or "awaited_only" in marks
    if {"service", "flavour"} <= names and not inside:
        metafunc.parametrize("flavour", list(SERVICES), indirect=True)


def pytest_collection_modifyitems(items):
    """Keep the second run to one server: what differs between servers is tested by the first."""
    items[:] = [item for item in items if not _is_repeated(getattr(item, "callspec", None))]


def _is_repeated(spec):
    return (
        spec is not None
        and spec.params.get("flavour") == "blocking"
        and spec.params.get("redis_server", server_ids()[0]) != server_ids()[0]
    )


@pytest.fixture
def flavour(request):
    return getattr(request, "param", "awaited")


@pytest.fixture
async def service(flavour, redis_url, prefix):
    """A state service of the test's own server and prefix, closed at the end."""
    service = SERVICES[flavour](redis_url, key_prefix=prefix)
    yield service
    await service.close()
