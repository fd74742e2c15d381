"""The key-leak checker: it lets documented keys pass, names all others, and leaves nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.helpers.keys import KEY_PATTERNS, delete_all, describe, find_leaks, sync_client

ROOT = Path(__file__).resolve().parents[2]

# A module of tests that run with this repository's own conftest in a pytest of their own.
LEAKY = """
import pytest

async def test_clean(redis, prefix):
    await redis.rpush(f"{prefix}:history:r", "x")
    await redis.set(f"{prefix}:lock:r", "me", px=30000)

async def test_foreign(redis, prefix):
    await redis.set("elsewhere", 1)

async def test_undocumented(redis, prefix):
    await redis.set(f"{prefix}:invented", 1)

async def test_immortal_lock(redis, prefix):
    await redis.set(f"{prefix}:lock:r", "me")

@pytest.mark.allow_keys("elsewhere")
async def test_allowed(redis, prefix):
    await redis.set("elsewhere", 1)

async def test_failing_already(redis, prefix):
    await redis.set("elsewhere", 1)
    assert False

async def test_all_was_deleted(redis):
    assert await redis.dbsize() == 0

def test_without_a_server(prefix):
    pass
"""


@pytest.fixture
def checked(server):
    with sync_client(server.url) as client:
        yield client
        delete_all(client)


@pytest.mark.parametrize(
    "name",
    [
        "run:r",
        "step:r:charge: card: ü\nx",
        "history:r",
        "step-history:r:charge:1",
        "run-state:r",
        "version:a:b",
        "steps:r",
        "runs",
        "runs:status:running",
        "retention",
        "ctl:r",
        "nudge:c",
        "schedules",
        "meta",
        "commands",
        "commands:warehouse",
        "sweep",
        "sweep:warehouse",
        "timers",
        "watch",
        "dead",
        "events",
        "reply:x",
    ],
)
def test_documented_keys_pass(checked, name):
    checked.set(f"p:{name}", 1)
    assert find_leaks(checked, "p") == []


def test_the_examples_above_cover_every_pattern():
    assert len(KEY_PATTERNS) == 22


def test_wrong_keys_are_named(checked):
    for key in ("px:run:r", "run:r", "p:runner:r", "p:timers:x", "p:step:r", b"p\xff:run:r"):
        checked.set(key, 1)
    assert find_leaks(checked, "p") == [
        "p:runner:r: matches no documented key",
        "p:step:r: matches no documented key",
        "p:timers:x: matches no documented key",
        "px:run:r: outside the prefix p",
        "p\\xff:run:r: outside the prefix p",
        "run:r: outside the prefix p",
    ]


@pytest.mark.parametrize("name", ["lock:r", "step-lock:r:s"])
def test_a_lock_needs_a_time_to_live(checked, name):
    checked.set(f"p:{name}", "me", px=60_000)
    assert find_leaks(checked, "p") == []
    checked.persist(f"p:{name}")
    assert find_leaks(checked, "p") == [f"p:{name}: a lock without a time to live"]


def test_allowed_keys_are_left_out(checked):
    checked.mset({"other:1": 1, "p:odd": 1})
    assert find_leaks(checked, "p", [r"other:\d", "p:odd"]) == []


def test_deleting_takes_everything(checked):
    checked.mset({f"k{number}": 1 for number in range(2500)})
    delete_all(checked)
    assert checked.dbsize() == 0


def test_a_long_report_is_shortened():
    report = describe([f"k{number}" for number in range(30)])
    assert report.splitlines()[0] == "the test left 30 wrong key(s):"
    assert report.splitlines()[-1] == "… and 10 more"


def test_the_fixture_fails_exactly_the_tests_that_leak(tmp_path):
    (tmp_path / "test_leaky.py").write_text(LEAKY)
    command = [
        *(sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"),
        *("-o", "anyio_mode=auto", "-W", "error", "--import-mode=importlib", "-rA", "--tb=short"),
        *("--rootdir", str(tmp_path), "-c", os.devnull, str(tmp_path)),
    ]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    env.pop("PYTEST_ADDOPTS", None)
    env.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)
    lines = done.stdout.splitlines()
    errors = {re.split(r"::|\[", line)[1] for line in lines if line.startswith("ERROR ")}
    assert errors == {"test_foreign", "test_undocumented", "test_immortal_lock"}, done.stdout
    assert "8 passed" not in done.stdout
    assert "1 failed, 7 passed, 3 errors" in lines[-1]
    assert "elsewhere: outside the prefix t:test_foreign" in done.stdout
