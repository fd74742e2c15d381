"""`askel demo`: what it reports is true, and nothing of it is left, however it ends."""

import os
import re
import signal
import subprocess
from collections import Counter

import pytest
from redis.asyncio import Redis
from tests.helpers.cli import ASKEL, environment, run_program
from tests.helpers.history_checker import check_all
from tests.helpers.keys import sync_client
from tests.helpers.traces import Trace
from tests.helpers.waiting import wait_until

from askel import AskelError
from askeld.cli.demo import _picture
from askeld.demo import Demo, Progress, Workers, example_folder
from askeld.embedded import EmbeddedServer

MEMBERS = {
    "runs": int,
    "completed": int,
    "steps": int,
    "attempts": int,
    "retried": int,
    "re_executed": int,
    "lost": int,
    "duplicated": int,
    "seconds": float,
    "steps_per_second": float,
    "recovery_seconds": float,
}
STEPS_OF_A_RUN = 7


@pytest.fixture
def trace():
    return Trace()


@pytest.fixture
def scratch(tmp_path):
    """The folder for temporary files; short, because a socket is in it."""
    folder = tmp_path / "t"
    folder.mkdir()
    return folder


def test_json_is_one_object_on_standard_output(tmp_path, scratch, trace):
    env = {**trace.env, "TMPDIR": str(scratch)}
    ran = run_program([ASKEL, "demo", "--json"], cwd=tmp_path, env=env, timeout=58)
    assert (ran.code, ran.out.count("\n")) == (0, 1), ran
    report = ran.json()
    assert {name: type(value) for name, value in report.items()} == MEMBERS
    assert report["runs"] == report["completed"] == 300
    assert report["steps"] == 300 * STEPS_OF_A_RUN
    assert (report["lost"], report["duplicated"]) == (0, 0)
    assert report["re_executed"] >= 1
    assert report["retried"] >= 1
    sleeps = 300
    extra = report["retried"] + report["re_executed"]
    assert report["attempts"] == report["steps"] - sleeps + extra
    assert report["seconds"] < 58
    assert report["steps_per_second"] == pytest.approx(
        report["steps"] / report["seconds"], rel=0.01
    )
    assert 0 < report["recovery_seconds"] < report["seconds"]
    assert "worker" in ran.err  # Progress, for people.
    assert trace.processes() == []
    assert list(scratch.iterdir()) == []


def test_for_people_it_ends_with_a_history_and_a_table_that_are_true(
    call, own_server, monkeypatch, trace
):
    """Counted again, before the keys are removed, by a judge that shares no code with it."""
    kept = []

    async def look_and_clean_up(demo):
        async with Redis.from_url(own_server.url, protocol=2) as client:
            kept.extend(await check_all(client, demo.prefix))
        await clean_up(demo)

    clean_up = Demo.clean_up
    monkeypatch.setattr(Demo, "clean_up", look_and_clean_up)
    with sync_client(own_server.url) as redis:
        redis.set("foreign", 1)
        ran = call("demo", "--runs", "120", REDIS_URL=own_server.url, COLUMNS="100", **trace.env)
        assert redis.keys() == [b"foreign"]
        redis.flushall()
    assert (ran.code, ran.err) == (0, ""), ran
    assert trace.processes() == []
    progress, _, history = ran.out.partition("\nHistory of run ")
    history, _, table = history.partition("\nWhat the histories say")
    assert "your Redis" in progress
    killed = re.search(r" (\d+)/120 runs .* killed \(SIGKILL\), the other takes over\n", progress)
    assert int(killed[1]) >= 60

    run_id = history.split(",")[0]
    (exemplar,) = (record for record in kept if record.run_id == run_id)
    assert exemplar.count("lost")
    _, header, *lines = filter(str.strip, history.splitlines())
    assert header.split() == ["#", "TIME", "(UTC)", "WHAT", "STATUS", "ATTEMPT", "DETAIL"]
    for number, (line, entry) in enumerate(zip(lines, exemplar.entries, strict=True)):
        assert line.split()[0] == str(number)
        assert entry.get("name", entry["t"]) in line
        assert entry.get("status", "timer") in line

    entries = [entry for record in kept for entry in record.entries if entry["t"] == "step"]
    counts = Counter(entry["status"] for entry in entries)
    rows = {line[:22].strip(): line[22:].split() for line in table.splitlines() if line.strip()}
    shown = {label: int(words[0]) for label, words in list(rows.items())[:7]}
    assert shown == {
        "runs completed": sum(record.status == "completed" for record in kept),
        "steps": counts["succeeded"],
        "attempts": counts["running"],
        "failed, tried again": counts["failed"],
        "re-executed": counts["lost"],
        "lost": 0,
        "duplicated": 0,
    }
    assert rows["runs completed"] == ["120", "of", "120"]
    assert counts["succeeded"] == 120 * STEPS_OF_A_RUN
    assert counts["lost"] >= 1


@pytest.fixture
def demo_at_work(tmp_path, scratch, trace):
    """Start a demonstration and wait until runs have ended; its process."""
    started = []

    def start(**env):
        process = subprocess.Popen(
            [ASKEL, "demo"],
            env=environment(**trace.env, TMPDIR=str(scratch), **env),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert any("ended" in line and " 0/300" not in line for line in process.stdout)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda s: s.name)
def test_ended_by_a_signal_it_leaves_nothing(demo_at_work, scratch, trace, number):
    process = demo_at_work()
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=25)
    assert (process.returncode, err) == (130, "")
    assert trace.processes() == []
    assert list(scratch.iterdir()) == []


def test_interrupted_it_leaves_no_key_on_a_given_redis_either(
    demo_at_work, own_server, scratch, trace
):
    process = demo_at_work(REDIS_URL=own_server.url)
    with sync_client(own_server.url) as redis:
        assert redis.dbsize() > 100
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=25)
        assert (process.returncode, err) == (130, "")
        assert redis.keys() == []
    assert trace.processes() == []
    assert list(scratch.iterdir()) == []


async def test_killed_it_leaves_no_process_and_no_file(demo_at_work, scratch, trace):
    process = demo_at_work()
    process.kill()
    process.wait()
    await wait_until(lambda: not trace.processes(), message=lambda: str(trace.processes()))
    await wait_until(lambda: not list(scratch.iterdir()))


async def test_a_redis_that_goes_away_in_the_middle_is_one_line(demo_at_work, trace):
    with EmbeddedServer(port=0) as server:
        process = demo_at_work(REDIS_URL=server.url)
        server.kill()
        _, err = process.communicate(timeout=40)
    assert process.returncode == 1
    assert err.startswith("askel demo: ")
    assert err.count("\n") == 1
    assert trace.processes() == []


async def test_a_worker_that_does_not_start_is_told_in_one_line(own_server, tmp_path):
    example = tmp_path / "broken"
    example.mkdir()
    (example / "app.py").write_text("raise RuntimeError('not today')\n")
    workers = Workers(own_server.url, "p", example, tmp_path, ())
    with pytest.raises(AskelError, match=r"^worker 1 did not start: .*not today.*$") as caught:
        await workers.start(1)
    workers.stop()
    assert "\n" not in str(caught.value)


async def test_a_worker_that_ends_by_itself_is_told(own_server, tmp_path, trace, monkeypatch):
    for name, value in trace.env.items():
        monkeypatch.setenv(name, value)
    workers = Workers(own_server.url, "p", example_folder(), tmp_path, ())
    await workers.start(2)
    try:
        workers.check()
        workers.kill(0)
        workers.check()
        os.kill(workers.processes[1].pid, signal.SIGTERM)
        workers.processes[1].wait(20)
        with pytest.raises(AskelError, match=r"^worker 2 ended by itself: .*worker_stopped"):
            workers.check()
    finally:
        workers.stop()
    await wait_until(lambda: not trace.processes())
    assert (tmp_path / "worker-0.log").exists()  # Its folder goes only with its owner.
    with sync_client(own_server.url) as redis:
        redis.flushall()


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("killed", [None, 4_194_304])
@pytest.mark.parametrize("ended", [0, 150, 299, 300])
def test_the_live_line_fits_the_terminal(width, killed, ended):
    line = _picture(Progress(300, ended, killed, 55.5), 300, width)
    assert line.cell_len <= width
    assert f"{ended}/300" in line.plain
    assert ("killed" in line.plain) is (killed is not None)
