"""Campaigns of the torture runner: what they prove of askel, and that they would notice."""

import os

import pytest

from askeld.torture import runner
from askeld.torture.campaign import run_campaign
from askeld.torture.config import TortureConfig
from askeld.torture.faults.workers import SigStop

pytestmark = pytest.mark.slow


def campaign(tmp_path, **given):
    return TortureConfig(directory=tmp_path, stuck_s=60.0, **given)


def quiet(_torture):
    """Show nothing."""


def nothing_broke(report):
    """Say what did, if anything: its story is in the report."""
    found = [*report.told, *report.stuck, *report.failures, *report.diagnosis]
    assert not found, "\n".join([*found, *report.first_violating_run, *report.mishaps])
    assert report.is_good
    return True


@pytest.mark.timeout(1_200)
async def test_a_bad_day(tmp_path, shimmed, capsys):
    """1,000 deaths in 5,000 runs, stops beyond the lease, Redis killed, power cuts: all is kept."""
    faults = {"kill9": 600, "failpoint": 400, "sigstop": 50, "redis-kill": 5, "power-loss": 3}
    faults["drain"] = 20
    config = campaign(tmp_path, runs=5_000, workers=6, seconds=45.0, seed=20261122, faults=faults)

    report = await run_campaign(config, quiet)

    with capsys.disabled():
        took = f"{report.load_s:.0f} s, {report.drained_s:.0f} s to drain"
        print(f"\ntorture: {report.deaths} deaths, {report.runs} runs, {took}")  # noqa: T201 - for people
    assert nothing_broke(report)
    assert report.judged_by == "the append-only file"
    assert report.runs >= 5_000
    assert report.deaths >= 990  # a doomed worker may never come by its point
    assert {
        name: report.faults[name].bites for name in ("sigstop", "redis-kill", "power-loss")
    } == {
        "sigstop": 50,
        "redis-kill": 5,
        "power-loss": 3,
    }
    assert sum(report.refused_stale_writes.values()) >= 10
    assert min(report.points.values()) >= 5
    assert report.control["violations"] >= 10


@pytest.mark.timeout(300)
async def test_every_server_every_fault(tmp_path, every_binary, shimmed):
    """What one server shows, all do; and locks may vanish, memory run out, clocks jump besides."""
    faults = {"kill9": 30, "failpoint": 30, "sigstop": 25, "drain": 8, "evict": 10, "proxy": 12}
    faults |= {"redis-kill": 1, "oom": 2, "power-loss": 1, "clock": 2}
    config = campaign(tmp_path, runs=300, workers=5, seconds=9.0, seed=7, faults=faults)

    report = await run_campaign(config, quiet, control=False, binary=every_binary)

    assert nothing_broke(report)
    assert all(fault.bites for fault in report.faults.values())
    assert report.commands["unknown"] >= 1


@pytest.mark.timeout(180)
async def test_power_loss_with_a_sync_each_second_loses_and_says_so(tmp_path, shimmed):
    """What was acknowledged within a second may be gone; what is left contradicts nothing."""
    config = campaign(
        tmp_path,
        runs=300,
        seconds=10.0,
        seed=3,
        durability="everysec",
        faults={"kill9": 20, "power-loss": 4},
    )

    report = await run_campaign(config, quiet, control=False)

    assert report.faults["power-loss"].bites == 4
    assert report.violations == 0, report.told
    assert not report.stuck


@pytest.mark.timeout(120)
async def test_the_control_breaks_by_faults_and_not_without(tmp_path):
    """The naive worker keeps every rule while nobody harms it: what it breaks, the faults break."""
    (tmp_path / "calm").mkdir()
    (tmp_path / "storm").mkdir()
    given = {"mode": "naive", "runs": 80, "seconds": 4.0, "seed": 5}
    faults = {"kill9": 16, "failpoint": 8}

    calm = await run_campaign(campaign(tmp_path / "calm", **given), quiet)
    storm = await run_campaign(campaign(tmp_path / "storm", **given, faults=faults), quiet)

    assert (calm.violations, calm.lost, calm.duplicated) == (0, 0, 0), calm.told
    assert storm.violations > 10
    assert storm.duplicated > 0
    assert not storm.is_good


@pytest.mark.timeout(120)
async def test_a_run_whose_stops_never_bit_fails(tmp_path, monkeypatch):
    """Nothing broke, and that is no merit: nobody was stopped."""

    async def strike(self, dice):
        """Do no harm at all."""

    monkeypatch.setattr(SigStop, "strike", strike)
    config = campaign(tmp_path, runs=30, seconds=2.0, seed=1, faults={"kill9": 10, "sigstop": 3})

    report = await run_campaign(config, quiet, control=False)

    assert not report.violations
    assert not report.is_good
    assert "sigstop never bit" in report.failures


@pytest.mark.timeout(120)
async def test_what_is_stuck_is_found_and_described(tmp_path, monkeypatch):
    """Without anybody who serves a queue its steps wait for ever: the report says for what."""
    monkeypatch.setitem(runner.SETTINGS, "queues", ("",))
    config = TortureConfig(directory=tmp_path, runs=10, seconds=0.5, seed=1, stuck_s=2.0)

    report = await run_campaign(config, quiet)

    assert report.stuck
    assert not report.is_good
    described = "\n".join(report.diagnosis)
    assert "commands:warehouse" in described
    assert "step.execute" in described
    assert "'status': 'scheduled'" in described or '"scheduled"' in described


@pytest.mark.timeout(120)
async def test_a_redis_of_the_users_is_judged_by_its_keys_and_left_clean(
    tmp_path, redis_url, redis, prefix
):
    """Its file is not ours to read; nothing stays behind."""
    config = campaign(
        tmp_path, runs=60, seconds=3.0, seed=9, url=redis_url, prefix=prefix, faults={"kill9": 15}
    )

    report = await run_campaign(config, quiet)

    assert nothing_broke(report)
    assert report.judged_by == "the final keys"
    assert report.control["violations"] > 0
    assert [key async for key in redis.scan_iter(f"{prefix}*")] == []


@pytest.mark.timeout(60)
async def test_a_redis_of_the_users_is_left_clean_where_too_little_was_tried(
    tmp_path, monkeypatch, redis_url, redis, prefix
):
    """There is nothing to look at: nothing broke."""

    async def strike(self, dice):
        """Do no harm at all."""

    monkeypatch.setattr(SigStop, "strike", strike)
    given = {"runs": 20, "seconds": 1.0, "seed": 1, "faults": {"sigstop": 1}}
    config = campaign(tmp_path, **given, url=redis_url, prefix=prefix)

    report = await run_campaign(config, quiet, control=False)

    assert (report.is_broken, report.is_good, report.kept) == (False, False, [])
    assert [key async for key in redis.scan_iter(f"{prefix}*")] == []


@pytest.mark.timeout(60)
async def test_what_stays_on_a_redis_of_the_users_is_named(
    tmp_path, monkeypatch, redis_url, redis, prefix
):
    """Where something broke; and how to remove it, without the address, which has a password."""
    monkeypatch.setitem(runner.SETTINGS, "queues", ("",))
    given = {"runs": 10, "seconds": 0.5, "seed": 1, "stuck_s": 2.0}
    config = TortureConfig(directory=tmp_path, **given, url=redis_url, prefix=prefix)

    report = await run_campaign(config, quiet, control=False)

    assert report.stuck
    (kept,) = report.kept
    assert kept.startswith(f"keys {prefix}:*, ")
    assert f"redis-cli --scan --pattern '{prefix}*' | xargs -r redis-cli UNLINK" in kept
    assert redis_url not in kept
    left = [key async for key in redis.scan_iter(f"{prefix}*")]
    assert left
    await redis.unlink(*left)


@pytest.mark.timeout(60)
async def test_no_worker_outlives_a_campaign(tmp_path):
    """Not even those that were stopped, or doomed and never came by their point."""
    config = campaign(tmp_path, runs=20, seconds=1.0, seed=2, faults={"sigstop": 2, "failpoint": 2})
    pids = set()

    def note(torture):
        pids.update(torture.workers.alive)

    await run_campaign(config, note, control=False)

    assert len(pids) >= config.workers
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)  # noqa: PTH110 - no path of ours
