"""`askel torture` from a shell: what it refuses, what it prints, what it leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import msgspec
import pytest
from tests.helpers.waiting import wait_until
from tests.torture.reports import GOOD

from askeld.cli.campaign import check_output
from askeld.cli.torture_report import print_report

QUICK = ("--runs", "40", "--seconds", "2", "--seed", "4")


def askel(*arguments, **options):
    program = "import sys; from askeld.cli import main; sys.exit(main())"
    environment = {k: v for k, v in os.environ.items() if not k.endswith("REDIS_URL")}
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--faults nonesuch", "--faults 'nonesuch': know kill9, failpoint"),
        ("--faults kill9:many", "write a count as kill9:50"),
        ("--faults kill9:0", "write a count as kill9:50"),
        ("--rounds 0", "--rounds '0': give a number from 1"),
        ("--json /nope/x.json", "--json /nope/x.json: the report cannot be written there: No such"),
        ("--json /", "the report cannot be written there: Is a directory"),
        ("--runs 0", "--runs '0': give a number from 1"),
        ("--seconds soon", "--seconds 'soon'"),
        ("--mode tired", "--mode"),
        ("--redis redis://h --faults redis-kill", "leave out redis-kill, or leave out --redis"),
        ("--redis redis://h --faults clock:2", "must be ours"),
        ("--redis rediss://h --faults proxy", "not rediss://"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, said):
    process = askel("torture", *arguments.split())
    out, err = process.communicate(timeout=50)

    assert (process.returncode, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert said in err


def test_a_report_of_a_soak_is_to_be_written_somewhere(call):
    ran = call("soak", "--json", "/nope/x.json")
    assert ran.code == 2
    assert "--json /nope/x.json: the report cannot be written there" in ran.complaint


def test_to_try_whether_a_report_can_be_written_changes_nothing(tmp_path):
    check_output(str(tmp_path / "report.json"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "report.json").write_text("{}")
    check_output(str(tmp_path / "report.json"))
    assert (tmp_path / "report.json").read_text() == "{}"


def test_only_points_that_were_planned_are_counted(capsys):
    due = {"after-read": 3, "after-turn": 4, "never": 0}
    reached = {"after-read": 2, "after-turn": 5, "never": 0}
    print_report(msgspec.structs.replace(GOOD, points=reached, points_planned=due))
    assert "2 named points, each at least 2 times" in capsys.readouterr().out
    print_report(msgspec.structs.replace(GOOD, points=reached, points_planned={}))
    assert "each at least" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["REDIS_URL", "ASKEL_REDIS_URL"])
def test_a_redis_that_a_variable_names_is_not_tortured(call, monkeypatch, name):
    """Only --redis names one; its password may stand in a file, as always."""
    urls = []

    async def run(config, *_):
        urls.append(config.url)
        return GOOD

    monkeypatch.setattr("askeld.cli.torture._run", run)
    there = "redis://127.0.0.1:1/0"

    assert call("torture", **{name: there}).code == 0
    assert call("torture", "--redis", there, **{name: "redis://other"}).code == 0

    assert urls == ["", there]


def test_a_run_that_ends_unexpectedly_says_what_it_may_have_left(call, monkeypatch):
    async def run(config, *_):
        raise ZeroDivisionError

    monkeypatch.setattr("askeld.cli.torture._run", run)

    ran = call("torture", "--redis", "redis://:secret@127.0.0.1:1/0")

    assert ran.code == 1
    assert re.search(r"keys (askel-torture-\w+)\* may be left there; .*--pattern '\1\*'", ran.err)
    assert "secret" not in ran.err


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_good_run_is_reported_to_people_and_programs(tmp_path):
    report = tmp_path / "report.json"
    kept = tmp_path / "kept"
    arguments = ("--faults", "kill9:12,failpoint:6", "--json", str(report), "--keep", str(kept))

    process = askel("torture", *QUICK, *arguments)
    out, err = process.communicate(timeout=170)

    assert process.returncode == 0, out + err
    assert "Nothing broke; judged by the append-only file." in out
    assert "naive control broke" in out
    assert "kill9" in err  # progress
    facts = json.loads(report.read_bytes())
    assert facts["seed"] == 4
    assert facts["faults"]["kill9"]["bites"] == 12
    assert (facts["lost"], facts["duplicated"], facts["stuck"], facts["failures"]) == (0, 0, [], [])
    assert {"client.jsonl", "evidence.jsonl", "effects.jsonl"} <= {f.name for f in kept.iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_rounds_are_reported_one_by_one_and_added_up(tmp_path):
    report, kept = tmp_path / "report.json", tmp_path / "kept"
    arguments = ("--rounds", "2", "--faults", "kill9:12", "--no-control", "--json", str(report))

    process = askel("torture", *QUICK, *arguments, "--keep", str(kept))
    out, err = process.communicate(timeout=230)

    assert process.returncode == 0, out + err
    assert "2 rounds from seed 4" in out
    assert "round 2 of 2, seed 5 begins" in err
    assert "round 2 of 2, seed 5  load and faults" in err
    facts = json.loads(report.read_bytes())
    assert [(one["seed"], one["verdict"]) for one in facts["rounds"]] == [
        (4, "nothing broke"),
        (5, "nothing broke"),
    ]
    assert facts["runs"] >= 80
    assert facts["faults"]["kill9"]["bites"] == 24
    assert {folder.name for folder in kept.iterdir()} == {"round-1", "round-2"}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_control_exits_with_1_and_names_what_broke():
    arguments = ("--mode", "naive", "--faults", "kill9:20", "--runs", "80")

    process = askel("torture", *QUICK, *arguments)
    out, err = process.communicate(timeout=110)

    assert process.returncode == 1, out + err
    assert "Promises were broken" in out
    assert "--seed 4" in err


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_nothing_is_left_of_a_run_that_is_killed_without_a_word(tmp_path):
    """Workers and server end with the runner, whatever ends that."""
    process = askel("torture", *QUICK, "--keep", str(tmp_path / "kept"))
    evidence = tmp_path / "kept" / "evidence.jsonl"

    def workers():
        lines = evidence.read_text().splitlines() if evidence.exists() else []
        return {line["pid"] for line in map(json.loads, lines) if line["event"] == "worker_ready"}

    end = time.monotonic() + 40
    while not workers() and time.monotonic() < end:
        time.sleep(0.01)
    assert workers()
    process.kill()
    process.communicate()
    while any(map(_is_alive, workers())) and time.monotonic() < end:
        time.sleep(0.01)
    assert not [pid for pid in workers() if _is_alive(pid)]


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_an_interrupted_run_ends_at_once_and_cleanly(tmp_path):
    process = askel("torture", *QUICK, "--keep", str(tmp_path / "kept"))
    evidence = tmp_path / "kept" / "evidence.jsonl"
    await wait_until(lambda: evidence.exists() and evidence.stat().st_size, 40)

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)

    assert process.returncode == 130
    assert "Traceback" not in out + err


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - no path of ours
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.allow_keys(r"askel-torture-.*")
async def test_an_interrupted_run_leaves_nothing_on_a_redis_of_the_users(redis, redis_url, prefix):
    arguments = ("--runs", "400", "--seconds", "30", "--faults", "kill9:20", "--redis", redis_url)
    process = askel("torture", *arguments)

    async def under_way():
        return [key async for key in redis.scan_iter("askel-torture-*:run:*")]

    await wait_until(under_way, 30)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert not [key async for key in redis.scan_iter("askel-torture-*")]
