"""The benchmark `state` counts right, and says what it could not measure."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import memory, peer
from benchmarks.crowd import fill, template
from benchmarks.figures import Measured, SkippedError, Value
from benchmarks.payloads import Payloads
from benchmarks.registry import Benchmark, Ratio, Scenario
from benchmarks.relay import relay
from benchmarks.report import plain, tables
from benchmarks.rounds import Plan, measure
from benchmarks.servers import find_binary, private_server
from tests.helpers.node import NodeMissingError, is_required, node_modules

from askel import RedisWorkflowService
from askel.state import connect

ROOT = Path(__file__).resolve().parents[2]
BY_NODE = {"lifecycle-node", "memory-node", "memory-node-recommended", "reads-node"}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmarks") / "out.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "state"]
    command += ["--json", str(path)]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(path.read_text())


@pytest.fixture
def state(result):
    return result["benchmarks"]["state"]


@pytest.fixture(scope="module")
def has_node():
    try:
        node_modules()
    except NodeMissingError:
        if is_required():
            raise
        return False
    return True


@pytest.fixture
def own_url():
    with private_server(find_binary(None)) as url:
        yield url


@pytest.mark.timeout(120)
def test_both_systems_are_measured_or_the_lack_is_told(state, has_node):
    expected = set() if has_node else BY_NODE
    assert set(state["skipped"]) == expected
    assert all("Node" in reason for reason in state["skipped"].values())
    assert {"lifecycle-calls", "memory-askel", "reads-askel"} <= set(state["scenarios"])


def test_versions_of_the_peer_are_told(result):
    assert result["versions"]["@pikku/redis"] == "0.12.18"
    assert {"@pikku/core", "ioredis", "node"} <= result["versions"].keys()


def test_every_write_and_every_read_is_one_round_trip(state):
    counted = state["scenarios"]["round-trips"]["figures"]
    assert {"create_run", "get_run_history", "list_runs", "delete_run"} <= counted.keys()
    assert {name: one["median"] for name, one in counted.items()} == dict.fromkeys(counted, 1)


def test_lifecycle_has_as_many_scripts_as_writes(state):
    scenarios = state["scenarios"]
    assert scenarios["lifecycle-calls"]["figures"]["evalsha"]["median"] == 42
    assert scenarios["lifecycle-transaction"]["figures"]["evalsha"]["median"] == 12


def test_memory_is_measured_by_kind(state):
    figures = state["scenarios"]["memory-askel"]["figures"]
    kinds = [one["median"] for name, one in figures.items() if name.startswith("of_")]
    assert {"of_run", "of_step", "of_history", "of_runs", "of_events"} <= figures.keys()
    assert sum(kinds) == pytest.approx(figures["memory_usage"]["median"], rel=1e-2)


def test_memory_is_less_than_the_peers(state, has_node):
    """Bytes depend on no neighbour: what the project promises is held here."""
    if not has_node:
        pytest.skip("no Node on this machine: the peer's memory is not known")
    ratios = state["ratios"]
    assert ratios["used memory, askel per Node, default settings"]["median"] <= 0.8
    assert ratios["used memory, askel recommended per Node default"]["median"] <= 0.45


async def test_copy_of_a_run_is_a_run(own_url):
    control = connect(own_url)
    async with RedisWorkflowService(own_url) as service:
        original = await service.create_run("w", {"a": 1})
        step = await service.insert_step_state(original, "a:b", "f", {"n": 1})
        await service.set_step_result(step.step_id, 2)
        await service.update_run_status(original, "completed", "end")

        await fill([await template(control, "workflows", original)], ["copy-1", "copy-2"])

        page = await service.list_runs(workflow_name="w", status="completed")
        assert [run.id for run in page.runs] == [original, "copy-1", "copy-2"]
        history = await service.get_run_history("copy-2")
        assert [(one.step_name, one.result) for one in history] == [("a:b", 2)]
        assert history[0].step_id == step.step_id.replace(original, "copy-2")
        assert await service.delete_run("copy-1")
        assert (await service.get_run("copy-2")).output == "end"
    left = {key.decode() for key in (await control.send("KEYS", "*copy-1*"))}
    await control.close()
    assert left == set()


async def test_relay_counts_waits_not_commands(own_url):
    port = int(own_url.rsplit(":", 1)[1])
    async with relay(port) as (counter, through):
        connection = connect(through)
        await connection.send("PING")
        before = counter.round_trips
        first, second = connection.send("PING"), connection.send("GET", "a")
        await first, await second
        assert counter.round_trips == before + 1
        await connection.send("PING")
        assert counter.round_trips == before + 2
        await connection.close()


def test_payloads_have_their_size_and_differ():
    made = Payloads(100).values
    texts = {json.dumps(one, separators=(",", ":")) for one in made}
    assert {len(text) for text in texts} == {100}
    assert len(texts) == len(made)


async def test_driver_that_cannot_run_is_a_skip(monkeypatch):
    def missing():
        raise NodeMissingError("no node on PATH")

    monkeypatch.setattr(peer, "_driver", missing)
    with pytest.raises(SkippedError, match="no node on PATH"):
        await peer.drive([], mode="lifecycles")


async def test_skip_is_shown_and_costs_no_other_scenario(redis_url):
    async def lacking(_):
        raise SkippedError("no such thing here")

    async def measured(_):
        return Measured({"per_second": Value(2, "calls/s")}, {})

    scenarios = [Scenario("a", "", {}, lacking), Scenario("b", "", {}, measured, most_rounds=1)]
    ratio = Ratio("a per b", ("a", "per_second"), ("b", "per_second"))
    benchmark = Benchmark("x", "a line", lambda quick: scenarios, (ratio,))
    told = []

    report = await measure(benchmark, Plan(redis_url, b"null", 3, quick=True), told.append)

    assert report.skipped == {"a": "no such thing here"}
    assert report.ratios == {}
    assert report.scenarios["b"].figures["per_second"].rounds == [2]
    assert "a is SKIPPED: no such thing here" in told
    assert "no such thing here" in "\n".join(plain(table) for table in tables("x", report))


async def test_memory_needs_a_server_of_its_own(redis_url):
    scenario = Scenario(
        "m", "", {}, lambda arena: memory.memory(arena, system="askel", recommended=True, runs=1)
    )
    benchmark = Benchmark("x", "a line", lambda quick: [scenario])

    report = await measure(benchmark, Plan(redis_url, b"null", 1, quick=True), lambda line: None)

    assert "--redis" in report.skipped["m"]
