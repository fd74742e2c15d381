"""The soak in its short form: what does not grow passes, and what is planted is found."""

import json
import os
import signal
import subprocess
import sys

import pytest
from tests.helpers.waiting import wait_until

from askeld.torture.config import SETTINGS
from askeld.torture.soak.campaign import run_soak
from askeld.torture.soak.config import FAULTS, SoakConfig

QUICK = {**SETTINGS, "retention_ms": 500, "vitals_ms": 500}


def soak(tmp_path, **given):
    given = {"seconds": 36.0, "warm_up_s": 12.0, "every_s": 3.0, "keep_s": 2.0, **given}
    return SoakConfig(
        directory=tmp_path, rate=40.0, sample_s=0.5, compact_s=7.0, settings=QUICK, **given
    )


def quiet(_soak):
    """Show nothing."""


def names(trends):
    return {one.name for one in trends}


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_nothing_grows_while_everything_goes_wrong(tmp_path):
    report = await run_soak(soak(tmp_path, seed=5), quiet)

    told = [*report.told, *report.stuck, *report.failures, *map(str, report.growing)]
    assert report.is_good, "\n".join([*told, *report.diagnosis, *report.mishaps])
    assert all(report.faults[name].struck == 2 for name in FAULTS)
    assert report.compactions >= 2
    assert report.evaluated > 10_000
    measured = names(report.trends)
    for worker in ("worker 1", "worker 3"):
        assert {f"{worker}: {what}" for what in ("resident memory", "descriptors", "tasks")} < (
            measured
        )
    assert {
        "redis: memory",
        "redis: connections",
        "redis: oldest ended run",
        "keys: step",
    } < measured


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_planted_leaks_are_found(tmp_path):
    """Handlers that keep memory, descriptors and tasks; runs that nobody deletes."""
    config = soak(tmp_path, seed=6, mode="leaky", keep_s=3_600.0, every_s=6.0)

    report = await run_soak(config, quiet)

    growing = names(report.growing)
    for worker in ("worker 1", "worker 3"):
        assert {f"{worker}: {what}" for what in ("resident memory", "descriptors", "tasks")} <= (
            growing
        )
    assert "redis: oldest ended run" in growing
    assert not {"redis: connections", "redis: cached scripts"} & growing
    assert not report.is_broken  # leaking breaks no promise
    assert not report.is_good


def askel(*arguments):
    program = "import sys; from askeld.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, "soak", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--minutes 0", "--minutes '0': give a number from 1"),
        ("--workers 1", "--workers '1': give a number from 2"),
        ("--rate fast", "--rate 'fast'"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, said):
    process = askel(*arguments.split())
    out, err = process.communicate(timeout=50)

    assert (process.returncode, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert said in err


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_an_interrupted_soak_leaves_no_process(tmp_path):
    process = askel("--minutes", "5", "--keep", str(tmp_path / "kept"))
    evidence = tmp_path / "kept" / "evidence.jsonl"
    await wait_until(lambda: evidence.exists() and evidence.stat().st_size, 60)
    pids = {json.loads(line)["pid"] for line in evidence.read_text().splitlines()}

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]  # noqa: PTH110
