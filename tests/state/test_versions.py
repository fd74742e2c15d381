"""Stored versions of workflow definitions: stored once, found exactly, never replaced."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.state import snapshot

from askel import (
    InvalidNameError,
    InvalidOptionError,
    PayloadError,
    VersionNotFoundError,
    VersionStatus,
    WorkflowVersion,
)
from askel.state import Keys, load_scripts

pytestmark = pytest.mark.usefixtures("redis_server")

GRAPH = {"nodes": {"a": {"next": []}}, "empty": {}, "big": 12345678901234567}


async def test_version_is_read_as_it_was_stored(service, redis, keys):
    assert await service.upsert_workflow_version("w", "h1", GRAPH, "dsl") is True

    version = await service.get_workflow_version("w", "h1")

    assert version == WorkflowVersion(
        "w", "h1", GRAPH, "dsl", VersionStatus.ACTIVE, version.created_at
    )
    assert version.status == "active"
    fields = await redis.hgetall(keys.version("w", "h1"))
    assert {name.decode(): value for name, value in fields.items()} == {
        "workflowName": b"w",
        "graphHash": b"h1",
        "graph": b'{"nodes":{"a":{"next":[]}},"empty":{},"big":12345678901234567}',
        "source": b"dsl",
        "status": b"active",
        "createdAt": b"%d" % round(version.created_at.timestamp() * 1_000),
    }


async def test_second_upsert_changes_nothing(service, redis, prefix):
    await service.upsert_workflow_version("w", "h", GRAPH, "dsl", "draft")
    before = await snapshot(redis, prefix)

    assert await service.upsert_workflow_version("w", "h", GRAPH, "dsl", "draft") is False
    assert await service.upsert_workflow_version("w", "h", {"other": 1}, "graph") is False
    assert await snapshot(redis, prefix) == before


async def test_of_many_callers_exactly_one_stores(service):
    stored = await asyncio.gather(
        *(service.upsert_workflow_version("w", "h", number, "dsl") for number in range(20))
    )

    assert stored.count(True) == 1
    assert (await service.get_workflow_version("w", "h")).graph == stored.index(True)


async def test_status_moves_and_repeats(service, redis, prefix):
    await service.upsert_workflow_version("w", "h", GRAPH, "dsl", VersionStatus.DRAFT)

    await service.update_workflow_version_status("w", "h", "declined")
    before = await snapshot(redis, prefix)
    await service.update_workflow_version_status("w", "h", VersionStatus.DECLINED)

    version = await service.get_workflow_version("w", "h")
    assert (version.status, version.graph) == ("declined", GRAPH)
    assert await snapshot(redis, prefix) == before


async def test_missing_version_cannot_be_moved_and_nothing_is_written(service, redis, prefix):
    with pytest.raises(VersionNotFoundError, match="'w' has no stored version 'h'"):
        await service.update_workflow_version_status("w", "h", "active")

    assert await service.get_workflow_version("w", "h") is None
    assert await snapshot(redis, prefix) == {}
    assert await service.upsert_workflow_version("w", "h", GRAPH, "dsl")
    assert (await service.get_workflow_version("w", "h")).graph == GRAPH


async def test_status_that_the_node_service_left_without_a_graph_is_no_version(
    service, redis, keys
):
    await redis.hset(keys.version("w", "h"), "status", "declined")

    assert await service.get_workflow_version("w", "h") is None
    with pytest.raises(VersionNotFoundError):
        await service.update_workflow_version_status("w", "h", "active")
    assert await service.upsert_workflow_version("w", "h", GRAPH, "dsl")
    assert (await service.get_workflow_version("w", "h")).status == "active"


async def test_pairs_do_not_meet(service):
    pairs = [("a", "b:c"), ("a:b", "c"), ("a%3Ab", "c"), ("a", "b%3Ac"), ("a:b:c", "x"), ("a", "b")]
    for number, (name, graph_hash) in enumerate(pairs):
        assert await service.upsert_workflow_version(name, graph_hash, number, "dsl")

    for number, pair in enumerate(pairs):
        version = await service.get_workflow_version(*pair)
        assert (version.graph, version.workflow_name, version.graph_hash) == (number, *pair)


async def test_lost_reply_of_an_upsert_is_asked_for_again(distant, proxy, redis):
    script = load_scripts()["upsert_version"]
    await redis.script_load(script.body)
    rule = proxy.lose_next_reply(script.sha.encode())

    assert await distant.upsert_workflow_version("w", "h", GRAPH, "dsl") is True
    assert rule.hits == 1
    assert await distant.upsert_workflow_version("w", "h", GRAPH, "dsl") is False


@pytest.mark.parametrize(
    ("given_", "error"),
    [
        (("", "h", 1, "dsl"), InvalidNameError),
        (("w", "h\n", 1, "dsl"), InvalidNameError),
        (("w", "h", float("nan"), "dsl"), PayloadError),
        (("w", "h", 1, ""), InvalidNameError),
        (("w", "h", 1, "dsl", "banana"), InvalidOptionError),
    ],
)
async def test_what_makes_no_sense_is_refused(service, redis, prefix, given_, error):
    with pytest.raises(error):
        await service.upsert_workflow_version(*given_)
    assert await snapshot(redis, prefix) == {}


NAMES = st.text(st.sampled_from(":%3A25ab "), min_size=1, max_size=6)


@given(st.tuples(NAMES, NAMES), st.tuples(NAMES, NAMES))
def test_keys_of_versions_are_injective(one, another):
    keys = Keys("p")

    assert (keys.version(*one) == keys.version(*another)) == (one == another)


def test_ordinary_names_stay_as_the_node_service_writes_them():
    assert Keys("p").version("my workflow", "a1b2") == "p:version:my workflow:a1b2"
