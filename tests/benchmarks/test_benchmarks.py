"""The benchmarks measure, count right and say so; what they measure is asserted nowhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.arena import arena
from benchmarks.command import main
from benchmarks.figures import CommandCost, Measured, Value, command_costs, figure, percentile
from benchmarks.registry import Benchmark, Ratio, Scenario, find_benchmarks
from benchmarks.report import plain, tables
from benchmarks.rounds import Plan, measure
from benchmarks.server_stats import parse_stats, server_values
from tests.helpers.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
OWNER = """
import anyio, sys
from benchmarks.process import worker

async def main():
    async with worker(sys.argv[1], sys.argv[2]):
        print("ready", flush=True)
        await anyio.sleep(60)

anyio.run(main)
"""
WORKFLOWS = ("workflow-1", "workflow-50", "workflow-200", "queued-workflow-50")
INFO = """\
# CPU
used_cpu_sys:1.5
used_cpu_user:2.25
used_cpu_sys_children:9.0
# Stats
total_connections_received:{connections}
total_net_input_bytes:1000
total_net_output_bytes:2000
# Memory
used_memory:500
# Commandstats
cmdstat_evalsha:calls={evalsha},usec={usec},usec_per_call=1.00,rejected_calls=0,failed_calls=0
cmdstat_client|setname:calls=1,usec=2,usec_per_call=2.00
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmarks") / "out.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "hot-path"]
    command += ["--json", str(path)]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=55, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "floor-commit" in ended.stdout
    return json.loads(path.read_text())


@pytest.fixture
def hot_path(result):
    return result["benchmarks"]["hot-path"]


def test_result_says_on_what_it_was_measured(result):
    assert result["schema"] == 1
    assert result["date"].endswith("+00:00")
    assert result["machine"]["cpus"] >= 1
    assert len(result["machine"]["load_before"]) == len(result["machine"]["load_after"]) == 3
    assert {"redis-py", "hiredis", "msgspec", "uvloop"} <= result["versions"].keys()
    assert result["server"]["kind"] in {"redis", "valkey"}
    assert (result["server"]["append_only"], result["server"]["fsync"]) == (False, None)
    assert result["settings"] == {"rounds": 1, "quick": True, "payload_bytes": 200}


def test_every_figure_has_unit_and_range(result, hot_path):
    groups = [scenario["figures"] for scenario in hot_path["scenarios"].values()]
    for one in (one for group in [*groups, hot_path["ratios"]] for one in group.values()):
        assert one["unit"]
        assert one["min"] <= one["median"] <= one["max"]
        assert len(one["rounds"]) == result["settings"]["rounds"]


def test_all_work_was_done_once(hot_path):
    scenarios = hot_path["scenarios"]
    for name in WORKFLOWS:
        counts, settings = scenarios[name]["counts"], scenarios[name]["settings"]
        assert counts["runs"] == counts["completed"] == settings["runs"]
        assert counts["begun"] == counts["steps"] == 10 * counts["runs"]
        assert counts["failed"] == counts["lost"] == counts["dead"] == 0
    counts, settings = scenarios["step-execute"]["counts"], scenarios["step-execute"]["settings"]
    assert counts["steps"] == settings["runs"] * settings["steps"]


def test_round_trips_and_rates_fit_together(hot_path):
    scenarios = hot_path["scenarios"]
    for name in WORKFLOWS:
        figures = scenarios[name]["figures"]
        steps, runs = figures["steps_per_second"], figures["workflows_per_second"]
        assert steps["median"] == pytest.approx(10 * runs["median"], rel=1e-3)
        assert figures["p50"]["median"] <= figures["p99"]["median"]
    evalsha = {name: one["figures"].get("evalsha") for name, one in scenarios.items()}
    assert evalsha["floor-commit"]["median"] == 1
    assert evalsha["floor-step-command"]["median"] == 2
    assert evalsha["step-execute"]["median"] >= 2
    # One round trip a step; the start, the end and the odd look at the timers are shared by ten.
    assert 1 <= evalsha["workflow-50"]["median"] < 1.5


def test_ratio_is_that_of_the_figures(hot_path):
    scenarios = hot_path["scenarios"]
    above = scenarios["workflow-50"]["figures"]["steps_per_second"]["median"]
    below = scenarios["floor-commit"]["figures"]["per_second"]["median"]

    ratio = hot_path["ratios"]["workflow-50 steps per commit"]

    assert ratio["unit"] == "×"
    assert ratio["median"] == pytest.approx(above / below, rel=2e-3)


def test_registry_finds_the_files_of_suites():
    assert find_benchmarks()["hot-path"].line


def test_list_names_every_benchmark(capsys):
    assert main(["--list"]) == 0
    assert "hot-path" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--only", "hot-pat"], 2, "no benchmark 'hot-pat'; there is: hot-path"),
        (["--server", "/nowhere"], 1, "no server '/nowhere': give 'path', 'valkey', 'redis-6.2'"),
        (["--redis", "redis://127.0.0.1:1"], 1, "cannot reach Redis"),
    ],
)
def test_mistake_is_told_in_one_line(arguments, code, said, capsys):
    assert main(arguments) == code
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--redis", "x", "--server", "y"]])
def test_wrong_usage_exits_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


async def test_arena_deletes_its_own_keys_only(redis_url, redis, prefix):
    await redis.set(f"{prefix}:commands", "foreign")
    async with arena(redis_url, b'"x"') as place:
        await place.create_group()
        await place.fill(["a", "b"], 3)
        entries = await place.read("me", 6)
        mine = place.keys.prefix
        assert {key async for key in redis.scan_iter(f"{mine}:*")}

    assert [entry.fields[5] for entry in entries[::2]] == [b"step 1", b"step 2", b"step 3"]
    assert not [key async for key in redis.scan_iter(f"{mine}:*")]
    assert await redis.get(f"{prefix}:commands") == b"foreign"
    await redis.delete(f"{prefix}:commands")


async def test_worker_ends_with_the_benchmarks_even_when_they_are_killed(redis_url, redis, prefix):
    async def reads():
        return any(one["name"] == "askel-read" for one in await redis.client_list())

    async def reads_no_more():
        return not await reads()

    command = [sys.executable, "-c", OWNER, redis_url, prefix]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"ready\n"
        assert await reads()
        owner.kill()

    await wait_until(reads_no_more, message="the end of the worker")


def test_server_values_are_what_lies_between_two_readings():
    before = parse_stats(INFO.format(connections=3, evalsha=10, usec=100))
    after = parse_stats(INFO.format(connections=4, evalsha=30, usec=600))

    values = server_values(before, after, units=10, unit="step")

    assert before.cpu_us == 3_750_000
    assert before.commands["client|setname"] == (1, 2)
    assert values["evalsha"] == Value(2, "calls/step")
    assert values["server_scripts"] == Value(50, "µs/step")
    assert values["connects"] == Value(1, "connections")


def test_figure_is_the_median_of_rounds_without_noise_digits():
    one = figure("steps/s", [5678.9123, 1234.5, 9999.4])

    assert (one.median, one.min, one.max) == (5679, 1234, 9999)
    assert one.rounds == [5679, 1234, 9999]


def test_percentile_is_a_measured_number():
    waits = [float(number) for number in range(100, 0, -1)]

    assert [percentile(waits, share) for share in (0, 0.5, 0.99, 1)] == [1, 50, 99, 100]
    assert percentile([7.0], 0.99) == 7


def test_command_missing_in_a_round_counts_as_nothing():
    rare, often = CommandCost(1, 9), CommandCost(1, 4)

    costs = command_costs([{"xadd": rare, "hset": often}, {"hset": often}, {"hset": often}])

    assert costs == {"hset": often, "xadd": CommandCost(0, 0)}
    assert list(costs) == ["hset", "xadd"]


async def test_ratio_is_taken_within_each_round(redis_url):
    """A machine that is ten times slower in one round changes no ratio."""
    speeds = iter([100.0, 50.0, 10.0, 5.0, 100.0, 50.0])

    async def measured(_):
        values = {"per_second": Value(next(speeds), "calls/s")}
        return Measured(values, {}, {"ping": CommandCost(1, 2)})

    scenarios = [Scenario(name, "", {}, measured) for name in ("fast", "slow")]
    ratio = Ratio("fast per slow", ("fast", "per_second"), ("slow", "per_second"))
    benchmark = Benchmark("x", "a line", lambda quick: scenarios, (ratio,))
    told = []

    report = await measure(benchmark, Plan(redis_url, b"null", 3, quick=True), told.append)

    assert report.ratios["fast per slow"].rounds == [2, 2, 2]
    assert report.scenarios["fast"].figures["per_second"].rounds == [100, 10, 100]
    assert told[:3] == ["x, round 1 of 3: fast", "x, round 1 of 3: slow", "x, round 2 of 3: fast"]
    text = "\n".join(plain(table) for table in tables("x", report))
    assert "fast per slow       2    2    2" in text
    assert "ping     1 · 2  1 · 2" in text
