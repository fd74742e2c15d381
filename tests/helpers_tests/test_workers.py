"""The worker helper: what it hands over, waits for, kills and reads. A stub plays the daemon."""

import json
import signal
import sys

import pytest
from tests.helpers.workers import WorkerProcess

STUB = """
import json, os, signal, sys
from askel_stub_app import GREETING

names = ("REDIS_URL", "ASKEL_PREFIX", "ASKEL_FAILPOINT", "ASKEL_CLOCK_OFFSET_MS", "ASKEL_STRAY")
env = {name: os.environ.get(name) for name in names}
print("plain text", file=sys.stderr)
print(json.dumps(["no", "record"]))
print(json.dumps({"event": "started", "argv": sys.argv[1:], "env": env, "says": GREETING}))
if "quit" in sys.argv:
    sys.exit(4)
print(json.dumps({"event": "worker_ready", "consumer": "c1"}), file=sys.stderr)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    signal.pause()
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Start workers that run the stub instead of the daemon."""
    monkeypatch.setenv("ASKEL_STRAY", "of the developer's shell")
    (tmp_path / "stub.py").write_text(STUB)
    apps = tmp_path / "apps"
    apps.mkdir()
    (apps / "askel_stub_app.py").write_text("GREETING = 'hello'\n")

    def start(*args, **kwargs):
        return WorkerProcess(
            "shop:app",
            redis_url="redis://127.0.0.1:1",
            prefix="p",
            directory=tmp_path,
            args=args,
            pythonpath=[apps],
            command=(sys.executable, str(tmp_path / "stub.py")),
            **kwargs,
        )

    return start


async def test_it_hands_over_what_it_was_given(stub):
    async with stub("--queue", "q", failpoint="before_turn:2", clock_offset_ms=-5000) as worker:
        assert await worker.wait_ready() == {"event": "worker_ready", "consumer": "c1"}
        assert worker.returncode is None
        started = worker.logs()[0]
        assert started == {
            "event": "started",
            "argv": ["shop:app", "--queue", "q"],
            "env": {
                "REDIS_URL": "redis://127.0.0.1:1",
                "ASKEL_PREFIX": "p",
                "ASKEL_FAILPOINT": "before_turn:2",
                "ASKEL_CLOCK_OFFSET_MS": "-5000",
                "ASKEL_STRAY": None,
            },
            "says": "hello",
        }
        assert [line["event"] for line in worker.logs()] == ["started", "worker_ready"]
        assert "plain text" in worker.output()


async def test_terminating_lets_it_end_by_itself(stub):
    async with stub() as worker:
        await worker.wait_ready()
        worker.terminate()
        assert await worker.wait() == 0


async def test_killing_and_pausing(stub):
    async with stub() as worker:
        await worker.wait_ready()
        worker.pause()
        worker.resume()
        with pytest.raises(AssertionError, match="the end of the worker"):
            await worker.wait(timeout=0)
        worker.kill()
        assert await worker.wait() == -signal.SIGKILL


async def test_leaving_the_block_ends_it_and_notes_its_output_on_a_failure(stub):
    worker = stub()

    async def failing():
        async with worker:
            await worker.wait_ready()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        await failing()
    assert worker.returncode == -signal.SIGKILL
    assert "plain text" in caught.value.__notes__[0]


async def test_waiting_for_a_line_ends_with_the_process(stub):
    async with stub("quit") as worker:
        with pytest.raises(AssertionError, match="ended with 4 without worker_ready") as caught:
            await worker.wait_ready()
        assert json.dumps(["no", "record"]) in str(caught.value)
        assert await worker.wait_log("started", says="hello")
