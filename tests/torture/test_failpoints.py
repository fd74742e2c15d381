"""Points of death: named ones, any one, any await; and the record that is left."""

import json
import os
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import anyio
from askeld.failpoints import arm

async def child(results):
    for _ in range(3):
        await anyio.sleep(0)
    results.append("child")

async def main():
    reach = arm() or (lambda point: None)
    results = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(child, results)
        with anyio.move_on_after(5):
            await anyio.sleep(0.001)
        for point in ("before_turn", "after_turn", "before_turn"):
            reach(point)
    async def own():
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.sleep(9)
        raise LookupError
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(own)
    except BaseExceptionGroup as group:
        results += [type(error).__name__ for error in group.exceptions]
    print(results)

anyio.run(main, backend_options={"use_uvloop": sys.argv[1] == "uvloop"})
"""


def start(specification, path, loop="asyncio"):
    environment = {
        **os.environ,
        "ASKEL_FAILPOINT": specification,
        "ASKEL_FAILPOINT_FILE": str(path),
    }
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, loop],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(specification, path, loop="asyncio"):
    process = start(specification, path, loop)
    printed, said = process.communicate(timeout=30)
    return subprocess.CompletedProcess(process.args, process.returncode, printed, said)


def point_of(path):
    (line,) = path.read_text().splitlines()
    facts = json.loads(line)
    assert facts["event"] == "failpoint"
    return facts["point"]


@pytest.mark.parametrize(
    ("specification", "point"),
    [
        ("before_turn", "before_turn"),
        ("before_turn:2", "before_turn"),
        ("any:2", "after_turn"),
    ],
)
def test_the_process_dies_there_and_leaves_a_line(specification, point, tmp_path):
    path = tmp_path / "points"

    assert run(specification, path).returncode == -signal.SIGKILL
    assert point_of(path) == point


def test_a_process_that_stops_itself_goes_on_from_there(tmp_path):
    path = tmp_path / "points"
    process = start("after_turn:1:stop", path)
    _, status = os.waitpid(process.pid, os.WUNTRACED)

    assert os.WIFSTOPPED(status)
    assert json.loads(path.read_text())["event"] == "stoppoint"
    process.send_signal(signal.SIGCONT)
    printed, _ = process.communicate(timeout=30)
    assert (process.returncode, printed) == (0, "['child', 'LookupError']\n")


def test_what_no_failpoint_does_is_refused(tmp_path):
    done = run("before_turn:1:dance", tmp_path / "points")

    assert done.returncode == 1
    assert "behind point and number comes stop, or nothing" in done.stderr


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("specification", ["", "after_turn:2", "any:4", "await:10000", "nowhere"])
def test_a_point_that_is_not_reached_changes_nothing(specification, loop, tmp_path):
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    path = tmp_path / "points"

    done = run(specification, path, loop)

    assert (done.returncode, done.stdout) == (0, "['child', 'LookupError']\n"), done.stderr
    assert not path.exists()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_every_await_is_one(loop, tmp_path):
    """Counted up from one, each number kills, until there are no more awaits."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    deaths = 0
    for nth in range(1, 40):
        path = tmp_path / str(nth)
        if run(f"await:{nth}", path, loop).returncode == 0:
            break
        assert point_of(path).startswith("await ")
        deaths += 1
    # child: its start and three awaits; own: its start and a cancelled await.
    assert deaths >= 6
